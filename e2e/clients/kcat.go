package clients

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os/exec"
	"strconv"
	"strings"

	"github.com/everlog/everlog/e2e/corpus"
)

// ErrNoKcat means that kcat is not installed.
var ErrNoKcat = errors.New("kcat is not installed: apt-get install kcat")

// kcat runs the program with what feeds its input and what reads its output, both at once.
func kcat(ctx context.Context, args []string, feed func(io.Writer) error, read func(*bufio.Reader) error) error {
	path, err := exec.LookPath("kcat")
	if err != nil {
		return ErrNoKcat
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	var work func() error
	if feed != nil {
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		work = func() error {
			w := bufio.NewWriterSize(in, 1<<20)
			return errors.Join(feed(w), w.Flush(), in.Close())
		}
	} else {
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		work = func() error {
			r := bufio.NewReaderSize(out, 1<<20)
			err := read(r)
			_, drained := io.Copy(io.Discard, r) // kcat must not block on a full pipe
			return errors.Join(err, drained)
		}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	worked := work()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("kcat %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return worked
}

// kcatFormat prints lengths before the bytes they count. Headers come last, as text up to the line's end.
const kcatFormat = `%o %T %K %S %k%s%h\n`

func readKcat(ctx context.Context, r Range, fn func(corpus.Record)) error {
	if r.From >= r.To {
		return nil
	}
	args := []string{
		"-C", "-b", r.Addr, "-t", r.Topic, "-p", strconv.Itoa(int(r.Partition)), "-o", strconv.FormatInt(r.From, 10), "-c", strconv.FormatInt(r.To-r.From, 10),
		"-e", "-q", "-X", "check.crcs=true", "-X", "auto.offset.reset=error", "-f", kcatFormat,
	}
	return kcat(ctx, args, nil, func(out *bufio.Reader) error {
		for {
			record, err := readKcatRecord(out)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			fn(record)
		}
	})
}

func readKcatRecord(out *bufio.Reader) (corpus.Record, error) {
	var numbers [4]int64
	for i := range numbers {
		text, err := out.ReadString(' ')
		if err != nil {
			return corpus.Record{}, err
		}
		if numbers[i], err = strconv.ParseInt(strings.TrimSuffix(text, " "), 10, 64); err != nil {
			return corpus.Record{}, fmt.Errorf("kcat's output: %w", err)
		}
	}
	record := corpus.Record{Offset: numbers[0], Timestamp: numbers[1]}
	for i, into := range []*[]byte{&record.Key, &record.Value} {
		if length := numbers[2+i]; length >= 0 {
			*into = make([]byte, length)
			if _, err := io.ReadFull(out, *into); err != nil {
				return corpus.Record{}, err
			}
		}
	}
	headers, err := out.ReadString('\n')
	if err != nil {
		return corpus.Record{}, err
	}
	if headers = strings.TrimSuffix(headers, "\n"); headers != "" {
		for header := range strings.SplitSeq(headers, ",") {
			key, value, _ := strings.Cut(header, "=")
			h := corpus.Header{Key: key, Value: []byte(value)}
			if value == "NULL" {
				h.Value = nil
			}
			record.Headers = append(record.Headers, h)
		}
	}
	return record, nil
}

// WriteKcat sends the records of one partition through the program kcat.
func WriteKcat(ctx context.Context, to Destination, records iter.Seq[corpus.Record]) error {
	args := []string{
		"-P", "-b", to.Addr, "-t", to.Topic, "-p", strconv.Itoa(int(to.Partition)), "-z", to.Codec,
		"-K", fmt.Sprintf(`\x%02x`, corpus.KeyDelimiter), "-D", fmt.Sprintf(`\x%02x`, corpus.RecordDelimiter), "-Z",
		"-E", // a broker that is away for a while is no reason to give up
		"-X", "enable.idempotence=true", "-X", fmt.Sprintf("message.timeout.ms=%d", patience.Milliseconds()), "-X", "linger.ms=20",
	}
	for _, h := range to.Headers {
		args = append(args, "-H", h.Key+"="+string(h.Value))
	}
	return kcat(ctx, args, func(in io.Writer) error {
		var line []byte
		for r := range records {
			line = append(append(line[:0], r.Key...), corpus.KeyDelimiter)
			line = append(append(line, r.Value...), corpus.RecordDelimiter)
			if _, err := in.Write(line); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}
