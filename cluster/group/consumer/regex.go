package consumer

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// maxProgram bounds a regular expression in steps of its program. It is matched under the lock of its coordinator, and each
// step may have to be tried at every character of every topic's name.
const maxProgram = 10_000

// compileRegex compiles a subscription of RE2 syntax that must match a whole topic name.
func compileRegex(regex string) (*regexp.Regexp, error) {
	parsed, err := syntax.Parse(regex, syntax.Perl)
	if err != nil {
		return nil, err
	}
	if n := programSize(parsed, false); n > maxProgram {
		return nil, fmt.Errorf("its repetitions make it %d steps long, allowed are %d", n, maxProgram)
	}
	return regexp.Compile("^(?:" + parsed.String() + ")$") // printed anew: what it leaves open, as \Q does, must not go on in here
}

// programSize estimates the steps that can be under way at once: repetitions are written out, but a literal that is not repeated
// is one step, for it ends where it differs. It stops counting at twice what is allowed.
func programSize(re *syntax.Regexp, repeated bool) int {
	n := 2
	switch re.Op {
	case syntax.OpRepeat:
		repeated = true
	case syntax.OpLiteral:
		if repeated {
			n += len(re.Rune)
		}
	}
	for _, sub := range re.Sub {
		n = min(n+programSize(sub, repeated), 2*maxProgram)
	}
	if re.Op == syntax.OpRepeat {
		n = min(n*max(re.Min, re.Max, 1), 2*maxProgram)
	}
	return n
}

// checkRegex refuses what is no regular expression.
func (g *Group) checkRegex(regex string) *fault {
	if regex == "" || g.regexes[regex] > 0 {
		return nil
	}
	if _, err := compileRegex(regex); err != nil {
		return refuse(kerr.InvalidRegularExpression, "SubscribedTopicRegex `%s` is not a valid regular expression: %s.", regex, err)
	}
	return nil
}

// dropRegex removes the resolution of a regular expression that nobody subscribes to any more.
func (g *Group) dropRegex(c *changes, regex string) {
	if _, ok := g.resolved[regex]; ok && g.regexes[regex] == 0 {
		c.removeRegex(regex)
	}
}

// resolveMissing resolves regular expressions that are not resolved yet. It says whether there were any.
func (g *Group) resolveMissing(c *changes, topics Topics, now time.Time) bool {
	found := false
	for _, regex := range sortedKeys(g.regexes) {
		if _, ok := g.resolved[regex]; !ok {
			c.regex(regex, resolve(regex, topics, now))
			found = true
		}
	}
	g.scheduleRegexes()
	return found
}

// resolveAll resolves all regular expressions again. It says whether any has other topics now.
func (g *Group) resolveAll(c *changes, topics Topics, now time.Time) bool {
	changed := false
	for _, regex := range sortedKeys(g.regexes) {
		v := resolve(regex, topics, now)
		old, ok := g.resolved[regex]
		same := ok && len(old.topics) == len(v.topics)
		for _, t := range v.topics {
			_, had := old.topics[t]
			same = same && had
		}
		if same { // Not written: only its time has changed.
			g.resolved[regex] = resolution{old.topics, v.timestamp}
			continue
		}
		c.regex(regex, v)
		changed = true
	}
	g.scheduleRegexes()
	return changed
}

// resolve finds the topics. An expression that does not compile, which another broker took, has none.
func resolve(regex string, topics Topics, now time.Time) regexValue {
	v := regexValue{timestamp: now.UnixMilli()}
	re, err := compileRegex(regex)
	if err != nil {
		return v
	}
	for name := range topics.Names {
		if re.MatchString(name) {
			v.topics = append(v.topics, name)
		}
	}
	slices.Sort(v.topics)
	return v
}

// lastResolved is when the oldest resolution was made.
func (g *Group) lastResolved() time.Time {
	var oldest int64
	for regex := range g.regexes {
		if at := g.resolved[regex].at; oldest == 0 || at < oldest {
			oldest = at
		}
	}
	return time.UnixMilli(oldest)
}

// scheduleRegexes sets when all are resolved again, if there are any.
func (g *Group) scheduleRegexes() {
	g.reregex = time.Time{}
	if len(g.regexes) > 0 {
		g.reregex = g.lastResolved().Add(g.o.RegexRefreshInterval)
		g.wake(g.reregex)
	}
}

// refreshSoon has the regular expressions resolved again as soon as the last time is long enough ago.
func (g *Group) refreshSoon() {
	if len(g.regexes) == 0 {
		return
	}
	if at := g.lastResolved().Add(regexMinInterval); g.reregex.IsZero() || at.Before(g.reregex) {
		g.reregex = at
		g.wake(at)
	}
}
