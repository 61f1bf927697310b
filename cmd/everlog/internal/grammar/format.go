package grammar

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// FormatHelp is the language of ParseFormat for help texts.
const FormatHelp = `FORMAT is text with fields:
  %k key  %v value (also %s)  %t topic  %p partition  %o offset  %h headers (a=1,b=2)
  %T time in Unix milliseconds  %d time as RFC 3339  %K %V size of key, of value in bytes
  \n newline  \t tab  \0 zero byte  \xHH byte  \\ backslash  %% percent sign
`

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Record is a record as formats see it. A nil Key or Value is null.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Timestamp int64 // Unix milliseconds
	Key       []byte
	Value     []byte
	Headers   []Header
}

// piece is literal text, or one field named by its verb.
type piece struct {
	literal string
	verb    byte
}

// Format is a parsed record format. It is immutable and safe for concurrent use.
type Format struct{ pieces []piece }

const formatVerbs = "kvstpohTdKV"

// ParseFormat reads the language of FormatHelp.
func ParseFormat(s string) (*Format, error) {
	f := &Format{}
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			f.pieces = append(f.pieces, piece{literal: text.String()})
			text.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			b, used, err := unescape(s[i:])
			if err != nil {
				return nil, err
			}
			text.WriteByte(b)
			i += used - 1
		case s[i] != '%':
			text.WriteByte(s[i])
		case i+1 == len(s):
			return nil, fmt.Errorf("format %q ends in a lone %% (write %%%% for a percent sign)", s)
		case s[i+1] == '%':
			text.WriteByte('%')
			i++
		case strings.IndexByte(formatVerbs, s[i+1]) >= 0:
			flush()
			verb := s[i+1]
			if verb == 's' {
				verb = 'v'
			}
			f.pieces = append(f.pieces, piece{verb: verb})
			i++
		default:
			return nil, fmt.Errorf("format %q: there is no field %%%c (fields: %%k %%v %%t %%p %%o %%h %%T %%d %%K %%V)", s, s[i+1])
		}
	}
	flush()
	return f, nil
}

// unescape reads one escape at the start of s and returns its byte and length.
func unescape(s string) (byte, int, error) {
	if len(s) > 1 {
		switch s[1] {
		case 'n':
			return '\n', 2, nil
		case 't':
			return '\t', 2, nil
		case 'r':
			return '\r', 2, nil
		case '0':
			return 0, 2, nil
		case '\\':
			return '\\', 2, nil
		case 'x':
			if len(s) >= 4 {
				if n, err := strconv.ParseUint(s[2:4], 16, 8); err == nil {
					return byte(n), 4, nil
				}
			}
		}
	}
	return 0, 0, fmt.Errorf(`format: %q is not an escape (write \n, \t, \r, \0, \xHH or \\)`, s[:min(len(s), 4)])
}

// Append adds the record in this format to dst. Null keys and values are empty.
func (f *Format) Append(dst []byte, r *Record) []byte {
	for _, p := range f.pieces {
		switch p.verb {
		case 0:
			dst = append(dst, p.literal...)
		case 'k':
			dst = append(dst, r.Key...)
		case 'v':
			dst = append(dst, r.Value...)
		case 't':
			dst = append(dst, r.Topic...)
		case 'p':
			dst = strconv.AppendInt(dst, int64(r.Partition), 10)
		case 'o':
			dst = strconv.AppendInt(dst, r.Offset, 10)
		case 'T':
			dst = strconv.AppendInt(dst, r.Timestamp, 10)
		case 'd':
			dst = append(dst, FormatTime(r.Timestamp)...)
		case 'K':
			dst = strconv.AppendInt(dst, int64(len(r.Key)), 10)
		case 'V':
			dst = strconv.AppendInt(dst, int64(len(r.Value)), 10)
		case 'h':
			dst = appendHeaders(dst, r.Headers)
		}
	}
	return dst
}

func appendHeaders(dst []byte, headers []Header) []byte {
	for i, h := range headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, h.Key...), '='), h.Value...)
	}
	return dst
}

// ParseHeader reads one name=value.
func ParseHeader(s string) (Header, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return Header{}, fmt.Errorf("header %q is not name=value", s)
	}
	return Header{name, []byte(value)}, nil
}

// set fills one field of r from its text.
func (r *Record) set(verb byte, text []byte) error {
	switch verb {
	case 'k':
		r.Key = text
	case 'v':
		r.Value = text
	case 't':
		r.Topic = string(text)
	case 'p':
		n, err := strconv.ParseInt(string(text), 10, 32)
		if err != nil || n < 0 {
			return fmt.Errorf("%%p: %q is not a partition number", text)
		}
		r.Partition = int32(n)
	case 'T':
		n, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("%%T: %q is not a time in Unix milliseconds", text)
		}
		r.Timestamp = n
	case 'd':
		t, err := ParseTime(string(text), time.Time{})
		if err != nil {
			return fmt.Errorf("%%d: %w", err)
		}
		r.Timestamp = t.UnixMilli()
	case 'h':
		for part := range strings.SplitSeq(string(text), ",") {
			if part == "" {
				continue
			}
			h, err := ParseHeader(part)
			if err != nil {
				return fmt.Errorf("%%h: %w", err)
			}
			r.Headers = append(r.Headers, h)
		}
	}
	return nil
}
