package report

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// plainEvery is how often progress is told in lines, where there is no terminal for bars.
const plainEvery = 10 * time.Second

// Progress shows work under way on standard error: bars on a terminal, otherwise a line every ten seconds, or nothing. Safe
// for concurrent use.
type Progress struct {
	out     io.Writer
	bars    *mpb.Progress // nil without a terminal
	stop    chan struct{}
	stopped sync.WaitGroup

	mu    sync.Mutex
	tasks []*Task
}

// Task is one bar: bytes done of bytes to do.
type Task struct {
	label string
	total int64
	done  atomic.Int64
	bar   *mpb.Bar
	began time.Time
}

// ProgressModes are the values of --progress.
var ProgressModes = []string{"auto", "bar", "plain", "off"}

// NewProgress starts showing progress on w in one of ProgressModes. Close ends it.
func NewProgress(w io.Writer, mode string) *Progress {
	p := &Progress{out: w, stop: make(chan struct{})}
	if mode == "auto" || mode == "" {
		mode = "plain"
		if IsTerminal(w) {
			mode = "bar"
		}
	}
	switch mode {
	case "bar":
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(200*time.Millisecond))
	case "plain":
		p.stopped.Go(p.lines)
	}
	return p
}

// Start adds a task of total bytes.
func (p *Progress) Start(label string, total int64) *Task {
	t := &Task{label: label, total: total, began: time.Now()}
	if p.bars != nil {
		t.bar = p.bars.AddBar(total,
			mpb.PrependDecorators(decor.Name(label+" ")),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.AverageSpeed(decor.SizeB1024(0), "  % .1f"), decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 8})))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks = append(p.tasks, t)
	return t
}

// Add counts bytes done.
func (t *Task) Add(n int64) {
	t.done.Add(n)
	if t.bar != nil {
		t.bar.IncrInt64(n)
	}
}

// Finish marks the task complete, whatever it had been expected to hold.
func (t *Task) Finish() {
	if t.bar != nil {
		t.bar.SetTotal(-1, true)
	}
}

// Done is how many bytes have been counted.
func (t *Task) Done() int64 { return t.done.Load() }

func (p *Progress) lines() {
	tick := time.NewTicker(plainEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			p.line()
		}
	}
}

// line prints one summary of all tasks.
func (p *Progress) line() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var done, total int64
	began := time.Now()
	for _, t := range p.tasks {
		done, total = done+t.done.Load(), total+t.total
		if t.began.Before(began) {
			began = t.began
		}
	}
	if len(p.tasks) == 0 {
		return
	}
	rate := float64(done) / max(time.Since(began).Seconds(), 0.001)
	percent, left := 100.0, time.Duration(0)
	if total > 0 {
		percent = min(float64(done)/float64(total)*100, 100)
	}
	if rate > 0 && total > done {
		left = time.Duration(float64(total-done)/rate) * time.Second
	}
	fmt.Fprintf(p.out, "%s of %s (%.0f %%), %s/s, %s left\n", humanize.IBytes(uint64(done)), humanize.IBytes(uint64(total)), percent, humanize.IBytes(uint64(rate)), left)
}

// Close stops the display and waits until it is gone.
func (p *Progress) Close() {
	close(p.stop)
	p.stopped.Wait()
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	for _, t := range p.tasks {
		if !t.bar.Completed() {
			t.bar.Abort(false)
		}
	}
	p.mu.Unlock()
	p.bars.Wait()
}
