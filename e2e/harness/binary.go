package harness

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Binary returns the everlog binary under test: $EVERLOG_E2E_BINARY if set, else one built from this tree, once per test program.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("EVERLOG_E2E_BINARY"); path != "" {
		return path
	}
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

type buildError struct{ output string }

func (e *buildError) Error() string { return "go build ./cmd/everlog:\n" + e.output }

var build = sync.OnceValues(func() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "everlog-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "everlog")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/everlog")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &buildError{string(out)}
	}
	built = dir
	return path, nil
})

// built is the directory to remove when the test program ends; "" if nothing was built.
var built string

// Main is the TestMain of packages that start brokers: it removes the binary afterwards.
func Main(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// Root is the directory of go.mod.
func Root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// Run runs the everlog binary to its end and returns its standard output; a nonzero exit fails the test with what it said.
func Run(t testing.TB, args ...string) []byte {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), Binary(t), args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("everlog %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.Bytes()
}
