package s3api

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/everlog/everlog/tier/object"
)

// The table says what every answer means for every kind of operation. "cput" is a conditional Put.
func TestSentinel(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   map[string]error
	}{
		{0, "", map[string]error{"put": object.ErrUnknown, "cput": object.ErrUnknown, "get": object.ErrUnavailable, "delete": object.ErrUnavailable}},
		{500, "InternalError", map[string]error{"put": object.ErrUnknown, "cput": object.ErrUnknown, "get": object.ErrUnavailable}},
		{503, "ServiceUnavailable", map[string]error{"cput": object.ErrUnknown, "list": object.ErrUnavailable}},
		{503, "SlowDown", map[string]error{"cput": object.ErrThrottled, "get": object.ErrThrottled}},
		{503, "SlowDownWrite", map[string]error{"cput": object.ErrThrottled}},
		{429, "", map[string]error{"put": object.ErrThrottled, "head": object.ErrThrottled}},
		{412, "PreconditionFailed", map[string]error{"cput": object.ErrPrecondition, "put": object.ErrUnknown, "get": object.ErrUnavailable}},
		{412, "", map[string]error{"cput": object.ErrPrecondition}},
		{409, "ConditionalRequestConflict", map[string]error{"cput": object.ErrConflict, "delete": object.ErrUnavailable}},
		{404, "NoSuchKey", map[string]error{"get": object.ErrNotFound, "cput": object.ErrPrecondition, "put": object.ErrUnknown}},
		{404, "NotFound", map[string]error{"head": object.ErrNotFound}},
		{404, "", map[string]error{"head": object.ErrNotFound, "list": object.ErrUnavailable}},
		{404, "NoSuchBucket", map[string]error{"get": object.ErrUnavailable, "cput": object.ErrUnknown, "head": object.ErrUnavailable, "list": object.ErrUnavailable}},
		{404, "NoSuchUpload", map[string]error{"cput": object.ErrUnknown, "put": object.ErrUnknown}},
		{416, "InvalidRange", map[string]error{"read": object.ErrRange}},
		{403, "AccessDenied", map[string]error{"cput": object.ErrDenied, "get": object.ErrDenied}},
		{403, "", map[string]error{"head": object.ErrDenied}},
		{403, "RequestTimeTooSkewed", map[string]error{"cput": object.ErrUnknown, "get": object.ErrUnavailable}},
		{400, "RequestTimeout", map[string]error{"put": object.ErrUnknown}},
		{400, "BadDigest", map[string]error{"put": object.ErrCorrupt}},
		{400, "XAmzContentChecksumMismatch", map[string]error{"put": object.ErrCorrupt}},
		{400, "InvalidRequest", map[string]error{"put": object.ErrUnsupported, "get": object.ErrUnsupported}},
		{400, "XMinioParentIsObject", map[string]error{"put": object.ErrUnsupported}},
		{501, "NotImplemented", map[string]error{"cput": object.ErrUnsupported}},
	} {
		for op, want := range c.want {
			conditional := op == "cput"
			if got := Sentinel(Op(strings.TrimPrefix(op, "c")), conditional, c.status, c.code); got != want {
				t.Errorf("%s answered with %d %q means %v, want %v", op, c.status, c.code, got, want)
			}
		}
	}
}

func TestWrap(t *testing.T) {
	err := Wrap(Put, true, "o", 0, "", context.DeadlineExceeded)
	if !errors.Is(err, object.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a put without an answer: %v", err)
	}
	if err := Wrap(Get, false, "o", 0, "", object.ErrTooLarge); !errors.Is(err, object.ErrTooLarge) || errors.Is(err, object.ErrUnavailable) {
		t.Errorf("a sentinel was wrapped into %v", err)
	}
}

func TestSendParts(t *testing.T) {
	p := make([]byte, 3*PartSize+17)
	rand.New(rand.NewSource(1)).Read(p)
	whole := crc32.Checksum(p, castagnoli)
	for _, size := range []int{0, 1, PartSize - 1, PartSize, PartSize + 1, len(p)} {
		var mu sync.Mutex
		got := make([]byte, size)
		var numbers []int
		err := SendParts(t.Context(), object.Bytes(p[:size]), nil, func(_ context.Context, part Part) error {
			b, err := io.ReadAll(part.Body)
			if err != nil || crc32.Checksum(b, castagnoli) != part.CRC32C {
				t.Errorf("part %d has another checksum, %v", part.Number, err)
			}
			mu.Lock()
			defer mu.Unlock()
			copy(got[(part.Number-1)*PartSize:], b)
			numbers = append(numbers, part.Number)
			return nil
		})
		slices.Sort(numbers)
		if err != nil || !bytes.Equal(got, p[:size]) || len(numbers) != (size+PartSize-1)/PartSize {
			t.Errorf("%d bytes: parts %v, %v, equal %v", size, numbers, err, bytes.Equal(got, p[:size]))
		}
	}
	discard := func(context.Context, Part) error { return nil }
	if err := SendParts(t.Context(), object.Bytes(p), &whole, discard); err != nil {
		t.Error(err)
	}
	whole++
	if err := SendParts(t.Context(), object.Bytes(p), &whole, discard); !errors.Is(err, object.ErrCorrupt) {
		t.Errorf("a body that changed was sent: %v", err)
	}
	refused := errors.New("refused")
	sent := 0
	if err := SendParts(t.Context(), huge{}, nil, func(context.Context, Part) error { sent++; return refused }); !errors.Is(err, object.ErrUnsupported) || sent > 0 {
		t.Errorf("a body with too many parts: %v, %d sent", err, sent)
	}
	if err := SendParts(t.Context(), object.Bytes(p), nil, func(context.Context, Part) error { return refused }); err != refused {
		t.Errorf("parts refused: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := SendParts(ended, object.Bytes(p), nil, discard); !errors.Is(err, context.Canceled) {
		t.Errorf("without time: %v", err)
	}
}

type huge struct{ object.Body }

func (huge) Size() int64 { return maxParts*PartSize + 1 }

func TestReadRange(t *testing.T) {
	for _, c := range []struct {
		size     int
		position int64
		header   string
		body     string
		n        int
		err      error
	}{
		{4, 3, "bytes 3-6/10", "3456", 4, nil},
		{4, 8, "bytes 8-9/10", "89", 2, io.EOF},
		{4, 3, "bytes 3-6/10", "34", 2, object.ErrUnavailable},
		{4, 3, "bytes 3-6/10", "", 0, object.ErrUnavailable},
		{4, 3, "", "0123456789", 0, object.ErrUnsupported},
		{4, 3, "bytes 0-3/10", "0123", 0, object.ErrUnsupported},
		{4, 3, "bytes 3-5/10", "345", 0, object.ErrUnsupported},
		{4, 3, "bytes 3-6/*", "3456", 0, object.ErrUnsupported},
		{4, 3, "bytes 3-2/3", "", 0, object.ErrUnsupported},
	} {
		p := make([]byte, c.size)
		n, err := ReadRange(p, c.position, strings.NewReader(c.body), c.header)
		if n != c.n || !errors.Is(err, c.err) || n > 0 && string(p[:n]) != c.body[:n] {
			t.Errorf("%+v: %q, %v", c, p[:n], err)
		}
	}
}

func TestReadWhole(t *testing.T) {
	for _, c := range []struct {
		size int64
		body string
		want error
	}{{4, "1234", nil}, {0, "", nil}, {5, "1234", object.ErrUnavailable}, {-1, "1", object.ErrUnsupported}, {object.MaxGet + 1, "", object.ErrTooLarge}} {
		if p, err := ReadWhole(strings.NewReader(c.body), c.size); !errors.Is(err, c.want) || err == nil && string(p) != c.body {
			t.Errorf("%+v: %q, %v", c, p, err)
		}
	}
}

func TestParseLocation(t *testing.T) {
	l, err := ParseLocation("x", "x://key:se%2Fcret@host:9000/bucket/pre/fix/?a=1&b=true", "a", "b")
	secret, _ := l.User.Password()
	if err != nil || l.Host != "host:9000" || l.Path != "bucket/pre/fix" || l.Options["a"] != "1" || secret != "se/cret" {
		t.Errorf("%+v, %v", l, err)
	}
	if b, err := l.Bool("b", false); !b || err != nil {
		t.Error(b, err)
	}
	if b, err := l.Bool("absent", true); !b || err != nil {
		t.Error(b, err)
	}
	if _, err := l.Bool("a", true); err == nil {
		t.Error("1 passed for a boolean")
	}
	for _, bad := range []string{"", "x", "x:", "x://", "y://host", "x:host", "x://k:s3cr3t@host/a//b", "x://k:s3cr3t@host/a?c=1", "x://k:s3cr3t@host/?a=1&a=2",
		"x://k:s3cr3t@host/a#f", "x://k:s3cr3t@host/../a", "x://k:s3cr3t@ho st/", "x://host/?secret=s3cr3t", "x://host/?secret=s3cr3t%zz", "x://k:s3cr3t@host/?a=%zz", "x://k:s3cr3t@host:port:port/"} {
		if _, err := ParseLocation("x", bad, "a", "b"); err == nil {
			t.Errorf("%q was accepted", bad)
		} else if strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%q: the error tells the secret: %v", bad, err)
		}
	}
}

func TestCheckBucket(t *testing.T) {
	for name, good := range map[string]bool{"abc": true, "my-bucket.logs-1": true, "ab": false, "": false, "Abc": false, "a_b_c": false, "-abc": false,
		"abc-": false, "a..b": false, "10.0.0.1": false, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false} {
		if err := CheckBucket(name); (err == nil) != good {
			t.Errorf("bucket %q: %v", name, err)
		}
	}
}

func FuzzReadRange(f *testing.F) {
	f.Add(4, int64(3), "bytes 3-6/10", []byte("3456"))
	f.Add(4, int64(-3), "bytes 3--6/10", []byte("3456"))
	f.Fuzz(func(t *testing.T, size int, position int64, header string, body []byte) {
		if size <= 0 || size > 1<<16 || position < 0 {
			return
		}
		n, err := ReadRange(make([]byte, size), position, bytes.NewReader(body), header)
		if n < 0 || n > size || err == nil && n != size {
			t.Errorf("%d bytes of %d, %v", n, size, err)
		}
	})
}
