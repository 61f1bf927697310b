package hotlog

import (
	"sync"
	"sync/atomic"
	"time"
)

// Flusher syncs the logs of a broker in groups: it takes every dirty log, syncs up to FlusherOptions.Parallel of them at
// once, tells each as it is done, then takes the next group. What is appended meanwhile queues: the busier the disk, the
// larger the group, without a timer. Safe for concurrent use.
type Flusher struct {
	o FlusherOptions

	mu     sync.Mutex
	dirty  []*Log
	late   []*Log // to be made dirty after o.Background
	closed bool

	wake  chan struct{} // room for one: dirty is not empty
	later chan struct{} // room for one: late is not empty
	stop  chan struct{}
	done  chan struct{}

	group   []*Log // being flushed
	taken   atomic.Int64
	helpers sync.WaitGroup
}

// defaultParallel is where more fsyncs at once stopped helping (reference: 100 files, ext4).
const defaultParallel = 16

// NewFlusher starts a flusher. Close ends it.
func NewFlusher(o FlusherOptions) *Flusher {
	if o.Parallel <= 0 {
		o.Parallel = defaultParallel
	}
	if o.Background <= 0 {
		o.Background = 5 * time.Second
	}
	f := &Flusher{
		o: o, wake: make(chan struct{}, 1), later: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go f.run()
	return f
}

// Close flushes what is dirty and ends the flusher. Logs must not be appended to afterwards.
func (f *Flusher) Close() {
	f.mu.Lock()
	was := f.closed
	f.closed = true
	f.mu.Unlock()
	if !was {
		close(f.stop)
	}
	<-f.done
}

func (f *Flusher) run() {
	defer close(f.done)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for {
		select {
		case <-f.wake:
			f.flushGroup()
		case <-f.later:
			timer.Reset(f.o.Background)
		case <-timer.C:
			f.mu.Lock()
			late := f.late
			f.late = nil
			f.mu.Unlock()
			for _, l := range late {
				l.late.Store(false)
				f.mark(l)
			}
		case <-f.stop:
			f.flushGroup()
			return
		}
	}
}

// mark puts a log into the next group.
func (f *Flusher) mark(l *Log) {
	if !l.queued.CompareAndSwap(false, true) {
		return
	}
	f.mu.Lock()
	f.dirty = append(f.dirty, l)
	f.mu.Unlock()
	signal(f.wake)
}

// markLate puts a log into a group that forms o.Background from now at the latest.
func (f *Flusher) markLate(l *Log) {
	if !l.late.CompareAndSwap(false, true) {
		return
	}
	f.mu.Lock()
	first := len(f.late) == 0
	f.late = append(f.late, l)
	f.mu.Unlock()
	if first { // the timer runs from the first of them
		signal(f.later)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// flushGroup takes the dirty logs and returns when all are synced. This goroutine syncs too: a group of one needs no other.
func (f *Flusher) flushGroup() {
	f.mu.Lock()
	f.group, f.dirty = f.dirty, f.group[:0]
	f.mu.Unlock()
	f.taken.Store(0)
	for i := 1; i < min(len(f.group), f.o.Parallel); i++ {
		f.helpers.Go(f.flushSome)
	}
	f.flushSome()
	f.helpers.Wait()
	clear(f.group)
}

func (f *Flusher) flushSome() {
	for {
		i := int(f.taken.Add(1)) - 1
		if i >= len(f.group) {
			return
		}
		f.group[i].flush()
	}
}

func (f *Flusher) fail(err error) {
	if f.o.OnError != nil {
		f.o.OnError(err)
	}
}

// observe reports the time since began.
func (f *Flusher) observe(began time.Time) {
	if f.o.Observe != nil {
		f.o.Observe(time.Since(began))
	}
}
