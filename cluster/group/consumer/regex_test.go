package consumer

import (
	"fmt"
	"strings"
	"testing"
)

// What re2j, Kafka's library, takes and matches is taken and matched here (tried with 1.8).
func TestRegexMatchesWholeNames(t *testing.T) {
	for _, c := range []struct {
		regex, name string
		want        bool
	}{
		{"a|ab", "ab", true},
		{"a", "ab", false},
		{"b", "ab", false},
		{"a.b", "axb", true},
		{`\Qa.b`, "a.b", true},
		{`\Qa.b`, "axb", false},
		{`\Qa.b\E|c`, "c", true},
		{"(?i)A", "a", true},
		{"^a$", "a", true},
		{`orders-(eu|us)-[0-9]{1,3}`, "orders-eu-12", true},
		{`orders-(eu|us)-[0-9]{1,3}`, "orders-eu-1234", false},
		{"[^.]{1,249}", strings.Repeat("x", 249), true},
	} {
		re, err := compileRegex(c.regex)
		if err != nil {
			t.Errorf("%s: %v", c.regex, err)
		} else if got := re.MatchString(c.name); got != c.want {
			t.Errorf("%s matches %q: %v, want %v", c.regex, c.name, got, c.want)
		}
	}
}

// An expression that would hold up its coordinator is refused, a long list of names is not.
func TestRegexIsBounded(t *testing.T) {
	var names []string
	for i := range 2000 {
		names = append(names, fmt.Sprintf("topic-%d", i*7919%10_007))
	}
	for regex, ok := range map[string]bool{
		strings.Join(names, "|"):                     true,
		"(a?){1000}":                                 true,
		strings.Repeat("(a?){1000}", 300) + "b":      false,
		strings.Repeat("a?", 15_000):                 false,
		"((abcdefgh){100}){100}":                     false,
		strings.Repeat("(abcdefghij){900}x", 2):      false,
		"(" + strings.Repeat("[a-z]", 900) + "){20}": false,
	} {
		if _, err := compileRegex(regex); (err == nil) != ok {
			t.Errorf("%.40s… of %d bytes: %v", regex, len(regex), err)
		}
	}
}
