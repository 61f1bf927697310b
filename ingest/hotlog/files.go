package hotlog

import (
	"container/list"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// file is an open file that closes when the last user lets go, so that a segment can be trimmed while it is read.
type file struct {
	vfs.File
	refs atomic.Int32
}

func newFile(f vfs.File) *file {
	p := &file{File: f}
	p.refs.Store(1)
	return p
}

// pin adds a user. The caller must hold a reference, or the lock under which one is known to be held.
func (f *file) pin() *file {
	f.refs.Add(1)
	return f
}

// unpin lets go. The error of closing says nothing about what was read or synced, and is dropped.
func (f *file) unpin() {
	if n := f.refs.Add(-1); n == 0 {
		_ = f.Close()
	} else if n < 0 {
		panic("hotlog: file released twice")
	}
}

// Files keeps the files and footers of sealed segments that were read lately, for all logs of a broker. Safe for
// concurrent use.
type Files struct {
	maxOpen  int
	maxBytes int64

	mu      sync.Mutex
	entries map[*seg]*list.Element // of *opened
	recent  *list.List             // most recent first
	open    int
	bytes   int64
}

// opened is a cache entry; either part may be missing.
type opened struct {
	s      *seg
	file   *file
	footer *segment.Footer
	bytes  int64
}

// Limits of a Files that is not told others.
const (
	defaultOpenFiles   = 512
	defaultFooterBytes = 16 << 20
)

// NewFiles returns a cache of at most open files and footerBytes of decoded footers; 0 takes the defaults, 512 and 16 MiB.
// Files in use count neither: a slice that is being read keeps its file open.
func NewFiles(open int, footerBytes int64) *Files {
	if open <= 0 {
		open = defaultOpenFiles
	}
	if footerBytes <= 0 {
		footerBytes = defaultFooterBytes
	}
	return &Files{maxOpen: open, maxBytes: footerBytes, entries: map[*seg]*list.Element{}, recent: list.New()}
}

// getLocked returns the entry of s, made if need be, as the most recent one.
func (c *Files) getLocked(s *seg) *opened {
	if e := c.entries[s]; e != nil {
		c.recent.MoveToFront(e)
		return e.Value.(*opened)
	}
	o := &opened{s: s}
	c.entries[s] = c.recent.PushFront(o)
	return o
}

// errDropped means that a segment is not the log's any more: whoever looked it up looks again.
var errDropped = fmt.Errorf("segment was trimmed or rewritten: %w", fs.ErrNotExist)

// file returns the open file of a sealed segment, pinned; errDropped if it was trimmed or rewritten meanwhile.
func (c *Files) file(l *Log, s *seg) (*file, error) {
	c.mu.Lock()
	if s.held != nil {
		defer c.mu.Unlock()
		return s.held.pin(), nil
	}
	if e := c.entries[s]; e != nil && e.Value.(*opened).file != nil {
		defer c.mu.Unlock()
		return c.getLocked(s).file.pin(), nil
	}
	c.mu.Unlock()
	opened, err := l.fs.Open(l.name(s.base))
	if s.dropped.Load() { // set before the name changes its meaning: what was opened may be another segment
		if err == nil {
			_ = opened.Close()
		}
		return nil, errDropped
	}
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	f := newFile(opened)
	c.put(s, f.pin(), nil)
	return f, nil
}

// put adds what was opened; it takes over the reference. Of two that came at the same time the first one stays.
func (c *Files) put(s *seg, f *file, footer *segment.Footer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.dropped.Load() {
		if f != nil {
			f.unpin()
		}
		return
	}
	o := c.getLocked(s)
	if f != nil && o.file != nil {
		f.unpin()
	} else if f != nil {
		o.file = f
		c.open++
	}
	if footer != nil && o.footer == nil {
		o.footer = footer
		o.bytes = footerBytes(footer)
		c.bytes += o.bytes
	}
	for e := c.recent.Back(); e != nil && (c.open > c.maxOpen || c.bytes > c.maxBytes) && c.recent.Len() > 1; e = c.recent.Back() {
		c.removeLocked(e)
	}
}

// footerBytes estimates the memory of a decoded footer.
func footerBytes(f *segment.Footer) int64 {
	return int64(len(f.Blocks))*56 + int64(len(f.Epochs))*16 + int64(len(f.Aborted))*32 + int64(len(f.Producers)) + 256
}

// footer returns the footer of a sealed segment, and its file pinned.
func (c *Files) footer(l *Log, s *seg) (*segment.Footer, *file, error) {
	f, err := c.file(l, s)
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	if e := c.entries[s]; e != nil && e.Value.(*opened).footer != nil {
		footer := e.Value.(*opened).footer
		c.mu.Unlock()
		return footer, f, nil
	}
	c.mu.Unlock()
	footer, err := segment.ReadFooter(f, s.size)
	if err != nil {
		f.unpin()
		return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	c.put(s, nil, footer)
	return footer, f, nil
}

// drop forgets a segment that is being removed. Its file closes when the last reader is done.
func (c *Files) drop(s *seg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.dropped.Store(true)
	if e := c.entries[s]; e != nil {
		c.removeLocked(e)
	}
	if s.held != nil {
		s.held.unpin()
		s.held = nil
	}
}

// hold makes f the file of a segment whatever its name leads to; it takes over the reference. f nil ends that.
func (c *Files) hold(s *seg, f *file) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.held != nil {
		s.held.unpin()
	}
	s.held = f
}

func (c *Files) removeLocked(e *list.Element) {
	o := c.recent.Remove(e).(*opened)
	delete(c.entries, o.s)
	c.bytes -= o.bytes
	if o.file != nil {
		c.open--
		o.file.unpin()
	}
}
