package report

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Shell is what every command runs in: the three streams, the clock, the environment and the flags all commands share.
// Tests pass their own.
type Shell struct {
	In       io.Reader
	Out, Err io.Writer
	Now      func() time.Time
	Getenv   func(string) string
	Environ  func() []string // all variables, NAME=VALUE; nil is none
	Version  string

	Output   string // --output
	JSON     bool   // --json
	Color    string // --color
	Progress string // --progress
	Verbose  bool   // -v
	Yes      bool   // -y
}

// Printer prints results as --output and --json ask.
func (s *Shell) Printer() Printer {
	format := s.Output
	if s.JSON && format != "jsonl" {
		format = "json"
	}
	return Printer{Out: s.Out, Format: format}
}

// Check refuses values of the shared flags that do not exist.
func (s *Shell) Check() error {
	for _, f := range []struct {
		flag, value string
		values      []string
	}{
		{"output", s.Output, append([]string{"", "text", "raw", "summary"}, Outputs...)},
		{"color", s.Color, []string{"auto", "always", "never"}},
		{"progress", s.Progress, ProgressModes},
	} {
		if !slices.Contains(f.values, f.value) {
			return Usagef("--%s %q does not exist", f.flag, f.value).WithHint("one of %s", strings.Join(slices.DeleteFunc(slices.Clone(f.values), func(v string) bool { return v == "" }), ", "))
		}
	}
	return nil
}

// Notef tells a person something on standard error.
func (s *Shell) Notef(format string, args ...any) { fmt.Fprintf(s.Err, format+"\n", args...) }

// OutStyle and ErrStyle are the colours of the two streams.
func (s *Shell) OutStyle() Style { return NewStyle(s.Color, s.Out) }

// ErrStyle is the colours of standard error.
func (s *Shell) ErrStyle() Style { return NewStyle(s.Color, s.Err) }

// Confirm asks before something that cannot be undone. Without a terminal it wants --yes.
func (s *Shell) Confirm(question string) error {
	if s.Yes {
		return nil
	}
	if !IsTerminal(s.In) {
		return Usagef("%s needs --yes where nobody can be asked", strings.TrimSuffix(question, "?"))
	}
	fmt.Fprintf(s.Err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(s.In).ReadString('\n')
	if err != nil && answer == "" {
		return Errorf(Interrupted, "not confirmed")
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return Errorf(Interrupted, "not confirmed: nothing was changed")
	}
	return nil
}
