package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/everlog/everlog/e2e/harness"
)

// goRunLimit is how long the README's first command may take in a fresh clone: it compiles everything, on two cores.
const goRunLimit = 10 * time.Minute

// TestReadme does what README tells a newcomer to do: the first command, in a fresh clone, and then a stock client.
func TestReadme(t *testing.T) {
	clone := freshClone(t)
	start := readmeCommand(t, clone, "go run ")
	if readmeCommand(t, clone, "make test") == "" || start == "" {
		t.Fatal("README has no block with both commands, `go run … dev` and `make test`")
	}
	kcat := harness.NeedProgram(t, "kcat", "apt-get install kcat")
	for _, addr := range []string{"localhost:9092", "localhost:8080"} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Fatalf("something listens on %s, where the README's first command would: stop it for this test", addr)
		}
	}
	args := strings.Fields(start)
	run := harness.Start(t, harness.Command{
		Name: start, Path: harness.NeedProgram(t, args[0], "https://go.dev/doc/install"), Args: args[1:], Dir: clone, Log: filepath.Join(t.TempDir(), "run.log"),
	})
	t.Cleanup(func() { stopChildren(t, run) })
	harness.Until(t, goRunLimit, "README's first command serves", func() error {
		run.MustRun()
		if _, err := os.Stat(filepath.Join(clone, "everlog-data")); err != nil {
			return err // also when it is somebody else's broker that answers
		}
		answer, err := http.Get("http://localhost:8080/readyz")
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	})

	runClient(t, "hello\n", kcat, "-b", "localhost:9092", "-t", "demo", "-P")
	if got := runClient(t, "", kcat, "-b", "localhost:9092", "-t", "demo", "-C", "-e", "-q"); got != "hello\n" {
		t.Errorf("kcat reads %q, want hello", got)
	}
	stopChildren(t, run)
}

// freshClone copies what git has of this tree, as it is now, into an empty directory.
func freshClone(t *testing.T) string {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	list := exec.Command("git", "ls-files", "-z")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v; the tests run in a clone of the repository", err)
	}
	clone := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(clone, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return clone
}

// readmeCommand is the first line of a code block in README that begins so, without its comment.
func readmeCommand(t *testing.T, dir, prefix string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "```") {
			block = !block
		}
		if block && strings.HasPrefix(line, prefix) {
			command, _, _ := strings.Cut(line, "#")
			return strings.TrimSpace(command)
		}
	}
	return ""
}

// runClient runs a program with an input and returns what it prints.
func runClient(t *testing.T, input, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", program, args, err, stderr.Bytes())
	}
	return string(out)
}

// stopChildren ends what `go run` has started, which does not end with it, and then `go run` itself.
func stopChildren(t *testing.T, run *harness.Process) {
	t.Helper()
	if !run.Alive() {
		return
	}
	for _, child := range children(t, run.Pid()) {
		if err := syscall.Kill(child, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
	}
	harness.Until(t, loadLimit, "the broker stops", func() error {
		if run.Alive() {
			return fmt.Errorf("go run %d is still there", run.Pid())
		}
		return nil
	})
}

func children(t *testing.T, pid int) []int {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that has left
		}
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
