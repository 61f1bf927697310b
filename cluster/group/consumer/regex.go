package consumer

import (
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// compileRegex compiles a subscription of RE2 syntax that must match a whole topic name.
func compileRegex(regex string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(regex); err != nil { // by itself: the parentheses must not complete it
		return nil, err
	}
	return regexp.Compile("^(?:" + regex + ")$")
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
