package drivers

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A verb is one thing a driver does. ctx ends when its input does.
type verb func(ctx context.Context, o options, out *output) error

// programs are the drivers in this package.
var programs = map[string]map[string]verb{
	"franz-go": {"produce": franzProduce, "member": franzMember, "transactor": franzTransactor, "transform": franzTransform},
	"sarama":   {"produce": saramaProduce, "member": saramaMember, "transactor": saramaTransactor},
	"kafka-go": {"produce": kafkaGoProduce, "member": kafkaGoMember},
	"kcat":     {"produce": kcatProduce, "member": kcatMember, "transactor": kcatTransactor},
}

// Main runs a driver and ends the process, if it was started as one; else it returns. It belongs at the head of TestMain.
func Main() {
	name := os.Getenv(driverEnv)
	if name == "" {
		return
	}
	run, ok := programs[name][os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "%s has no %q\n", name, os.Args[1])
		os.Exit(2)
	}
	o := options{}
	for _, arg := range os.Args[2:] {
		key, value, _ := strings.Cut(arg, "=")
		o[key] = value
	}
	ctx, cancel := context.WithCancel(context.Background())
	out := newOutput(os.Stdout)
	if o["hold"] != "" {
		out.say("ready")
		_, _ = os.Stdin.Read(make([]byte, 64))
	}
	if os.Args[1] != "transactor" { // which reads its input itself
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	if err := run(ctx, o, out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// options are the driver's arguments.
type options map[string]string

func (o options) int(name string, otherwise int) int {
	text, ok := o[name]
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(fmt.Sprintf("%s=%s is no number", name, text))
	}
	return n
}

func (o options) millis(name string, otherwise int) time.Duration {
	return time.Duration(o.int(name, otherwise)) * time.Millisecond
}

func (o options) committed() bool { return o["isolation"] == "committed" }

// output prints events. Safe for concurrent use.
type output struct {
	mu sync.Mutex
	w  *bufio.Writer
}

func newOutput(w io.Writer) *output { return &output{w: bufio.NewWriterSize(w, 64<<10)} }

// print adds an event, which is out after flush.
func (o *output) print(kind string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprint(o.w, time.Now().UnixMicro(), " ", kind)
	for _, arg := range args {
		fmt.Fprint(o.w, " ", arg)
	}
	fmt.Fprintln(o.w)
}

func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.w.Flush() // the test has gone: so will we
}

// say prints an event at once.
func (o *output) say(kind string, args ...any) {
	o.print(kind, args...)
	o.flush()
}

// partitions prints an event about partitions, at once; none is none.
func (o *output) partitions(kind string, numbers []int32) {
	if len(numbers) == 0 {
		return
	}
	numbers = slices.Sorted(slices.Values(numbers))
	text := make([]string, len(numbers))
	for i, n := range numbers {
		text[i] = strconv.Itoa(int(n))
	}
	o.say(kind, strings.Join(text, ","))
}

// pace calls send with 0, 1, … rate times a second, until ctx ends, and returns how many there were.
func pace(ctx context.Context, o options, send func(i int) error) (int, error) {
	const pause = 5 * time.Millisecond
	rate := o.int("rate", 500)
	ticks := time.NewTicker(pause)
	defer ticks.Stop()
	began, sent := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return sent, nil
		case now := <-ticks.C:
			for due := int(now.Sub(began).Seconds() * float64(rate)); sent < due && ctx.Err() == nil; sent++ {
				if err := send(sent); err != nil {
					return sent, err
				}
			}
		}
	}
}

// transactor is what a transactional producer can do.
type transactor interface {
	begin() error
	send(partition int32, value string) error // returns when it is acknowledged
	offsets(group string, partition int32, offset int64) error
	commit() error
	abort() error
}

// obey carries out the commands of the input.
func obey(in io.Reader, out *output, t transactor) error {
	out.say("ok")
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		var err error
		switch {
		case words[0] == "begin":
			err = t.begin()
		case words[0] == "send" && len(words) == 3:
			err = t.send(int32(atoi(words[1])), words[2])
		case words[0] == "offsets" && len(words) == 4:
			err = t.offsets(words[1], int32(atoi(words[2])), int64(atoi(words[3])))
		case words[0] == "commit":
			err = t.commit()
		case words[0] == "abort":
			err = t.abort()
		default:
			return fmt.Errorf("no command: %q", lines.Text())
		}
		if err != nil {
			out.say("failed", strings.Join(strings.Fields(err.Error()), " "))
		} else {
			out.say("ok")
		}
	}
	return lines.Err()
}

func atoi(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}
