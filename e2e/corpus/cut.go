package corpus

import (
	"bytes"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"
)

// largest is the size of the largest value, under Kafka's default limit of a batch (1 MiB and a little) whatever the codec makes of it.
const largest = 900 << 10

// cutter cuts text into records of drawn sizes, over the borders of files.
type cutter struct {
	part  Part
	rng   *rand.Rand
	next  int64 // offset
	at    int64 // timestamp
	value []byte
	want  int    // bytes the value being filled shall have; 0 before the first
	lines int    // or lines, if want is 0
	key   string // place of the value's first line
}

func (c *cutter) file(name string, text []byte, yield func(Record) bool) bool {
	number := 0
	for line := range bytes.Lines(text) {
		number++
		for len(line) > 0 {
			if len(c.value) == 0 {
				c.draw()
				c.key = name + ":" + strconv.Itoa(number)
			}
			piece := line[:min(len(line), largest-len(c.value))]
			line = line[len(piece):]
			c.value = append(c.value, piece...)
			c.lines--
			if full := len(c.value) == largest; full || c.want > 0 && len(c.value) >= c.want || c.want == 0 && c.lines <= 0 {
				if !c.flush(yield) {
					return false
				}
			}
		}
	}
	return true
}

// draw picks the next record's size: most are one line, a few are files and more, so that every path of batches and blocks is walked.
func (c *cutter) draw() {
	c.want, c.lines = 0, 1
	switch n := c.rng.IntN(20000); {
	case n < 18550:
	case n < 19500:
		c.lines = 2 + c.rng.IntN(9)
	case n < 19960:
		c.want = 512 + c.rng.IntN(3584)
	case n < 19998:
		c.want = 4<<10 + c.rng.IntN(60<<10)
	default:
		c.want = 64<<10 + c.rng.IntN(largest-64<<10)
	}
}

func (c *cutter) flush(yield func(Record) bool) bool {
	if len(c.value) == 0 {
		return true
	}
	r := Record{Offset: c.next, Timestamp: c.at, Key: []byte(c.key), Value: c.value}
	c.value = nil
	c.next++
	c.at += int64(c.rng.IntN(20))
	if c.rng.IntN(50) == 0 {
		r.Key = nil
	}
	if c.rng.IntN(50) == 0 {
		r.Value = nil
	}
	if c.part.Style == Plain {
		r.Timestamp = 0
		r.Headers = c.part.Headers()
		if r.Key == nil && r.Value == nil {
			r.Key = []byte(c.key)
		}
		return yield(r)
	}
	switch c.rng.IntN(50) {
	case 0:
		r.Value = []byte{}
	case 1:
		r.Key = []byte{}
	case 2:
		r.Timestamp -= int64(c.rng.IntN(1000))
	}
	r.Headers = c.headers()
	return yield(r)
}

// headers are none for most records, else a few, with null, empty and repeated ones among them. No value holds a comma or a line end: kcat prints headers as text.
func (c *cutter) headers() []Header {
	if c.rng.IntN(10) < 6 {
		return nil
	}
	file, line, _ := strings.Cut(c.key, ":")
	all := []Header{
		{"dir", []byte(path.Dir(file))}, {"line", []byte(line)}, {"kind", []byte(path.Ext(file))},
		{"empty", []byte{}}, {"null", nil}, {"dir", []byte("again")},
	}
	c.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+c.rng.IntN(3)]
}
