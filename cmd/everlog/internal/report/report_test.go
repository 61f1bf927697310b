package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestCodeOf(t *testing.T) {
	tests := []struct {
		err  error
		want Code
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{Usagef("x"), 2},
		{fmt.Errorf("wrapped: %w", Errorf(NotFound, "x")), 4},
		{context.Canceled, 130},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), 6},
	}
	for _, test := range tests {
		if got := CodeOf(test.err); got != test.want {
			t.Errorf("%v: exit code %d, want %d", test.err, got, test.want)
		}
	}
}

func TestWriteError(t *testing.T) {
	cause := errors.New("dial tcp: refused")
	err := Errorf(Unreachable, "no broker answers: %w", cause).WithHint("everlog %s", "dev")
	err.Kafka = "BROKER_NOT_AVAILABLE"
	for verbose, want := range map[bool]string{
		false: "error: no broker answers: dial tcp: refused [BROKER_NOT_AVAILABLE]\nhint: everlog dev\n",
		true:  "error: no broker answers: dial tcp: refused [BROKER_NOT_AVAILABLE]\nhint: everlog dev\ncause: dial tcp: refused\n",
	} {
		var b bytes.Buffer
		WriteError(&b, err, Style{}, verbose)
		if b.String() != want {
			t.Errorf("verbose %v:\n%s\nwant\n%s", verbose, b.String(), want)
		}
	}
}

func TestSuggest(t *testing.T) {
	names := []string{"produce", "consume", "topic", "retention.ms", "retention.bytes"}
	for name, want := range map[string]string{"prodcue": "produce", "topci": "topic", "Topic": "topic", "retention.m": "retention.ms", "xyz": "", "": "", "consumer": "consume"} {
		if got, _ := Suggest(name, names); got != want {
			t.Errorf("%q: suggested %q, want %q", name, got, want)
		}
	}
}

// TestDistance checks the triangle rules on a few words: the distance is a metric but for swaps over edits.
func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"ab", "ba", 1}, {"abc", "abd", 1}, {"kitten", "sitting", 3}, {"listn", "listen", 1}} {
		if got, back := distance(test.a, test.b), distance(test.b, test.a); got != test.want || back != got {
			t.Errorf("%q %q: %d and %d back, want %d", test.a, test.b, got, back, test.want)
		}
	}
}

type doc struct {
	V     int    `json:"v"`
	Name  string `json:"name"`
	Items []item `json:"items"`
}

type item struct {
	Size int64 `json:"size_bytes"`
}

func TestPrinter(t *testing.T) {
	d := doc{1, "a<b", []item{{5}, {6}}}
	table := func(t *Table) {
		t.Row("NAME", "SIZE")
		t.Row(d.Name, "")
	}
	for format, want := range map[string]string{
		"":      "NAME  SIZE\na<b   -\n",
		"json":  "{\n  \"v\": 1,\n  \"name\": \"a<b\",\n  \"items\": [\n    {\n      \"size_bytes\": 5\n    },\n    {\n      \"size_bytes\": 6\n    }\n  ]\n}\n",
		"jsonl": "{\"v\":1,\"name\":\"a<b\",\"items\":[{\"size_bytes\":5},{\"size_bytes\":6}]}\n",
		"yaml":  "v: 1\nname: a<b\nitems:\n- size_bytes: 5\n- size_bytes: 6\n",
	} {
		var b bytes.Buffer
		if err := (Printer{&b, format}).Print(&d, table); err != nil || b.String() != want {
			t.Errorf("%q: %v\n%s\nwant\n%s", format, err, b.String(), want)
		}
	}
}

// TestColour: NO_COLOR and a file that is no terminal both keep colours away, always brings them.
func TestColour(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	for mode, want := range map[string]bool{"auto": false, "never": false, "always": true} {
		if got := strings.Contains(NewStyle(mode, os.Stderr).Red("x"), "\x1b"); got != want {
			t.Errorf("--color %s: coloured %v, want %v", mode, got, want)
		}
	}
}

func TestConfirm(t *testing.T) {
	shell := &Shell{In: strings.NewReader("y\n"), Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}
	if err := shell.Confirm("delete it?"); CodeOf(err) != Usage {
		t.Errorf("without a terminal: %v", err)
	}
	shell.Yes = true
	if err := shell.Confirm("delete it?"); err != nil {
		t.Errorf("with --yes: %v", err)
	}
}

func TestProgressLine(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b, "off")
	task := p.Start("a", 2048)
	task.Add(1024)
	p.line()
	p.Close()
	if got := b.String(); !strings.HasPrefix(got, "1.0 KiB of 2.0 KiB (50 %), ") {
		t.Errorf("progress says %q", got)
	}
}
