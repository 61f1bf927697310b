// Package render owns how a record is written to standard output: as text in a format, as raw values, or as a line of JSON.
// consume and replay share it, so that the same record looks the same from a broker and from the bucket.
package render

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"unicode/utf8"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// Writer writes records one after the other. Not safe for concurrent use.
type Writer interface {
	Write(r *grammar.Record) error
}

// NewWriter chooses by --output, --json and the format ("" is one value a line): text (default), raw (values with nothing
// between them), jsonl or json (one object a line).
func NewWriter(w io.Writer, shell *report.Shell, format string) (Writer, error) {
	output := shell.Output
	if shell.JSON {
		output = "jsonl"
	}
	switch output {
	case "jsonl", "json":
		if format != "" {
			return nil, report.Usagef("--format and --output %s exclude each other", output)
		}
		return &jsonWriter{enc: newEncoder(w)}, nil
	case "raw":
		return &textWriter{w: w, format: mustFormat("%v")}, nil
	case "", "text", "table":
		if format == "" {
			format = `%v\n`
		}
		f, err := grammar.ParseFormat(format)
		if err != nil {
			return nil, report.Usagef("--format: %w", err)
		}
		return &textWriter{w: w, format: f}, nil
	}
	return nil, report.Usagef("--output %q cannot hold records", output).WithHint("one of text, raw, jsonl")
}

func newEncoder(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc
}

func mustFormat(s string) *grammar.Format {
	f, err := grammar.ParseFormat(s)
	if err != nil {
		panic(err) // a constant of this file
	}
	return f
}

type textWriter struct {
	w      io.Writer
	format *grammar.Format
	buf    []byte
}

func (t *textWriter) Write(r *grammar.Record) error {
	t.buf = t.format.Append(t.buf[:0], r)
	_, err := t.w.Write(t.buf)
	return err
}

// line is one record in JSON. Bytes that are UTF-8 stand as text, others in base64 under a name that says so.
type line struct {
	V         int       `json:"v"`
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Timestamp string    `json:"timestamp"`
	Key       *string   `json:"key"`
	KeyB64    string    `json:"key_base64,omitempty"`
	Value     *string   `json:"value"`
	ValueB64  string    `json:"value_base64,omitempty"`
	Headers   []jHeader `json:"headers,omitempty"`
}

type jHeader struct {
	Key      string  `json:"key"`
	Value    *string `json:"value"`
	ValueB64 string  `json:"value_base64,omitempty"`
}

type jsonWriter struct{ enc *json.Encoder }

func (j *jsonWriter) Write(r *grammar.Record) error {
	l := line{V: 1, Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: grammar.FormatTime(r.Timestamp)}
	l.Key, l.KeyB64 = text(r.Key)
	l.Value, l.ValueB64 = text(r.Value)
	for _, h := range r.Headers {
		v, b64 := text(h.Value)
		l.Headers = append(l.Headers, jHeader{h.Key, v, b64})
	}
	return j.enc.Encode(&l)
}

// text gives bytes as a string, or in base64 where they are not UTF-8. null is neither.
func text(b []byte) (*string, string) {
	switch {
	case b == nil:
		return nil, ""
	case utf8.Valid(b):
		s := string(b)
		return &s, ""
	}
	return nil, base64.StdEncoding.EncodeToString(b)
}
