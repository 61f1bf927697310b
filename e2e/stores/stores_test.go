// Package stores holds the conformance runs of the S3 drivers against real servers, and what only real servers can show:
// wrong keys, a bucket that is not there, a server that goes away.
package stores

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/everlog/everlog/e2e/servers"
	"github.com/everlog/everlog/tier/minio"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/s3"
)

const bucket = "everlog-test"

func TestMain(m *testing.M) {
	// Idle connections of the SDKs' transports end by their own timer.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

type driver struct {
	name string
	open func(ctx context.Context, s *servers.Server, prefix string) (object.Store, error)
}

var drivers = []driver{
	{"s3", func(ctx context.Context, s *servers.Server, prefix string) (object.Store, error) {
		return s3.Open(ctx, s.S3URL(bucket, prefix))
	}},
	{"minio", func(ctx context.Context, s *servers.Server, prefix string) (object.Store, error) {
		return minio.Open(ctx, s.MinIOURL(bucket, prefix))
	}},
}

// environment gives the credentials to this process, for tier/s3.
func environment(t *testing.T, s *servers.Server) {
	for _, pair := range s.Env() {
		key, value, _ := strings.Cut(pair, "=")
		t.Setenv(key, value)
	}
}

func TestMinIO(t *testing.T) {
	s := servers.MinIO(t)
	environment(t, s)
	if _, err := minio.Open(t.Context(), s.MinIOURL(bucket, "")); err != nil { // makes the bucket
		t.Fatal(err)
	}
	conformance(t, s)
}

func TestVersity(t *testing.T) {
	s := servers.Versity(t)
	environment(t, s)
	s.MakeBucket(bucket)
	conformance(t, s)
}

func conformance(t *testing.T, s *servers.Server) {
	var cases atomic.Int64
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			objecttest.Run(t, func(t *testing.T) object.Store {
				store, err := d.open(t.Context(), s, fmt.Sprintf("case-%d/below", cases.Add(1)))
				if err != nil {
					t.Fatal(err)
				}
				return store
			})
		})
	}
}

func TestStringHidesSecrets(t *testing.T) {
	s := servers.MinIO(t)
	environment(t, s)
	for _, d := range drivers {
		store, err := d.open(t.Context(), s, "a/b")
		if err != nil {
			t.Fatal(err)
		}
		if text := store.String(); strings.Contains(text, servers.Secret) || !strings.Contains(text, bucket+"/a/b") {
			t.Errorf("%s calls itself %s", d.name, text)
		}
	}
}

func TestDenied(t *testing.T) {
	s := servers.MinIO(t)
	if _, err := minio.Open(t.Context(), s.MinIOURL(bucket, "")); err != nil {
		t.Fatal(err)
	}
	environment(t, s)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-wrong-secret")
	store, err := s3.Open(t.Context(), s.S3URL(bucket, ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), "o", object.Bytes(nil), object.PutOptions{}); !errors.Is(err, object.ErrDenied) {
		t.Errorf("put with a wrong secret answered %v, want ErrDenied", err)
	}
	if _, _, err := store.Get(t.Context(), "o"); !errors.Is(err, object.ErrDenied) {
		t.Errorf("get with a wrong secret answered %v, want ErrDenied", err)
	}
	wrong := strings.Replace(s.MinIOURL(bucket, ""), servers.Secret, "wrong-secret-wrong-secret", 1)
	if _, err := minio.Open(t.Context(), wrong); !errors.Is(err, object.ErrDenied) || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("open with a wrong secret answered %v, want ErrDenied without the secret", err)
	}
}

// A bucket that is gone must not look like a bucket without the object.
func TestNoBucket(t *testing.T) {
	s := servers.MinIO(t)
	environment(t, s)
	store, err := s3.Open(t.Context(), s.S3URL("no-such-bucket", ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.Get(t.Context(), "o"); errors.Is(err, object.ErrNotFound) || !errors.Is(err, object.ErrUnavailable) {
		t.Errorf("get from no bucket answered %v, want ErrUnavailable", err)
	}
	if _, err := store.List(t.Context(), "", "", 0); !errors.Is(err, object.ErrUnavailable) {
		t.Errorf("list of no bucket answered %v, want ErrUnavailable", err)
	}
	if _, err := store.Put(t.Context(), "o", object.Bytes(nil), object.PutOptions{Condition: object.IfMatch("x")}); errors.Is(err, object.ErrPrecondition) || !errors.Is(err, object.ErrUnknown) {
		t.Errorf("put into no bucket answered %v, want ErrUnknown", err)
	}
}

// TestServerGone: without a server a write is unknown and a read unavailable; when it is back, Retry has hidden the outage.
func TestServerGone(t *testing.T) {
	s := servers.MinIO(t)
	environment(t, s)
	stores := map[string]object.Store{}
	for _, d := range []driver{drivers[1], drivers[0]} {
		store, err := d.open(t.Context(), s, d.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Put(t.Context(), "kept", object.Bytes([]byte("kept")), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		stores[d.name] = store
	}
	s.Kill()
	for name, store := range stores {
		if _, err := store.Put(t.Context(), "o", object.Bytes([]byte("x")), object.PutOptions{Condition: object.IfAbsent()}); !errors.Is(err, object.ErrUnknown) {
			t.Errorf("%s: put without a server answered %v, want ErrUnknown", name, err)
		}
		if _, _, err := store.Get(t.Context(), "kept"); !errors.Is(err, object.ErrUnavailable) {
			t.Errorf("%s: get without a server answered %v, want ErrUnavailable", name, err)
		}
		if err := object.Probe(t.Context(), store); err == nil || errors.Is(err, object.ErrUnsupported) {
			t.Errorf("%s: the probe without a server answered %v, which must not be a verdict on the store", name, err)
		}
	}
	s.Restart()
	for name, store := range stores {
		retried := object.Retry(store, object.RetryOptions{Attempts: 10, Timeout: 10 * time.Second})
		if p, _, err := retried.Get(t.Context(), "kept"); err != nil || string(p) != "kept" {
			t.Errorf("%s: get after the restart: %q, %v", name, p, err)
		}
	}
}
