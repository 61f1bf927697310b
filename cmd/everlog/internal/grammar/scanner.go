package grammar

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// MaxRecordBytes is the largest field a Scanner takes in: larger than any broker accepts in one record.
const MaxRecordBytes = 128 << 20

// Scanner reads records from text in a Format. Not safe for concurrent use.
type Scanner struct {
	in     *bufio.Reader
	pieces []piece
	verbs  string // those in the format
	end    string // the text that closes a record; "" when the format ends in a field
	inner  bool   // whether that text also stands inside the format
	number int    // of the record being read, from 1
}

// NewScanner reads records of the format from r. It refuses formats that cannot be read back: two fields side by side, or
// fields that only a broker knows (%o) or that say nothing on their own (%K, %V).
func NewScanner(r io.Reader, f *Format) (*Scanner, error) {
	s := &Scanner{in: bufio.NewReaderSize(r, 1<<16), pieces: f.pieces}
	for i, p := range f.pieces {
		if strings.IndexByte("oKV", p.verb) >= 0 && p.verb != 0 {
			return nil, fmt.Errorf("format: %%%c cannot be read from input (fields: %%k %%v %%t %%p %%h %%T %%d)", p.verb)
		}
		if p.verb != 0 && strings.IndexByte(s.verbs, p.verb) >= 0 {
			return nil, fmt.Errorf("format: %%%c stands there twice", p.verb)
		}
		if i > 0 && p.verb != 0 && f.pieces[i-1].verb != 0 {
			return nil, fmt.Errorf("format: %%%c and %%%c need text between them to be told apart", f.pieces[i-1].verb, p.verb)
		}
		if p.verb != 0 {
			s.verbs += string(p.verb)
		}
	}
	if s.verbs == "" {
		return nil, errors.New(`format names no field (write for example '%k\t%v\n')`)
	}
	if last := f.pieces[len(f.pieces)-1]; last.verb == 0 {
		s.end = last.literal
		for _, p := range f.pieces[:len(f.pieces)-1] {
			s.inner = s.inner || p.verb == 0 && strings.Contains(p.literal, s.end)
		}
	}
	return s, nil
}

// Has reports whether the format sets that field, named as in a format: Has('p').
func (s *Scanner) Has(verb byte) bool { return strings.IndexByte(s.verbs, verb) >= 0 }

// Next reads one record, whose slices are the caller's. Fields the format does not name are zero, but those it names are
// never null. io.EOF after the last record; the closing text of the last record may be missing.
func (s *Scanner) Next() (Record, error) {
	if _, err := s.in.Peek(1); err != nil {
		return Record{}, err
	}
	s.number++
	var r Record
	for i, p := range s.pieces {
		last := i == len(s.pieces)-1
		switch {
		case p.verb == 0 && i == 0:
			if err := s.literal(p.literal); err != nil {
				return Record{}, err
			}
		case p.verb != 0:
			stop := ""
			if !last {
				stop = s.pieces[i+1].literal
			}
			text, err := s.field(p.verb, stop, i+2 >= len(s.pieces))
			if err != nil {
				return Record{}, err
			}
			if err := r.set(p.verb, text); err != nil {
				return Record{}, fmt.Errorf("record %d: %w", s.number, err)
			}
		}
	}
	return r, nil
}

// literal consumes text that a format begins with.
func (s *Scanner) literal(want string) error {
	got := make([]byte, len(want))
	n, err := io.ReadFull(s.in, got)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	if string(got[:n]) != want {
		return fmt.Errorf("record %d does not begin with %q", s.number, want)
	}
	return nil
}

// field reads up to stop and consumes it; with an empty stop, or for the last field, the end of the input closes it too.
func (s *Scanner) field(verb byte, stop string, last bool) ([]byte, error) {
	text := []byte{}
	if stop == "" {
		b, err := io.ReadAll(io.LimitReader(s.in, MaxRecordBytes+1))
		if err == nil && len(b) > MaxRecordBytes {
			err = fmt.Errorf("record %d: %%%c is larger than %d bytes", s.number, verb, MaxRecordBytes)
		}
		return b, err
	}
	for {
		part, err := s.in.ReadSlice(stop[len(stop)-1])
		text = append(text, part...)
		if len(text) > MaxRecordBytes {
			return nil, fmt.Errorf("record %d: %%%c is larger than %d bytes", s.number, verb, MaxRecordBytes)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && last:
			return text, nil
		case errors.Is(err, io.EOF) && s.splits(text):
			return nil, fmt.Errorf("record %d has no %q after %%%c", s.number, stop, verb)
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("record %d: the input ends before the %q after %%%c", s.number, stop, verb)
		case err != nil:
			return nil, err
		case bytes.HasSuffix(text, []byte(stop)):
			text = text[:len(text)-len(stop)]
			if !last && s.splits(text) {
				return nil, fmt.Errorf("record %d has no %q after %%%c", s.number, stop, verb)
			}
			return text, nil
		}
	}
}

// splits tells whether a field that must not be the last reaches past the end of its record.
func (s *Scanner) splits(text []byte) bool {
	return !s.inner && s.end != "" && bytes.Contains(text, []byte(s.end))
}
