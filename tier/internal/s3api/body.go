package s3api

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/everlog/everlog/tier/object"
)

const (
	// SingleSize is the size in bytes of the largest body that is sent in one request.
	SingleSize = 64 << 20
	// PartSize is the size in bytes of every part but the last, PartParallel how many parts of a body travel at a time.
	PartSize, PartParallel = 16 << 20, 4
	// maxParts is S3's limit, and so the largest body is 160 GiB.
	maxParts = 10_000
	// hashSize is the size of one read for a checksum.
	hashSize = 256 << 10
)

var (
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
	hashBuffers = sync.Pool{New: func() any { return new([hashSize]byte) }}
)

// Part is one part of a body.
type Part struct {
	// Number counts from 1.
	Number int
	// Body can be read again from its start.
	Body *io.SectionReader
	// CRC32C is the checksum of this part.
	CRC32C uint32
}

// SendParts cuts the body into parts and calls send for each, PartParallel at a time and in no order. If a checksum of the
// whole is known it is compared before SendParts returns, so that a body that changed on the local disk is never completed:
// ErrCorrupt.
func SendParts(ctx context.Context, body object.Body, known *uint32, send func(context.Context, Part) error) error {
	size := body.Size()
	if size > maxParts*PartSize {
		return fmt.Errorf("body of %d bytes, more than %d parts of %d: %w", size, maxParts, PartSize, object.ErrUnsupported)
	}
	g, sending := errgroup.WithContext(ctx)
	g.SetLimit(PartParallel)
	var whole uint32
	for n, position := 1, int64(0); position < size && sending.Err() == nil; n++ {
		part := Part{Number: n, Body: io.NewSectionReader(body, position, min(PartSize, size-position))}
		var err error
		if part.CRC32C, err = checksum(part.Body, &whole); err != nil {
			g.Go(func() error { return err })
			break
		}
		g.Go(func() error { return send(sending, part) }) // waits for a free place
		position += PartSize
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if known != nil && whole != *known {
		return fmt.Errorf("body has CRC-32C %08x, not %08x: %w", whole, *known, object.ErrCorrupt)
	}
	return nil
}

// Checksum returns the CRC-32C of a whole body.
func Checksum(body object.Body) (uint32, error) {
	var whole uint32
	return checksum(io.NewSectionReader(body, 0, body.Size()), &whole)
}

// checksum returns the CRC-32C of one part, and goes on with that of the whole.
func checksum(part *io.SectionReader, whole *uint32) (uint32, error) {
	buffer := hashBuffers.Get().(*[hashSize]byte)
	defer hashBuffers.Put(buffer)
	var crc uint32
	for position := int64(0); position < part.Size(); {
		n, err := part.ReadAt(buffer[:min(hashSize, part.Size()-position)], position)
		crc = crc32.Update(crc, castagnoli, buffer[:n])
		*whole = crc32.Update(*whole, castagnoli, buffer[:n])
		position += int64(n)
		if err != nil && position < part.Size() {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, fmt.Errorf("read body: %w", err)
		}
	}
	return crc, nil
}

// Header returns a CRC-32C as it stands in the header x-amz-checksum-crc32c.
func Header(crc uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
}

// Range returns the text of a Range header for size bytes from position on.
func Range(position int64, size int) string {
	return fmt.Sprintf("bytes=%d-%d", position, position+int64(size)-1)
}

// ReadRange reads the body of the answer to a ranged GET into p. contentRange is the answer's Content-Range header. It
// answers io.EOF where the object ends before p does, ErrUnavailable if the body is cut, and ErrUnsupported if the server or
// something on the way sent another range than was asked for.
func ReadRange(p []byte, position int64, body io.Reader, contentRange string) (int, error) {
	var first, last, total int64
	if _, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &first, &last, &total); err != nil {
		return 0, fmt.Errorf("asked for a range, got Content-Range %q: %w", contentRange, object.ErrUnsupported)
	}
	want := min(int64(len(p)), total-position)
	if first != position || last-first+1 != want || want <= 0 {
		return 0, fmt.Errorf("asked for %d bytes at %d, got Content-Range %q: %w", len(p), position, contentRange, object.ErrUnsupported)
	}
	n, err := io.ReadFull(body, p[:want])
	if err != nil {
		return n, fmt.Errorf("body cut after %d of %d bytes: %w: %w", n, want, object.ErrUnavailable, err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// ReadWhole reads the body of the answer to a GET of a whole object of size bytes (its Content-Length).
func ReadWhole(body io.Reader, size int64) ([]byte, error) {
	if size < 0 {
		return nil, fmt.Errorf("the answer has no Content-Length: %w", object.ErrUnsupported)
	}
	if size > object.MaxGet {
		return nil, fmt.Errorf("%d bytes: %w", size, object.ErrTooLarge)
	}
	p := make([]byte, size)
	if n, err := io.ReadFull(body, p); err != nil {
		return nil, fmt.Errorf("body cut after %d of %d bytes: %w: %w", n, size, object.ErrUnavailable, err)
	}
	return p, nil
}

// DeleteBatch is the most names in one bulk deletion.
const DeleteBatch = 1000

// Limit turns the limit of a List into the number of names to return.
func Limit(limit int) int {
	if limit <= 0 || limit > object.MaxList {
		return object.MaxList
	}
	return limit
}

// abortTimeout bounds the request that gives up the parts of a failed upload.
const abortTimeout = 20 * time.Second

// Aborting returns a context for aborting an upload, alive although ctx may have ended.
func Aborting(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
}
