package stores

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/everlog/everlog/e2e/servers"
	"github.com/everlog/everlog/tier/minio"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/s3"
)

// wire is a server that answers as a test says and remembers what was asked.
type wire struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request, body []byte)

	mu    sync.Mutex
	trace []string
}

// newWire starts the server and opens a driver on it.
func newWire(t *testing.T, driver string, answer func(w http.ResponseWriter, r *http.Request, body []byte)) (*wire, object.Store) {
	t.Helper()
	v := &wire{answer: answer}
	v.Server = httptest.NewServer(http.HandlerFunc(v.serve))
	t.Cleanup(v.Close)
	s := &servers.Server{Address: strings.TrimPrefix(v.URL, "http://")}
	environment(t, s)
	var store object.Store
	var err error
	if driver == "s3" {
		store, err = s3.Open(t.Context(), s.S3URL(bucket, "p"))
	} else {
		store, err = minio.Open(t.Context(), s.MinIOURL(bucket, "p"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return v, store
}

func (v *wire) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.Method == http.MethodHead && strings.Trim(r.URL.Path, "/") == bucket {
		return // does the bucket exist? yes
	}
	text := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/"+bucket+"/")
	query := r.URL.Query()
	for _, key := range []string{"uploads", "uploadId", "partNumber", "start-after", "continuation-token"} {
		if query.Has(key) {
			text += " " + key + "=" + query.Get(key)
		}
	}
	for _, key := range []string{"If-None-Match", "If-Match", "Range", "Expect"} {
		if value := r.Header.Get(key); value != "" {
			text += " " + key + ":" + value
		}
	}
	v.mu.Lock()
	v.trace = append(v.trace, text)
	v.mu.Unlock()
	v.answer(w, r, body)
}

func (v *wire) take() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	trace := v.trace
	v.trace = nil
	return trace
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>because</Message></Error>`, code)
}

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		c.Close()
	}
}

func eachDriver(t *testing.T, run func(t *testing.T, driver string)) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) { run(t, d.name) })
	}
}

// TestWirePut: a conditional PUT is one request whatever comes back, and its bytes travel plain under our own checksum.
func TestWirePut(t *testing.T) {
	content := []byte("the body of the object")
	eachDriver(t, func(t *testing.T, driver string) {
		for _, c := range []struct {
			status int
			code   string
			want   error
		}{
			{200, "", nil}, {412, "PreconditionFailed", object.ErrPrecondition}, {409, "ConditionalRequestConflict", object.ErrConflict},
			{500, "InternalError", object.ErrUnknown}, {503, "SlowDown", object.ErrThrottled}, {503, "ServiceUnavailable", object.ErrUnknown},
			{502, "", object.ErrUnknown}, {0, "", object.ErrUnknown}, {400, "XAmzContentChecksumMismatch", object.ErrCorrupt}, {403, "AccessDenied", object.ErrDenied},
		} {
			v, store := newWire(t, driver, func(w http.ResponseWriter, r *http.Request, body []byte) {
				sum := r.Header.Get("x-amz-checksum-crc32c")
				if string(body) != string(content) || sum != checksumOf(content) || r.Header.Get("x-amz-content-sha256") != "UNSIGNED-PAYLOAD" {
					t.Errorf("sent %d bytes, checksum %q, %q", len(body), sum, r.Header.Get("x-amz-content-sha256"))
				}
				switch c.status {
				case 200:
					w.Header().Set("ETag", `"abc"`)
				case 0:
					hangUp(w)
				default:
					refuse(w, c.status, c.code)
				}
			})
			for condition, header := range map[object.Condition]string{object.IfAbsent(): " If-None-Match:*", object.IfMatch("v1"): ` If-Match:"v1"`, {}: ""} {
				version, err := store.Put(t.Context(), "o", object.Bytes(content), object.PutOptions{Condition: condition})
				want := c.want
				if want == object.ErrPrecondition && header == "" {
					want = object.ErrUnknown // nobody asked
				}
				if !errors.Is(err, want) || err == nil && version != "abc" {
					t.Errorf("%d %s: put answered %q, %v; want %v", c.status, c.code, version, err, want)
				}
				if got := v.take(); !slices.Equal(got, []string{"PUT p/o" + header}) {
					t.Errorf("%d %s: asked %q", c.status, c.code, got)
				}
			}
		}
	})
}

func checksumOf(p []byte) string {
	crc := crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli))
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
}

// TestWireHang: a server that does not answer costs the caller's time and no more, and leaves the outcome unknown.
func TestWireHang(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		_, store := newWire(t, driver, func(_ http.ResponseWriter, r *http.Request, _ []byte) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := store.Put(ctx, "o", object.Bytes([]byte("x")), object.PutOptions{Condition: object.IfAbsent()})
		if !errors.Is(err, object.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("put answered %v", err)
		}
		if _, _, err := store.Get(ctx, "o"); !errors.Is(err, object.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("get answered %v", err)
		}
	})
}

// TestWireParts: the condition goes with the completion only, and whatever fails, the parts are given up.
func TestWireParts(t *testing.T) {
	const start, complete, abort = "POST p/o uploads=", "POST p/o uploadId=u1 If-None-Match:*", "DELETE p/o uploadId=u1"
	body := object.Bytes(make([]byte, 64<<20+1))
	parts := []string{}
	for n := 1; n <= 5; n++ {
		parts = append(parts, fmt.Sprintf("PUT p/o uploadId=u1 partNumber=%d", n))
	}
	eachDriver(t, func(t *testing.T, driver string) {
		for _, c := range []struct {
			what   string
			part   int // status of part 3
			finish func(http.ResponseWriter)
			want   error
			trace  []string // without parts
		}{
			{"works", 200, func(w http.ResponseWriter) {
				fmt.Fprintf(w, `<CompleteMultipartUploadResult><Bucket>%s</Bucket><Key>p/o</Key><ETag>"whole-5"</ETag></CompleteMultipartUploadResult>`, bucket)
			}, nil, []string{start, complete}},
			{"a part fails", 500, nil, object.ErrUnknown, []string{start, abort}},
			{"refused", 200, func(w http.ResponseWriter) { refuse(w, 412, "PreconditionFailed") }, object.ErrPrecondition, []string{start, complete, abort}},
			{"conflict", 200, func(w http.ResponseWriter) { refuse(w, 409, "ConditionalRequestConflict") }, object.ErrConflict, []string{start, complete, abort}},
			{"an error with status 200", 200, func(w http.ResponseWriter) { refuse(w, 200, "InternalError") }, object.ErrUnknown, []string{start, complete, abort}},
			{"no answer", 200, hangUp, object.ErrUnknown, []string{start, complete, abort}},
		} {
			v, store := newWire(t, driver, func(w http.ResponseWriter, r *http.Request, _ []byte) {
				query := r.URL.Query()
				switch {
				case query.Has("uploads"):
					fmt.Fprintf(w, `<InitiateMultipartUploadResult><Bucket>%s</Bucket><Key>p/o</Key><UploadId>u1</UploadId></InitiateMultipartUploadResult>`, bucket)
				case r.Method == http.MethodPut && query.Get("partNumber") == "3" && c.part != 200:
					refuse(w, c.part, "InternalError")
				case r.Method == http.MethodPut:
					w.Header().Set("ETag", `"part"`)
				case r.Method == http.MethodPost:
					c.finish(w)
				case r.Method == http.MethodDelete:
					w.WriteHeader(http.StatusNoContent)
				}
			})
			version, err := store.Put(t.Context(), "o", body, object.PutOptions{Condition: object.IfAbsent()})
			if !errors.Is(err, c.want) || err == nil && version != "whole-5" {
				t.Errorf("%s: put answered %q, %v; want %v", c.what, version, err, c.want)
			}
			var trace, sent []string
			for _, request := range v.take() {
				if strings.HasPrefix(request, "PUT") {
					sent = append(sent, request)
				} else {
					trace = append(trace, request)
				}
			}
			slices.Sort(sent)
			if !slices.Equal(trace, c.trace) || c.part == 200 && !slices.Equal(sent, parts) {
				t.Errorf("%s: asked %q and %q, want %q", c.what, trace, sent, c.trace)
			}
		}
	})
}

// TestWireRead: one ranged GET, and no answer passes for the range but the range.
func TestWireRead(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, c := range []struct {
			what, header, body string
			status, length     int
			n                  int
			want               error
		}{
			{"the range", "bytes 3-6/10", "3456", 206, 4, 4, nil},
			{"a cut body", "bytes 3-6/10", "34", 206, 4, 2, object.ErrUnavailable},
			{"the end", "bytes 3-5/6", "345", 206, 3, 3, io.EOF},
			{"the whole object", "", "0123456789", 200, 10, 0, object.ErrUnsupported},
			{"another range", "bytes 0-3/10", "0123", 206, 4, 0, object.ErrUnsupported},
		} {
			v, store := newWire(t, driver, func(w http.ResponseWriter, r *http.Request, _ []byte) {
				w.Header().Set("ETag", `"abc"`)
				w.Header().Set("Last-Modified", "Wed, 25 Nov 2026 12:00:00 GMT")
				w.Header().Set("Content-Length", fmt.Sprint(c.length))
				if c.header != "" {
					w.Header().Set("Content-Range", c.header)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			})
			p := make([]byte, 4)
			n, err := store.ReadAt(t.Context(), "o", p, 3)
			if n != c.n || !errors.Is(err, c.want) || n > 0 && string(p[:n]) != c.body[:n] {
				t.Errorf("%s: read %q, %v; want %d bytes, %v", c.what, p[:n], err, c.n, c.want)
			}
			if got := v.take(); !slices.Equal(got, []string{"GET p/o Range:bytes=3-6"}) {
				t.Errorf("%s: asked %q", c.what, got)
			}
		}
	})
}

// TestWireList: a server may send shorter pages than it was asked for; fewer names than the limit still mean the end.
func TestWireList(t *testing.T) {
	names := []string{"p/a", "p/b", "p/c", "p/d", "p/e"}
	eachDriver(t, func(t *testing.T, driver string) {
		v, store := newWire(t, driver, func(w http.ResponseWriter, r *http.Request, _ []byte) {
			from := 0
			fmt.Sscan(r.URL.Query().Get("continuation-token"), &from)
			to := min(from+2, len(names))
			fmt.Fprintf(w, `<ListBucketResult><IsTruncated>%v</IsTruncated><NextContinuationToken>%d</NextContinuationToken>`, to < len(names), to)
			for _, name := range names[from:to] {
				fmt.Fprintf(w, `<Contents><Key>%s</Key><Size>1</Size><ETag>"x"</ETag></Contents>`, name)
			}
			io.WriteString(w, `</ListBucketResult>`)
		})
		list, err := store.List(t.Context(), "", "", 0)
		if err != nil || len(list) != len(names) || list[4].Name != "e" {
			t.Errorf("list: %v, %v", list, err)
		}
		v.take()
		if list, err = store.List(t.Context(), "", "", 2); err != nil || len(list) != 2 || len(v.take()) != 1 {
			t.Errorf("two names: %v, %v, in more than one request", list, err)
		}
	})
}
