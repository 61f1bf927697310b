package partition

import "io"

// Piece is a run of Size record bytes: in memory, or what Reader reads from 0 on.
type Piece struct {
	Bytes  []byte
	Reader io.ReaderAt
	Size   int64
}

// Data is whole record batches as a reader gets them, in order. The zero value is empty. Release gives back the file
// or blocks behind it; the pieces must not be used afterwards. Releasing twice is harmless.
type Data struct {
	pieces  []Piece
	one     [1]Piece
	size    int64
	release func()
}

// Size is the number of bytes.
func (d *Data) Size() int64 { return d.size }

// Pieces are the runs of bytes, in order.
func (d *Data) Pieces() []Piece {
	if d.pieces == nil && d.size > 0 {
		return d.one[:]
	}
	return d.pieces
}

// Release gives back what the data lies in.
func (d *Data) Release() {
	if d.release != nil {
		d.release()
		d.release = nil
	}
}

// fileData is data in one file.
func fileData(r io.ReaderAt, size int64, release func()) Data {
	return Data{one: [1]Piece{{Reader: r, Size: size}}, size: size, release: release}
}

// MemoryData is data in blocks of memory, given back by release, which may be nil.
func MemoryData(blocks [][]byte, release func()) Data {
	d := Data{pieces: make([]Piece, 0, len(blocks)), release: release}
	for _, b := range blocks {
		d.pieces = append(d.pieces, Piece{Bytes: b, Size: int64(len(b))})
		d.size += int64(len(b))
	}
	return d
}
