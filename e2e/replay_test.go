package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/everlog/everlog/e2e/corpus"
	"github.com/everlog/everlog/e2e/harness"
)

// A line is a record as everlog replay prints it: bytes that are text as text, others in base64, null as null.
type line struct {
	Partition int32
	Offset    int64
	Timestamp time.Time
	Key       *string
	KeyB64    string `json:"key_base64"`
	Value     *string
	ValueB64  string `json:"value_base64"`
	Headers   []struct {
		Key      string
		Value    *string
		ValueB64 string `json:"value_base64"`
	}
}

func (l line) record() (corpus.Record, error) {
	r := corpus.Record{Offset: l.Offset, Timestamp: l.Timestamp.UnixMilli()}
	var err error
	if r.Key, err = decode(l.Key, l.KeyB64); err != nil {
		return r, err
	}
	if r.Value, err = decode(l.Value, l.ValueB64); err != nil {
		return r, err
	}
	for _, h := range l.Headers {
		value, err := decode(h.Value, h.ValueB64)
		if err != nil {
			return r, err
		}
		r.Headers = append(r.Headers, corpus.Header{Key: h.Key, Value: value})
	}
	return r, nil
}

func decode(text *string, b64 string) ([]byte, error) {
	if text != nil {
		return []byte(*text), nil
	}
	if b64 != "" {
		return base64.StdEncoding.DecodeString(b64)
	}
	return nil, nil
}

// replay runs everlog replay and returns what each partition holds.
func replay(t *testing.T, store, topic string, args ...string) (map[int32]corpus.Sum, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), append([]string{"replay", store, topic, "--output", "jsonl"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	sums, readErr := sumLines(out)
	_, _ = io.Copy(io.Discard, out) // what is left after an error, so that the program can end
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr.Bytes())
	}
	return sums, readErr
}

func sumLines(out io.Reader) (map[int32]corpus.Sum, error) {
	digests := map[int32]*corpus.Digest{}
	for decoder := json.NewDecoder(bufio.NewReaderSize(out, 1<<20)); ; {
		var l line
		err := decoder.Decode(&l)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		r, err := l.record()
		if err != nil {
			return nil, err
		}
		if digests[l.Partition] == nil {
			digests[l.Partition] = corpus.NewDigest()
		}
		digests[l.Partition].Add(r)
	}
	sums := map[int32]corpus.Sum{}
	for partition, digest := range digests {
		sums[partition] = digest.Sum()
	}
	return sums, nil
}

// setenv gives one NAME=VALUE to this process and what it starts, until the test ends.
func setenv(t *testing.T, pair string) {
	t.Helper()
	name, value, _ := strings.Cut(pair, "=")
	t.Setenv(name, value)
}
