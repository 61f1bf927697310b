package exactlyonce

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/everlog/everlog/e2e/drivers"
)

const (
	input     = "in"
	processes = 2 // of each pipeline
)

// A pipeline is a group of processes that read the input and write their output.
type pipeline struct {
	kind
	t      *testing.T
	addr   string
	output string
	dirs   []string
	slots  []*drivers.Driver
	past   []*drivers.Driver // those that were killed or gave up
}

func newPipeline(t *testing.T, k kind, addr string) *pipeline {
	p := &pipeline{kind: k, t: t, addr: addr, output: "out-" + k.name, slots: make([]*drivers.Driver, processes)}
	for i := range p.slots {
		p.dirs = append(p.dirs, t.TempDir())
		p.start(i)
	}
	return p
}

// start starts a process. It has the transactional id of the one before it in its slot, and one of two is a static member.
func (p *pipeline) start(slot int) {
	options := []string{
		"broker=" + p.addr, "topic=" + input, "to=" + p.output, "group=" + p.name, "dir=" + p.dirs[slot], "timeout=20000", "aborts=10",
		fmt.Sprintf("id=%s-%d", p.name, slot), fmt.Sprintf("seed=%d", slot+len(p.past)*processes),
	}
	if slot == 1 && !strings.Contains(p.name, "848") { // who is killed there keeps the place until the session ends
		options = append(options, "instance="+strconv.Itoa(slot))
	}
	if old := p.slots[slot]; old != nil {
		p.past = append(p.past, old)
	}
	p.slots[slot] = p.client.Start(p.t, "transform", slices.Concat(options, p.options)...)
}

// revive starts what has left by itself, as a supervisor does.
func (p *pipeline) revive() {
	for slot, d := range p.slots {
		if !d.Alive() {
			p.start(slot)
		}
	}
}

func (p *pipeline) kill(slot int) {
	if p.slots[slot].Alive() {
		p.slots[slot].Kill()
	}
	p.start(slot)
}

func (p *pipeline) leave() {
	for _, d := range p.slots {
		d.Leave()
	}
}

// summary counts what the processes have reported.
func (p *pipeline) summary() string {
	committed, aborted, notes := 0, 0, 0
	for _, d := range slices.Concat(p.past, p.slots) {
		committed, aborted, notes = committed+d.Count("committed"), aborted+d.Count("aborted"), notes+d.Count("note")
	}
	return fmt.Sprintf("%s: %d processes, %d transactions committed, %d aborted in good order, %d notes", p.name, len(p.past)+len(p.slots), committed, aborted, notes)
}

// isCopy: each partition of the output holds what that of the input does, in its order.
func isCopy(p *pipeline, in, out map[int32][]record) error {
	var errs []error
	for number := range int32(partitions) {
		want, got := values(in[number]), values(out[number])
		for i := range max(len(want), len(got)) {
			if i >= len(want) || i >= len(got) || want[i] != got[i] {
				errs = append(errs, fmt.Errorf("%s-%d: record %d of %d is %v, of %d in the input %v", p.output, number, i, len(got), at(got, i), len(want), at(want, i)))
				break
			}
		}
	}
	return errors.Join(errs...)
}

func at(values []string, i int) string {
	if i < len(values) {
		return strconv.Quote(values[i])
	}
	return "not there"
}

// isCount: the counts of each word are 1, 2, 3, … up to how often the input has it.
func isCount(p *pipeline, in, out map[int32][]record) error {
	want, got := map[string]int{}, map[string]int{}
	for _, records := range in {
		for _, r := range records {
			_, word, _ := strings.Cut(r.value, ":")
			want[word]++
		}
	}
	for number, records := range out {
		for _, r := range records {
			if got[r.key]++; r.value != strconv.Itoa(got[r.key]) {
				return fmt.Errorf("%s-%d: %q is counted as %s where %d is due", p.output, number, r.key, r.value, got[r.key])
			}
		}
	}
	for word, n := range want {
		if got[word] != n {
			return fmt.Errorf("%s: %q is counted up to %d, the input has it %d times", p.output, word, got[word], n)
		}
	}
	return nil
}
