package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// exitLimit is how long a process may take to leave after SIGKILL, or after SIGTERM when it has work to finish.
const exitLimit = 30 * time.Second

// Process is one running program. Its methods fail the test rather than return errors. Not safe for concurrent use, except RSS and Alive.
type Process struct {
	t       testing.TB
	name    string
	pid     int
	logPath string
	exited  chan struct{} // closed when it has left; nil for a program that is not our child
	err     error         // how it left; valid after exited is closed
}

// Command is a program to start. Env is added to the environment of the test.
type Command struct {
	Name string // what messages call it
	Path string
	Args []string
	Env  []string
	Dir  string
	Log  string // file that receives stdout and stderr, appended
}

// Start runs the command as a child that dies with the test. It is killed when the test ends, and the end of its log is shown if the test failed.
func Start(t testing.TB, c Command) *Process {
	t.Helper()
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.Dir, log, log
	cmd.Env = append(os.Environ(), c.Env...)
	// The kernel kills the child when the test's process goes away, so that a panicking test leaves nothing behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", c.Name, err)
	}
	p := &Process{t: t, name: c.Name, pid: cmd.Process.Pid, logPath: c.Log, exited: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.cleanup)
	return p
}

// adopt watches a program started by somebody else, by its pid.
func adopt(t testing.TB, name string, pid int, logPath string) *Process {
	p := &Process{t: t, name: name, pid: pid, logPath: logPath}
	t.Cleanup(p.cleanup)
	return p
}

func (p *Process) cleanup() {
	if p.Alive() {
		p.Kill()
	}
	// A broker that was killed cannot report these by its exit code. One whose disk was taken away may stop as it likes.
	log := "\n" + p.Log()
	for _, sign := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
		if strings.Contains(log, sign) && !strings.Contains(log, "input/output error") {
			p.t.Errorf("%s says %q", p.name, strings.TrimSpace(sign))
		}
	}
	if p.t.Failed() {
		p.t.Logf("log of %s, its end:\n%s", p.name, p.LogTail(60))
	}
}

// Pid is the process id.
func (p *Process) Pid() int { return p.pid }

// Alive reports whether the process still runs.
func (p *Process) Alive() bool {
	if p.exited != nil {
		select {
		case <-p.exited:
			return false
		default:
			return true
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return false
	}
	// pid (name) state …; the name may hold spaces.
	_, rest, _ := strings.Cut(string(stat), ") ")
	if !strings.HasPrefix(rest, "Z") {
		return true
	}
	// The first thread has left; the others hold sockets and files until the last of them has.
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid))
	return err == nil && len(threads) > 1
}

// Signal sends the signal; a process that has left already is no error.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(p.pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		p.t.Fatalf("signal %v to %s: %v", s, p.name, err)
	}
}

// Kill ends the process as kill -9 does and waits until it is gone.
func (p *Process) Kill() {
	p.t.Helper()
	if p.Alive() {
		p.Signal(syscall.SIGKILL)
	}
	p.waitExit()
}

// Stop asks the process to end (SIGTERM) and waits for it. It must leave with exit code 0.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	p.waitExit()
	if p.exited != nil && p.err != nil {
		p.t.Errorf("%s on SIGTERM: %v, want exit code 0; log:\n%s", p.name, p.err, p.LogTail(40))
	}
}

func (p *Process) waitExit() {
	p.t.Helper()
	Until(p.t, exitLimit, p.name+" exits", func() error {
		if p.Alive() {
			return errors.New("still running")
		}
		return nil
	})
}

// MustRun fails the test if the process has left by itself.
func (p *Process) MustRun() {
	p.t.Helper()
	if !p.Alive() {
		p.t.Fatalf("%s has left by itself (%v); log:\n%s", p.name, p.err, p.LogTail(60))
	}
}

// RSS is the resident memory in bytes.
func (p *Process) RSS() int64 {
	p.t.Helper()
	return p.status("VmRSS")
}

// PeakRSS is the largest resident memory of the process so far, in bytes.
func (p *Process) PeakRSS() int64 {
	p.t.Helper()
	return p.status("VmHWM")
}

func (p *Process) status(field string) int64 {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		p.MustRun()
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				p.t.Fatalf("/proc/%d/status: %q: %v", p.pid, line, err)
			}
			return kib << 10
		}
	}
	p.t.Fatalf("/proc/%d/status has no %s", p.pid, field)
	return 0
}

// Log returns all the process has written so far.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// LogTail returns the last n lines.
func (p *Process) LogTail(n int) string {
	lines := strings.Split(strings.TrimSuffix(p.Log(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// NeedProgram returns the path of a program, or fails the test with the package that has it.
func NeedProgram(t testing.TB, name, install string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: %s", name, install)
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
