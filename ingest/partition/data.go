package partition

import "io"

// Data is whole record batches as a reader gets them, in order: in one file, or in blocks of memory. The zero value is
// empty. Release gives back what they lie in; nothing may be used afterwards. Releasing twice is harmless.
type Data struct {
	blocks  [][]byte
	file    io.ReaderAt
	size    int64
	release func()
}

// Size is the number of bytes.
func (d *Data) Size() int64 { return d.size }

// Blocks are the runs of bytes in order, if the data lies in memory.
func (d *Data) Blocks() [][]byte { return d.blocks }

// File reads the data from 0 on, if it lies in a file; else nil.
func (d *Data) File() io.ReaderAt { return d.file }

// Release gives back what the data lies in.
func (d *Data) Release() {
	if d.release != nil {
		d.release()
		d.release = nil
	}
}

// fileData is data in one file.
func fileData(r io.ReaderAt, size int64, release func()) Data {
	if size == 0 {
		release()
		return Data{}
	}
	return Data{file: r, size: size, release: release}
}

// MemoryData is data in blocks of memory, given back by release, which may be nil.
func MemoryData(blocks [][]byte, release func()) Data {
	d := Data{blocks: blocks, release: release}
	for _, b := range blocks {
		d.size += int64(len(b))
	}
	return d
}
