package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/vfs"
)

// refusing is a store that denies one operation: what a bucket with a right too few looks like.
type refusing struct {
	object.Store
	denied string
}

func (r refusing) deny(op string) error {
	if op == r.denied {
		return fmt.Errorf("%s: %w", op, object.ErrDenied)
	}
	return nil
}

func (r refusing) List(ctx context.Context, prefix, after string, limit int) ([]object.Attributes, error) {
	if err := r.deny("list"); err != nil {
		return nil, err
	}
	return r.Store.List(ctx, prefix, after, limit)
}

func (r refusing) Delete(ctx context.Context, names ...string) error {
	if err := r.deny("delete"); err != nil {
		return err
	}
	return r.Store.Delete(ctx, names...)
}

// ignorant is a store that takes conditional writes for plain ones.
type ignorant struct{ object.Store }

func (i ignorant) Put(ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
	o.Condition = object.Condition{}
	return i.Store.Put(ctx, name, body, o)
}

// results runs doctor's command with a store and gives the result of each check.
func results(t *testing.T, store object.Store, dir string, flags ...string) (map[string]finding, error) {
	t.Helper()
	var out, errs bytes.Buffer
	shell := &report.Shell{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }, JSON: true}
	open := func(context.Context, string) (object.Store, error) {
		if store == nil {
			return nil, object.ErrUnavailable
		}
		return store, nil
	}
	p := program{shell: shell, open: open}
	cmd := p.doctor()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append([]string{"--data-dir", dir, "--store", "mem://", "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1:9092", "--http", "127.0.0.1:0"}, flags...))
	err := cmd.ExecuteContext(t.Context())
	var doc findings
	if jsonErr := json.Unmarshal(out.Bytes(), &doc); jsonErr != nil {
		t.Fatalf("%v in %q; %v", jsonErr, out.String(), err)
	}
	found := map[string]finding{}
	for _, f := range doc.Checks {
		found[f.Check] = f
	}
	return found, err
}

func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	healthy, err := object.NewDirectory(t.TempDir(), vfs.OS())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		store  object.Store
		failed string // the one check that fails, "" if none
		hint   string
	}{
		{"healthy", healthy, "", ""},
		{"no list", refusing{object.NewMemory(), "list"}, "store: list", "s3:ListBucket"},
		{"no delete", refusing{object.NewMemory(), "delete"}, "store: delete", "DeleteObject"},
		{"no conditions", ignorant{object.NewMemory()}, "store: conditional writes", "If-None-Match"},
		{"away", nil, "store", "network"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found, err := results(t, test.store, dir)
			for _, want := range []string{"disk space", "fsync", "port of Kafka", "port of HTTP", "open files", "advertised name"} {
				if f, ok := found[want]; !ok || f.Result == failed {
					t.Errorf("%s: %+v", want, f)
				}
			}
			if test.failed == "" {
				if err != nil || found["store: conditional writes"].Result != fine {
					t.Errorf("%v: %+v", err, found)
				}
				return
			}
			f := found[test.failed]
			if f.Result != failed || !strings.Contains(f.Hint, test.hint) || report.CodeOf(err) != report.Partial {
				t.Errorf("%+v, exit code %d", f, report.CodeOf(err))
			}
		})
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("doctor left %v %v", left, err)
	}
}

func TestDoctorFindsPortsAndNames(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	found, err := results(t, object.NewMemory(), t.TempDir(), "--http", taken.Addr().String(), "--advertise", "nowhere.invalid:9092")
	if found["port of HTTP"].Result != failed || found["advertised name"].Result != failed || report.CodeOf(err) != report.Partial {
		t.Errorf("%+v %v", found, err)
	}
}

// TestMeasureSyncRemovesItsFile even when an fsync fails.
func TestMeasureSyncRemovesItsFile(t *testing.T) {
	mem := vfs.NewMem()
	if err := mem.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	times, err := measureSync(mem, "d")
	if err != nil || times.Count() != syncWrites {
		t.Errorf("measured %v, %v", times, err)
	}
	broken := vfs.Fault(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			return vfs.ErrInjected
		}
		return nil
	})
	if _, err := measureSync(broken, "d"); !errors.Is(err, vfs.ErrInjected) {
		t.Errorf("a failing fsync: %v", err)
	}
	if names, err := mem.List("d"); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v %v", names, err)
	}
}
