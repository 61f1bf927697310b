package lease

import (
	"time"

	"github.com/everlog/everlog/tier/object"
)

// Event is what happened: Tick, Found, Absent, ReadFailed, Written, NotWritten, Suspect, Fence or Resign.
type Event interface{ event() }

type (
	// Tick says that time passed.
	Tick struct{}
	// Found answers Read: the object and its version.
	Found struct {
		Record  Record
		Version object.Version
	}
	// Absent answers Read: there is no object.
	Absent struct{}
	// ReadFailed answers Read: nothing is known.
	ReadFailed struct{}
	// Written answers Write: it happened.
	Written struct{ Version object.Version }
	// NotWritten answers Write with anything else. Also a failed precondition is no proof that the write lost.
	NotWritten struct{}
	// Suspect says that a holder seems dead to someone: its lease may be taken after one missed renewal, not a full lease.
	Suspect struct{ Holder string }
	// Fence says that an epoch was seen where the lease is used: a lower one is given up, and acquisitions are above it.
	Fence struct{ Epoch int64 }
	// Resign releases the lease; no acquisition follows.
	Resign struct{}
)

func (Tick) event()       {}
func (Found) event()      {}
func (Absent) event()     {}
func (ReadFailed) event() {}
func (Written) event()    {}
func (NotWritten) event() {}
func (Suspect) event()    {}
func (Fence) event()      {}
func (Resign) event()     {}

// Action is what the runner must do: Read or Write. At most one is under way at any time, and each is answered by one event.
type Action interface{ action() }

type (
	// Read asks for the object.
	Read struct{}
	// Write asks for one conditional put, without retries.
	Write struct {
		Record    Record
		Condition object.Condition
	}
)

func (Read) action()  {}
func (Write) action() {}

// pending is a write whose outcome is not known, or that is under way.
type pending struct {
	write Write
	// base is the version the write replaces; "" if it creates the object.
	base object.Version
	// started is when the first attempt began: the deadline of the lease counts from there.
	started time.Duration
}

// Machine is the protocol of one contender for one lease, without a clock and without a store. now is a monotonic time
// since any fixed moment. Not safe for concurrent use.
type Machine struct {
	o     Options
	nonce func() string

	busy      bool
	resigning bool
	finished  bool
	floor     int64
	suspect   string

	// known says whether the object's state was read at all; seen and version are that state (version "" = absent), and
	// since is when this machine first saw it.
	known   bool
	seen    Record
	version object.Version
	since   time.Duration

	pending *pending
	unclear bool // pending must be read back before anything else

	held     bool
	epoch    int64
	deadline time.Duration // stop acting then

	wakeAt time.Duration // no action of its own before
}

// NewMachine returns a machine that knows nothing yet. nonce must return a new unique string at every call.
func NewMachine(o Options, nonce func() string) *Machine {
	return &Machine{o: o.withDefaults(), nonce: nonce}
}

// Holding returns the epoch of the lease, and false if it is not held at now.
func (m *Machine) Holding(now time.Duration) (int64, bool) {
	return m.epoch, m.held && now < m.deadline
}

// Seen returns the last state of the object that was read or written; false if there is none.
func (m *Machine) Seen() (Record, bool) { return m.seen, m.known && m.version != "" }

// Finished reports whether a resignation is complete.
func (m *Machine) Finished() bool { return m.finished }

// Wake returns when the next Tick is needed; false if only an answer can move the machine.
func (m *Machine) Wake() (time.Duration, bool) {
	switch {
	case m.finished:
		return 0, false
	case m.busy:
		return m.deadline, m.held
	case m.held:
		return min(m.deadline, m.wakeAt), true
	}
	return m.wakeAt, true
}

// Step takes one event and returns the action it leads to, or nil.
func (m *Machine) Step(now time.Duration, e Event) Action {
	switch e := e.(type) {
	case Found:
		m.busy = false
		m.found(now, e.Record, e.Version)
	case Absent:
		m.busy = false
		m.found(now, Record{}, "")
	case ReadFailed:
		m.busy = false
		m.wakeAt = now + m.o.Retry
	case Written:
		m.busy = false
		m.won(now, e.Version)
	case NotWritten:
		m.busy = false
		m.unclear = true
		m.wakeAt = now
	case Suspect:
		m.suspect = e.Holder
		m.wakeAt = min(m.wakeAt, now)
	case Fence:
		if m.held && e.Epoch > m.epoch {
			m.held, m.known = false, false
			m.wakeAt = now
		}
		m.floor = max(m.floor, e.Epoch)
	case Resign:
		m.resigning = true
		m.wakeAt = now
	}
	if m.held && now >= m.deadline {
		m.held = false
	}
	if m.busy || m.finished {
		return nil
	}
	return m.next(now)
}

// found takes in the state of the object (version "" = absent).
func (m *Machine) found(now time.Duration, r Record, v object.Version) {
	if !m.known || v != m.version {
		m.known, m.seen, m.version, m.since = true, r, v, now
		m.suspect = "" // it moved: whoever holds it was alive
	}
	p := m.pending
	switch {
	case p == nil:
		if m.held && !(r.Nonce != "" && r.Holder == m.o.Holder && r.Epoch == m.epoch) {
			m.held = false
		}
		m.wakeAt = now + m.o.Renew
	case v != "" && r.Nonce == p.write.Record.Nonce:
		m.won(now, v)
	case v == p.base:
		// Not there yet; it may still come. The same record again, under the same condition: one of the two can land.
		m.unclear = false
		m.wakeAt = now + m.o.Retry
	default:
		m.pending, m.unclear, m.held = nil, false, false
		m.wakeAt = now + m.o.Renew
	}
}

// won is called when the pending write is known to be the object's state.
func (m *Machine) won(now time.Duration, v object.Version) {
	p := m.pending
	m.pending, m.unclear = nil, false
	m.known, m.seen, m.version, m.since = true, p.write.Record, v, now
	if m.seen.Released {
		m.held = false
		m.finished = m.resigning
		return
	}
	deadline := p.started + m.o.Duration*2/3
	if now < deadline && m.seen.Epoch > m.floor && !m.resigning {
		// An epoch at or below the floor was overtaken while the write was under way: it must be acquired anew.
		m.epoch, m.held, m.deadline = m.seen.Epoch, true, deadline
	} else if m.seen.Epoch == m.epoch && m.held {
		m.deadline = max(m.deadline, deadline)
	} else {
		m.held = false
	}
	m.wakeAt = p.started + m.o.Renew
}

// next decides what to do when nothing is under way.
func (m *Machine) next(now time.Duration) Action {
	if m.resigning {
		return m.resign(now)
	}
	if m.unclear {
		if now < m.wakeAt {
			return nil
		}
		return m.read()
	}
	if m.pending != nil {
		if now < m.wakeAt {
			return nil
		}
		m.busy = true
		return m.pending.write
	}
	if m.held {
		if now < m.wakeAt {
			return nil
		}
		return m.write(now, m.epoch, false)
	}
	if !m.known {
		if now < m.wakeAt {
			return nil
		}
		return m.read()
	}
	if m.free(now) {
		return m.write(now, max(m.seen.Epoch, m.floor)+1, false)
	}
	if now < m.wakeAt {
		return nil
	}
	return m.read()
}

// free reports whether the lease may be taken: there is none, it was released, its holder is an earlier incarnation of
// this one (which Options.Holder says is dead), or it was not renewed for long enough.
func (m *Machine) free(now time.Duration) bool {
	if m.version == "" || m.seen.Released {
		return true
	}
	if m.seen.Format > format {
		return now >= m.since+m.o.Duration
	}
	if m.seen.Holder == m.o.Holder {
		return true
	}
	wait := m.o.Duration
	if m.suspect != "" && m.suspect == m.seen.Holder {
		wait = m.o.Renew * 3 / 2
	}
	return now >= m.since+wait
}

func (m *Machine) resign(now time.Duration) Action {
	switch {
	case m.unclear:
		if now < m.wakeAt {
			return nil
		}
		return m.read()
	case m.pending != nil && m.pending.write.Record.Released:
		if now < m.wakeAt {
			return nil
		}
		m.busy = true
		return m.pending.write
	case m.pending != nil:
		// An acquisition or renewal that has not landed: it is replaced by the release under the same condition, so that
		// whichever lands, the other cannot.
		if !m.known || m.pending.base == "" {
			m.finished = true
			return nil
		}
		m.pending = nil
		return m.write(now, max(m.epoch, m.seen.Epoch), true)
	case m.known && m.version != "" && m.seen.Holder == m.o.Holder && !m.seen.Released:
		return m.write(now, m.seen.Epoch, true)
	}
	m.held, m.finished = false, true
	return nil
}

func (m *Machine) read() Action {
	m.busy = true
	return Read{}
}

func (m *Machine) write(now time.Duration, epoch int64, release bool) Action {
	c := object.IfAbsent()
	if m.version != "" {
		c = object.IfMatch(m.version)
	}
	w := Write{Condition: c, Record: Record{Format: format, Name: m.o.Name, Holder: m.o.Holder, Address: m.o.Address,
		Epoch: epoch, Released: release, Nonce: m.nonce()}}
	if release {
		m.held = false
	}
	m.pending = &pending{write: w, base: m.version, started: now}
	m.busy = true
	return w
}
