// Package render owns how a record is written to standard output: as text in a format, as raw values, or as a line of JSON.
// consume and replay share it, so that the same record looks the same from a broker and from the bucket.
package render

import (
	"bytes"
	"encoding/base64"
	"io"
	"strconv"
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
		return &jsonWriter{w: w}, nil
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

// jsonWriter writes a record as one line of JSON with the fields v, topic, partition, offset, timestamp, key, value and, if
// there are any, headers. Bytes that are UTF-8 stand as text, others in base64 in a field whose name says so; null is null.
// It builds the line by hand: through encoding/json a replay is bound by reflection and not by the store.
type jsonWriter struct {
	w   io.Writer
	buf []byte
}

func (j *jsonWriter) Write(r *grammar.Record) error {
	b := append(j.buf[:0], `{"v":1,"topic":`...)
	b = appendText(b, []byte(r.Topic))
	b = append(b, `,"partition":`...)
	b = strconv.AppendInt(b, int64(r.Partition), 10)
	b = append(b, `,"offset":`...)
	b = strconv.AppendInt(b, r.Offset, 10)
	b = append(b, `,"timestamp":"`...)
	b = append(b, grammar.FormatTime(r.Timestamp)...)
	b = append(b, '"')
	b = appendBytes(b, "key", r.Key)
	b = appendBytes(b, "value", r.Value)
	for i, h := range r.Headers {
		if i == 0 {
			b = append(b, `,"headers":[{"key":`...)
		} else {
			b = append(b, `},{"key":`...)
		}
		b = appendText(b, bytes.ToValidUTF8([]byte(h.Key), []byte("\uFFFD")))
		b = appendBytes(b, "value", h.Value)
	}
	if len(r.Headers) > 0 {
		b = append(b, "}]"...)
	}
	j.buf = append(b, "}\n"...)
	_, err := j.w.Write(j.buf)
	return err
}

// appendBytes adds a field of bytes.
func appendBytes(b []byte, name string, value []byte) []byte {
	b = append(append(append(b, `,"`...), name...), `":`...)
	switch {
	case value == nil:
		return append(b, "null"...)
	case utf8.Valid(value):
		return appendText(b, value)
	}
	b = append(append(append(b, `null,"`...), name...), `_base64":"`...)
	return append(base64.StdEncoding.AppendEncode(b, value), '"')
}

const hexDigits = "0123456789abcdef"

// appendText adds a JSON string of valid UTF-8.
func appendText(b, text []byte) []byte {
	b = append(b, '"')
	start := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, text[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(b, text[start:]...), '"')
}
