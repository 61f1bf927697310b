package compaction

import "testing"

// retention.bytes keeps that much of a log whose manifest has pages, also once some entries of the first page are gone.
func TestRetentionBytesWithPages(t *testing.T) {
	b := newBucket(t, 12, nil)
	l, d := b.open(b.store, 5), b.deleter()
	if n := len(l.Manifest().Pages()); n < 3 {
		t.Fatalf("%d pages are too few", n)
	}
	total := func() (bytes, one int64) {
		for s, err := range l.Manifest().All(t.Context(), b.store) {
			if err != nil {
				t.Fatal(err)
			}
			bytes, one = bytes+s.DataSize, s.DataSize
		}
		return bytes, one
	}
	bytes, one := total()
	keep := bytes - one
	for round := range 6 {
		m := l.Manifest()
		live, err := m.LiveDataBytes(t.Context(), b.store)
		if err != nil {
			t.Fatal(err)
		}
		in := RetentionInput{
			Retention: Retention{Ms: Unlimited, Bytes: keep}, LogStart: m.LogStart(), HighWatermark: m.End(),
			RemoteEnd: m.End(), RemoteBytes: live, Local: []LocalSegment{{Base: m.End(), End: m.End(), Active: true}},
		}
		to, err := PlanRetention(in, m.All(t.Context(), b.store))
		if err != nil {
			t.Fatal(err)
		}
		if err := AdvanceLogStart(t.Context(), l, 5, to, d); err != nil {
			t.Fatal(err)
		}
		if left, _ := total(); left != keep {
			t.Fatalf("round %d: %d bytes are left, %d are to be kept", round, left, keep)
		}
	}
}
