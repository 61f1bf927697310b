package fetch

import "time"

const (
	// aheadGets is the most GETs that are under way, or landed and not yet read, ahead of one reader.
	aheadGets = 4
	// restGroups is for how many GETs' worth the window of a reader whose blocks were evicted unread does not grow again. One
	// that has nothing read ahead any more costs a GET for each small read: it rests for one.
	restGroups = 8
)

// window decides how far to read ahead of one sequential reader: what it takes in the time of a GET, and one GET more. It is
// pure: step is told what happened.
type window struct {
	// depth is in GETs. 0, for a reader seen for the first time, reads nothing ahead.
	depth int
	rest  int
	// bytes were taken in the busy time, both fading: what the reader does when it does not wait for us.
	bytes float64
	busy  float64 // seconds
}

// progress is one step of a reader that has gone on where it was.
type progress struct {
	// bytes it was given before, and the time it took until it came back.
	bytes int
	busy  time.Duration
	// entered says that it comes to the next GET's worth, lost that blocks loaded ahead of it are gone.
	entered bool
	lost    bool
	getSize int
	getTime time.Duration
}

func (w *window) step(p progress) {
	const fade = 7.0 / 8
	w.bytes = w.bytes*fade + float64(p.bytes)
	w.busy = w.busy*fade + p.busy.Seconds()
	if p.lost {
		if w.depth, w.rest = w.depth/2, restGroups; w.depth == 0 {
			w.rest = 1
		}
		return
	}
	if w.rest > 0 {
		if p.entered {
			w.rest--
		}
		return
	}
	want := w.want(p)
	switch {
	case w.depth == 0 || want < w.depth:
		w.depth = min(want, 1+w.depth)
	case p.entered:
		w.depth = min(want, 2*w.depth)
	}
}

// want is the depth that hides the time of a GET from the reader, from 1 to aheadGets.
func (w *window) want(p progress) int {
	if taken := w.bytes * p.getTime.Seconds(); taken < w.busy*float64(aheadGets-1)*float64(p.getSize) {
		return 1 + int(taken/w.busy/float64(p.getSize)+0.5)
	}
	return aheadGets
}
