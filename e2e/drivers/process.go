package drivers

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/everlog/everlog/e2e/harness"
)

// exitLimit is how long a driver may take to leave in good order.
const exitLimit = 60 * time.Second

// An Event is one line of a driver.
type Event struct {
	At   time.Time
	Kind string
	Args []string
}

func (e Event) String() string { return e.Kind + " " + strings.Join(e.Args, " ") }

// A Driver is one running process of a client. Its methods fail the test rather than return errors. Safe for concurrent use.
type Driver struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr *os.File
	exited chan struct{} // closed when it has left and all it printed is in events
	err    error         // how it left; valid after exited is closed

	mu     sync.Mutex
	events []Event
	ended  time.Time // when it was killed or seen to have left; zero while it runs
}

// Start starts a driver. It is killed when the test ends.
func (c Client) Start(t testing.TB, verb string, options ...string) *Driver {
	t.Helper()
	path, args, env := c.command(t)
	d := &Driver{t: t, name: c.Name + " " + verb, exited: make(chan struct{})}
	d.cmd = exec.Command(path, slices.Concat(args, []string{verb}, options)...)
	d.cmd.Env = append(os.Environ(), env...)
	// The kernel kills the driver when the test's process goes away.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var err error
	if d.stderr, err = os.CreateTemp(t.TempDir(), "stderr"); err != nil {
		t.Fatal(err)
	}
	d.cmd.Stderr = d.stderr
	if d.stdin, err = d.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", d.name, err)
	}
	go d.listen(stdout)
	t.Cleanup(d.cleanup)
	return d
}

func (d *Driver) listen(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		event, err := parse(lines.Text())
		if err != nil {
			event = Event{time.Now(), "garbled", []string{err.Error()}}
		}
		d.mu.Lock()
		d.events = append(d.events, event)
		d.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, stdout) // after a line that is too long
	d.err = d.cmd.Wait()
	d.end()
	close(d.exited)
}

func parse(line string) (Event, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return Event{}, fmt.Errorf("no event: %q", line)
	}
	at, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return Event{}, fmt.Errorf("no time: %q", line)
	}
	return Event{time.UnixMicro(at), fields[1], fields[2:]}, nil
}

func (d *Driver) cleanup() {
	if d.Alive() {
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
	if d.t.Failed() {
		said, _ := os.ReadFile(d.stderr.Name())
		d.t.Logf("%s said, in the end (%v):\n%s", d, d.err, tail(string(said), 20))
		var last []string
		for _, e := range d.Events() {
			if e.Kind != "record" {
				last = append(last, e.At.Format("15:04:05.000 ")+e.String())
			}
		}
		d.t.Logf("%s reported, in the end:\n%s", d, tail(strings.Join(last, "\n"), 20))
	}
	d.stderr.Close()
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (d *Driver) String() string { return fmt.Sprintf("%s (%d)", d.name, d.cmd.Process.Pid) }

// Alive reports whether the process still runs.
func (d *Driver) Alive() bool {
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// Events returns what the driver has reported so far.
func (d *Driver) Events() []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clip(d.events)
}

// Count is how many events of a kind there were.
func (d *Driver) Count(kind string) int {
	n := 0
	for _, e := range d.Events() {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// Await returns when check is content with what the driver has reported.
func (d *Driver) Await(limit time.Duration, what string, check func([]Event) error) {
	d.t.Helper()
	harness.Until(d.t, limit, fmt.Sprintf("%s: %s", d, what), func() error {
		err := check(d.Events())
		if err != nil && !d.Alive() && check(d.Events()) != nil {
			d.t.Fatalf("%s has left by itself (%v), before: %s: %v", d, d.err, what, err)
		}
		return err
	})
}

// AwaitCount returns when the driver has reported n events of a kind.
func (d *Driver) AwaitCount(limit time.Duration, kind string, n int) {
	d.t.Helper()
	d.Await(limit, fmt.Sprintf("%d times %q", n, kind), func([]Event) error {
		if got := d.Count(kind); got < n {
			return fmt.Errorf("%d times", got)
		}
		return nil
	})
}

// Tell gives a transactor a command and returns its answer: nil for ok.
func (d *Driver) Tell(limit time.Duration, command string) error {
	d.t.Helper()
	before := d.Count("ok") + d.Count("failed")
	if _, err := fmt.Fprintln(d.stdin, command); err != nil {
		return err
	}
	return d.Answer(limit, command, before)
}

// Go lets a driver begin that was started with hold=true and is ready.
func (d *Driver) Go() {
	d.t.Helper()
	if _, err := fmt.Fprintln(d.stdin, "go"); err != nil {
		d.t.Fatalf("%s: %v", d, err)
	}
}

// Answer returns the answer after the first n of a transactor.
func (d *Driver) Answer(limit time.Duration, what string, n int) error {
	d.t.Helper()
	var answer error
	d.Await(limit, what, func(events []Event) error {
		seen := 0
		for _, e := range events {
			if e.Kind != "ok" && e.Kind != "failed" {
				continue
			}
			if seen++; seen > n {
				if e.Kind == "failed" {
					answer = fmt.Errorf("%s: %s", what, strings.Join(e.Args, " "))
				}
				return nil
			}
		}
		return fmt.Errorf("no answer to %q", what)
	})
	return answer
}

// Leave ends the driver's input, upon which it leaves in good order, and waits for that.
func (d *Driver) Leave() {
	d.t.Helper()
	d.stdin.Close()
	select {
	case <-d.exited:
	case <-time.After(exitLimit):
		d.t.Fatalf("%s has not left %v after it was asked to", d, exitLimit)
	}
	if d.err != nil {
		d.t.Errorf("%s left with %v", d, d.err)
	}
}

// Kill ends the driver as kill -9 does.
func (d *Driver) Kill() {
	d.t.Helper()
	d.end()
	// With what it runs, at once: kcat takes the end of its input for the end of the transaction, and commits it.
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
	<-d.exited
}

func (d *Driver) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended.IsZero() {
		d.ended = time.Now()
	}
}

// Ended is when the driver was killed or had left; zero while it runs.
func (d *Driver) Ended() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ended
}
