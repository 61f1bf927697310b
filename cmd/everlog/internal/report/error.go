// Package report owns what a person or a script gets to read: error sentences with their exit codes, tables and JSON on
// standard output, progress on standard error. It knows nothing of Kafka or of the store; the command packages below
// cmd/everlog fill in the words.
package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Code is the exit code of the process.
type Code int

// The exit codes, a contract with scripts: help exit-codes lists them.
const (
	Done        Code = 0
	Failed      Code = 1
	Usage       Code = 2 // wrong flag, argument, or configuration
	Partial     Code = 3 // some of several items failed
	NotFound    Code = 4
	Denied      Code = 5
	Unreachable Code = 6 // no answer, or none in time
	Damaged     Code = 7 // data was read and is wrong
	Interrupted Code = 130
)

// CodesHelp is the table of exit codes for help texts.
const CodesHelp = `Exit codes:
  0    done
  1    failed
  2    bad usage or configuration
  3    some items failed, others are done
  4    not found
  5    denied
  6    unreachable, or no answer in time
  7    damaged data found
  130  interrupted
`

// Error is an error for a person: one sentence with the thing and the reason, Kafka's name for it if there is one, and what
// to type next.
type Error struct {
	Code  Code
	What  string // the sentence, without a capital and a full stop
	Kafka string // KAFKA_ERROR_NAME, or ""
	Hint  string // a command or a setting to try, or ""
	Cause error  // what it came from; shown with -v
}

// Error is the sentence with the Kafka name in brackets.
func (e *Error) Error() string {
	if e.Kafka == "" {
		return e.What
	}
	return e.What + " [" + e.Kafka + "]"
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// WithHint sets the hint and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Errorf makes an Error with a code. A %w operand becomes the cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, What: err.Error(), Cause: errors.Unwrap(err)}
}

// Usagef makes an Error for a wrong flag, argument or setting.
func Usagef(format string, args ...any) *Error { return Errorf(Usage, format, args...) }

// CodeOf gives the exit code of any error: that of the Error inside it, Interrupted for a cancelled context, Unreachable for
// an expired one, otherwise Failed.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return Done
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.Canceled):
		return Interrupted
	case errors.Is(err, context.DeadlineExceeded):
		return Unreachable
	default:
		return Failed
	}
}

// WriteError prints an error as the program's last words: "error: …", then "hint: …". With verbose, the causes follow.
func WriteError(w io.Writer, err error, style Style, verbose bool) {
	fmt.Fprintf(w, "%s %s\n", style.Red("error:"), oneSentence(err.Error()))
	var e *Error
	if !errors.As(err, &e) {
		return
	}
	if e.Hint != "" {
		fmt.Fprintf(w, "%s %s\n", style.Dim("hint:"), e.Hint)
	}
	for cause := e.Cause; verbose && cause != nil; cause = errors.Unwrap(cause) {
		fmt.Fprintf(w, "%s %v\n", style.Dim("cause:"), cause)
	}
}

// oneSentence keeps an error whose text has several lines readable: the excerpt of a configuration file stays as it is.
func oneSentence(s string) string { return strings.TrimRight(s, "\n") }

// Suggest returns the candidate nearest to name, if one is near enough to be a slip of the finger: at most a third of its
// letters changed, added, dropped or swapped.
func Suggest(name string, candidates []string) (string, bool) {
	best, bestDistance := "", len(name)/3+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(name), strings.ToLower(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best, best != ""
}

// DidYouMean is "did you mean X?" for a hint, or "".
func DidYouMean(name string, candidates []string) string {
	if s, ok := Suggest(name, candidates); ok {
		return fmt.Sprintf("did you mean %s?", s)
	}
	return ""
}

// distance is the optimal string alignment distance: edits and swaps of neighbours.
func distance(a, b string) int {
	before, previous, current := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous, current = previous, current, before
	}
	return previous[len(b)]
}
