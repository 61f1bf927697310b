package drivers

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// kcatCommand is kcat with librdkafka's settings given as name=value. It dies with the driver.
func kcatCommand(o options, mode []string, settings ...string) (*exec.Cmd, error) {
	path, err := exec.LookPath("kcat")
	if err != nil {
		return nil, fmt.Errorf("kcat is not installed: apt-get install kcat")
	}
	args := append([]string{"-b", o["broker"]}, mode...)
	for _, setting := range settings {
		args = append(args, "-X", setting)
	}
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// kcatProduce feeds kcat, which knows no partitions by hand: the key says where a record goes.
func kcatProduce(ctx context.Context, o options, out *output) error {
	cmd, err := kcatCommand(o, []string{"-P", "-t", o["topic"], "-K", ":", "-E"}, "enable.idempotence=true", "message.timeout.ms=0", "linger.ms=5")
	if err != nil {
		return err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	n, err := pace(ctx, o, func(i int) error {
		_, err := fmt.Fprintf(in, "%d:%s%d\n", i, o["prefix"], i)
		return err
	})
	in.Close()
	if err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	out.say("done", n)
	return nil
}

var (
	rebalanced = regexp.MustCompile(`^% Group \S+ rebalanced \(memberid .*\): (assigned|revoked|incremental assign|incremental unassign)[^:]*: (.*)$`)
	owned      = regexp.MustCompile(`\[(\d+)\]`)
)

// kcatMember runs kcat with its output and its remarks in one pipe, which keeps their order.
func kcatMember(ctx context.Context, o options, out *output) error {
	settings := []string{
		"auto.offset.reset=earliest", "auto.commit.interval.ms=100", "session.timeout.ms=" + strconv.Itoa(o.int("session", 10_000)), "heartbeat.interval.ms=500",
		"fetch.wait.max.ms=100", "topic.metadata.refresh.interval.ms=1000",
	}
	if instance := o["instance"]; instance != "" {
		settings = append(settings, "group.instance.id="+instance)
	}
	if o.committed() {
		settings = append(settings, "isolation.level=read_committed")
	}
	cmd, err := kcatCommand(o, []string{"-G", o["group"], "-u", "-E", "-f", `record %p %o %s\n`, o["topic"]}, settings...)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		return err
	}
	w.Close()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGINT) })
	defer stop()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if record, ok := strings.CutPrefix(line, "record "); ok {
			out.say("record", record)
			continue
		}
		fmt.Fprintln(os.Stderr, line)
		if m := rebalanced.FindStringSubmatch(line); m != nil {
			out.partitions(rebalanceKind(m[1]), kcatPartitions(m[2]))
		}
	}
	return cmd.Wait()
}

func rebalanceKind(said string) string {
	if said == "assigned" || said == "incremental assign" {
		return "assigned"
	}
	return "revoked"
}

func kcatPartitions(text string) []int32 {
	var numbers []int32
	for _, m := range owned.FindAllStringSubmatch(text, -1) {
		numbers = append(numbers, int32(atoi(m[1])))
	}
	return numbers
}

// kcatTxn is one run of kcat for each transaction.
type kcatTxn struct {
	o    options
	cmd  *exec.Cmd
	in   io.WriteCloser
	said *bytes.Buffer
}

func kcatTransactor(_ context.Context, o options, out *output) error {
	return obey(os.Stdin, out, &kcatTxn{o: o})
}

func (k *kcatTxn) begin() error {
	var err error
	k.cmd, err = kcatCommand(k.o, []string{"-P", "-t", k.o["topic"], "-p", "0"}, "transactional.id="+k.o["id"], "transaction.timeout.ms="+strconv.Itoa(k.o.int("timeout", 60_000)))
	if err != nil {
		return err
	}
	k.said = &bytes.Buffer{}
	k.cmd.Stderr = k.said
	if k.in, err = k.cmd.StdinPipe(); err != nil {
		return err
	}
	return k.cmd.Start()
}

// send returns before the record is acknowledged, and knows but one partition. kcat reads its input by blocks: the value is
// followed by spaces up to the end of one.
func (k *kcatTxn) send(_ int32, value string) error {
	const block = 4096
	_, err := fmt.Fprintf(k.in, "%-*s\n", block-1, value)
	return err
}

func (k *kcatTxn) offsets(string, int32, int64) error { return errNoOffsets }

func (k *kcatTxn) commit() error {
	k.in.Close()
	return k.wait()
}

// abort interrupts kcat, which aborts the transaction and exits with an error that says so.
func (k *kcatTxn) abort() error {
	_ = k.cmd.Process.Signal(syscall.SIGINT)
	k.in.Close() // its reads go on over signals
	if err := k.wait(); err != nil && !strings.Contains(strings.ToLower(err.Error()), "abort") {
		return err
	}
	return nil
}

func (k *kcatTxn) wait() error {
	if err := k.cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(k.said.Bytes()))
	}
	return nil
}
