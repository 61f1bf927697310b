package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy/xerial"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// MaxDecompressed bounds what the records of one batch may decompress to: a small batch that claims more is refused as
// corrupt instead of filling memory.
const MaxDecompressed = 64 << 20

// ErrTooLarge means that records decompress to more than MaxDecompressed.
var ErrTooLarge = fmt.Errorf("%w: records decompress to more than %d bytes", ErrCorrupt, MaxDecompressed)

// Level is a codec's compression level; DefaultLevel leaves it to the codec.
type Level int

// DefaultLevel is the level that Kafka's own defaults stand for.
const DefaultLevel Level = -1 << 15

var (
	gzipReaders sync.Pool
	lz4Readers  = sync.Pool{New: func() any { return lz4.NewReader(nil) }}
	buffers     = sync.Pool{New: func() any { return new(bytes.Buffer) }}
)

// zstdDecoder is shared: DecodeAll is safe for concurrent use and keeps no more decoders than GOMAXPROCS.
var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(MaxDecompressed), zstd.WithDecoderConcurrency(0))
	if err != nil {
		panic(err) // options are constants
	}
	return d
})

var zstdEncoders sync.Map // Level -> *zstd.Encoder

func zstdEncoder(l Level) *zstd.Encoder {
	if e, ok := zstdEncoders.Load(l); ok {
		return e.(*zstd.Encoder)
	}
	speed := zstd.SpeedDefault
	if l != DefaultLevel {
		speed = zstd.EncoderLevelFromZstd(int(l))
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(speed), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err) // options are constants
	}
	got, _ := zstdEncoders.LoadOrStore(l, e)
	return got.(*zstd.Encoder)
}

// Decompress appends the decompressed form of src to dst[:0] and returns it. It returns ErrCorrupt if src is not what
// the codec writes, and ErrTooLarge past MaxDecompressed. Snappy is read both raw and in Java's xerial framing.
func Decompress(c Codec, dst, src []byte) ([]byte, error) {
	var out []byte
	var err error
	switch c {
	case None:
		return append(dst[:0], src...), nil
	case Gzip:
		out, err = gunzip(dst, src)
	case Snappy:
		out, err = unsnappy(dst, src)
	case LZ4:
		r := lz4Readers.Get().(*lz4.Reader)
		r.Reset(bytes.NewReader(src))
		out, err = readAll(dst, r)
		lz4Readers.Put(r)
	case Zstd:
		out, err = zstdDecoder().DecodeAll(src, dst[:0])
	default:
		return nil, fmt.Errorf("%w: unknown codec %d", ErrCorrupt, int8(c))
	}
	switch {
	case errors.Is(err, ErrTooLarge), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return nil, ErrTooLarge
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, c, err)
	case len(out) > MaxDecompressed:
		return nil, ErrTooLarge
	}
	return out, nil
}

// unsnappy grows dst step by step, so that a false length in src costs no more memory than MaxDecompressed.
func unsnappy(dst, src []byte) ([]byte, error) {
	for size := max(cap(dst), 4*len(src), 4<<10); ; size *= 2 {
		if size > cap(dst) {
			dst = make([]byte, 0, min(size, MaxDecompressed))
		}
		out, err := xerial.DecodeCapped(dst[:0], src)
		if !errors.Is(err, xerial.ErrDstTooSmall) {
			return out, err
		}
		if cap(dst) >= MaxDecompressed {
			return nil, ErrTooLarge
		}
	}
}

func gunzip(dst, src []byte) ([]byte, error) {
	r, _ := gzipReaders.Get().(*gzip.Reader)
	var err error
	if r == nil {
		r, err = gzip.NewReader(bytes.NewReader(src))
	} else {
		err = r.Reset(bytes.NewReader(src))
	}
	if err != nil {
		return nil, err
	}
	defer gzipReaders.Put(r)
	return readAll(dst, r)
}

// readAll reads r into dst[:0], growing it as needed, up to MaxDecompressed.
func readAll(dst []byte, r io.Reader) ([]byte, error) {
	dst = dst[:0]
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if len(dst) > MaxDecompressed {
			return nil, ErrTooLarge
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// Compress appends the compressed form of src to dst and returns it. Snappy is written in xerial framing and LZ4 as a
// frame, as Kafka's Java client does.
func Compress(c Codec, l Level, dst, src []byte) ([]byte, error) {
	switch c {
	case None:
		return append(dst, src...), nil
	case Snappy:
		return append(dst, xerial.Encode(nil, src)...), nil
	case Zstd:
		return zstdEncoder(l).EncodeAll(src, dst), nil
	case Gzip, LZ4:
	default:
		return nil, fmt.Errorf("unknown codec %d", int8(c))
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buf)
	buf.Reset()
	w, err := frameWriter(c, l, buf)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(src); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return append(dst, buf.Bytes()...), nil
}

func frameWriter(c Codec, l Level, buf *bytes.Buffer) (io.WriteCloser, error) {
	if c == Gzip {
		if l == DefaultLevel {
			l = gzip.DefaultCompression
		}
		return gzip.NewWriterLevel(buf, int(l))
	}
	w := lz4.NewWriter(buf)
	opts := []lz4.Option{lz4.BlockSizeOption(lz4.Block64Kb), lz4.ConcurrencyOption(1)}
	if l != DefaultLevel && l > 3 {
		opts = append(opts, lz4.CompressionLevelOption(lz4.CompressionLevel(1<<(8+min(l-3, 9)))))
	}
	return w, w.Apply(opts...)
}
