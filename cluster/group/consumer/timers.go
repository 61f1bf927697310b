package consumer

import (
	"time"

	"github.com/everlog/everlog/cluster/coordinator"
)

// Deadline is when Tick must run next; zero if never. It may be too early, never too late.
func (g *Group) Deadline() time.Time { return g.due }

// Tick does what is due: it removes members whose session is over or who did not give up partitions in time, computes a
// target that had to wait, and resolves regular expressions again. It may leave a group Downgradable.
func (g *Group) Tick(topics Topics, now time.Time) []coordinator.Record {
	c := &changes{g: g}
	var late []*member
	for _, id := range g.memberIDs() {
		if m := g.members[id]; m.timers.over(now) {
			late = append(late, m)
		}
	}
	g.remove(c, topics, now, late...)
	if isDue(g.reregex, now) {
		if g.resolveAll(c, topics, now) {
			g.bump(c, topics)
		}
	}
	if isDue(g.retarget, now) {
		g.maybeRetarget(c, topics, now)
	}
	g.setDue()
	return c.records
}

// over says whether the member has to go.
func (t timers) over(now time.Time) bool {
	return isDue(t.session, now) || isDue(t.rebalance, now) || isDue(t.join, now) || isDue(t.sync, now)
}

func isDue(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }

// setDue computes the first deadline.
func (g *Group) setDue() {
	g.due = time.Time{}
	g.wake(g.retarget)
	g.wake(g.reregex)
	for _, m := range g.members {
		g.wake(m.timers.session)
		g.wake(m.timers.rebalance)
		g.wake(m.timers.join)
		g.wake(m.timers.sync)
	}
}

// Loaded ends loading: sessions begin anew, and what happened to topics meanwhile is taken in.
func (g *Group) Loaded(topics Topics, now time.Time) []coordinator.Record {
	for _, m := range g.members {
		g.expect(m, g.sessionOf(m), now)
		if m.state == unrevoked && !m.usesClassic() {
			m.timers.rebalance = now.Add(time.Duration(m.rebalanceTimeout) * time.Millisecond)
		}
	}
	c := &changes{g: g}
	g.resolveMissing(c, topics, now)
	g.noticeTopics(c, topics, now)
	g.setDue()
	return c.records
}

func (g *Group) sessionOf(m *member) time.Duration {
	if m.classic != nil {
		return time.Duration(m.classic.sessionTimeout) * time.Millisecond
	}
	return g.o.SessionTimeout
}

// TopicsChanged takes in that topics have come, gone or grown.
func (g *Group) TopicsChanged(topics Topics, now time.Time) []coordinator.Record {
	c := &changes{g: g}
	g.noticeTopics(c, topics, now)
	return c.records
}

func (g *Group) noticeTopics(c *changes, topics Topics, now time.Time) {
	if len(g.members) == 0 {
		return
	}
	changed := false
	if g.refreshSoon(); isDue(g.reregex, now) {
		changed = g.resolveAll(c, topics, now)
	}
	if changed || g.topicsHash(topics) != g.hash {
		g.bump(c, topics)
	}
	g.maybeRetarget(c, topics, now)
}
