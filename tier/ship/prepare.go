package ship

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"sort"

	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// prepared is the body of an upload: the recoded segment, put together from the places where its bytes already are. A
// block that stays raw is read from the local segment again, which costs a read from the page cache; only blocks that
// compress are written to a temporary file, and a segment of which nothing does has none. So a broker whose producers
// compress ships without writing to its disk, and one whose producers do not writes a third or less of what it ships.
//
// What is read again may have changed under way on a bad disk: the checksum of the whole, computed when everything was
// verified, goes along with the upload and catches it.
type prepared struct {
	footer  *segment.Footer
	size    int64
	crc     uint32
	parts   []part
	scratch vfs.File // nil if nothing was compressed
	remove  func() error
}

// part is a run of the object's bytes.
type part struct {
	at, size int64 // position in the object
	source   io.ReaderAt
	position int64 // in source
}

// recoder takes what segment.Recode writes and notes where each piece can be found.
type recoder struct {
	prepared
	fs   vfs.FS
	dir  string
	pace func(n int64) error

	local    io.ReaderAt
	read     part // the last read from local
	scratchN int64
}

// prepare verifies a segment and turns it into the body of an upload. pace is called with the number of bytes about to be
// read. scratch names the directory for a temporary file. The result reads from local until it is closed.
func prepare(local io.ReaderAt, f *segment.Footer, o segment.RecodeOptions, fs vfs.FS, scratch string, pace func(int64) error) (*prepared, error) {
	r := &recoder{fs: fs, dir: scratch, pace: pace, local: local}
	footer, size, crc, err := segment.Recode(r, r, f, o)
	if err == nil {
		r.footer, r.crc = footer, crc
		err = r.finish(size)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &r.prepared, nil
}

// ReadAt gives Recode the local segment, and remembers where from.
func (r *recoder) ReadAt(p []byte, position int64) (int, error) {
	if err := r.pace(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := r.local.ReadAt(p, position)
	r.read = part{size: int64(n), source: r.local, position: position}
	return n, err
}

// Write takes the next piece: the header, then one block a call, then the footer.
func (r *recoder) Write(p []byte) (int, error) {
	next := part{at: r.prepared.size, size: int64(len(p))}
	switch {
	case compressed(p):
		position, err := r.keep(p)
		if err != nil {
			return 0, err
		}
		next.source, next.position = r.scratch, position
	case len(r.parts) > 0 && next.size == r.read.size:
		next.source, next.position = r.read.source, r.read.position
	default: // the header, the footer, a block of a segment that was cut: two at most
		next.source = memory(bytes.Clone(p))
	}
	r.parts = append(r.parts, next)
	r.prepared.size += next.size
	return len(p), nil
}

// compressed reports whether a piece is a zstd frame (RFC 8878). Mistaking a raw block for one only costs its copy: the
// other mistake is impossible, and finish would find it.
func compressed(p []byte) bool {
	return len(p) >= 4 && p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd
}

// keep appends p to the temporary file. It is never synced: it has no use after a crash.
func (r *recoder) keep(p []byte) (int64, error) {
	if r.scratch == nil {
		name := path.Join(r.dir, segment.NewUUID())
		file, err := r.fs.Create(name)
		if err != nil {
			return 0, fmt.Errorf("create temporary file for an upload: %w", err)
		}
		r.scratch, r.remove = file, func() error { return r.fs.Remove(name) }
	}
	position := r.scratchN
	if _, err := r.scratch.WriteAt(p, position); err != nil {
		return 0, fmt.Errorf("write temporary file for an upload: %w", err)
	}
	r.scratchN += int64(len(p))
	return position, nil
}

// finish puts the footer's own bytes in place of the last piece, which may have looked like a block, and holds the pieces
// against the block table.
func (r *recoder) finish(size int64) error {
	blocks := r.footer.Blocks
	if len(r.parts) != len(blocks)+2 || r.prepared.size != size {
		return fmt.Errorf("recoded segment has %d bytes in %d pieces, expected are %d in %d blocks", r.prepared.size, len(r.parts), size, len(blocks))
	}
	for i, b := range blocks {
		p := r.parts[i+1]
		if p.at != b.Position || p.size != int64(b.Stored) || b.Encoding != segment.Raw && p.source == r.local {
			return fmt.Errorf("recoded segment has %d bytes at %d for block %d, its table says %d at %d", p.size, p.at, i, b.Stored, b.Position)
		}
	}
	last := &r.parts[len(r.parts)-1]
	trailer := r.footer.Encode()
	if last.size != int64(len(trailer)) {
		return fmt.Errorf("recoded segment has a footer of %d bytes that encodes to %d", last.size, len(trailer))
	}
	last.source, last.position = memory(trailer), 0
	return nil
}

// Size returns the size of the object in bytes.
func (u *prepared) Size() int64 { return u.size }

// ReadAt reads the object's bytes. Safe for concurrent use.
func (u *prepared) ReadAt(p []byte, position int64) (int, error) {
	if position < 0 {
		return 0, fmt.Errorf("read upload at %d", position)
	}
	done := 0
	i := sort.Search(len(u.parts), func(i int) bool { return u.parts[i].at+u.parts[i].size > position })
	for ; i < len(u.parts) && done < len(p); i++ {
		part := u.parts[i]
		within := position + int64(done) - part.at
		want := int(min(part.size-within, int64(len(p)-done)))
		n, err := part.source.ReadAt(p[done:done+want], part.position+within)
		if done += n; n < want {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return done, err
		}
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// Close removes the temporary file.
func (u *prepared) Close() error {
	if u.scratch == nil {
		return nil
	}
	err := errors.Join(u.scratch.Close(), u.remove())
	u.scratch = nil
	return err
}

// memory is bytes as a source.
type memory []byte

func (m memory) ReadAt(p []byte, position int64) (int, error) {
	if position >= int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(p, m[position:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
