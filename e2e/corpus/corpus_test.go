package corpus

import (
	"bytes"
	"testing"
)

// TestDataSetIsBigAndMixed holds the data set to what it is for.
func TestDataSetIsBigAndMixed(t *testing.T) {
	for _, c := range []struct {
		size           Size
		records, bytes int64
	}{{Slice, 150_000, 35 << 20}, {Full, 1_000_000, 200 << 20}} {
		var total Sum
		var seen struct{ nullKey, nullValue, emptyValue, headers, nullHeader, large, small int }
		for _, style := range []Style{Rich, Plain} {
			for index := range 5 {
				digest := NewDigest()
				for r := range (Part{Style: style, Size: c.size, Index: index, Parts: 5}).Records() {
					digest.Add(r)
					count(&seen.nullKey, r.Key == nil)
					count(&seen.nullValue, r.Value == nil)
					count(&seen.emptyValue, r.Value != nil && len(r.Value) == 0)
					count(&seen.headers, len(r.Headers) > 0)
					count(&seen.large, len(r.Value) > 256<<10)
					count(&seen.small, len(r.Value) < 100)
					for _, h := range r.Headers {
						count(&seen.nullHeader, h.Value == nil)
					}
					if bytes.ContainsAny(r.Value, "\x1e\x1f") || len(r.Value) > largest {
						t.Fatalf("%s: a delimiter in it, or %d bytes", r.Key, len(r.Value))
					}
				}
				sum := digest.Sum()
				total.Records += sum.Records
				total.Bytes += sum.Bytes
			}
		}
		t.Logf("size %d: %d records, %d bytes, %+v", c.size, total.Records, total.Bytes, seen)
		if total.Records < c.records || total.Bytes < c.bytes {
			t.Errorf("size %d: %d records of %d bytes in all, want at least %d of %d", c.size, total.Records, total.Bytes, c.records, c.bytes)
		}
		if seen.nullKey*seen.nullValue*seen.emptyValue*seen.headers*seen.nullHeader*seen.large*seen.small == 0 {
			t.Errorf("size %d: some kind of record is missing: %+v", c.size, seen)
		}
	}
}

func count(n *int, yes bool) {
	if yes {
		*n++
	}
}

// TestSumSeesEveryDifference: a digest that overlooks a field proves nothing.
func TestSumSeesEveryDifference(t *testing.T) {
	base := func() Record {
		return Record{Offset: 3, Timestamp: 5, Key: []byte("k"), Value: []byte("v"), Headers: []Header{{"a", []byte("b")}, {"c", nil}}}
	}
	sum := func(change func(r *Record)) Sum {
		r := base()
		change(&r)
		return SumOf(func(yield func(Record) bool) { yield(r) })
	}
	same := sum(func(*Record) {})
	if same != sum(func(*Record) {}) {
		t.Fatal("equal records, different sums")
	}
	for name, change := range map[string]func(r *Record){
		"offset":             func(r *Record) { r.Offset++ },
		"key":                func(r *Record) { r.Key = []byte("l") },
		"null key":           func(r *Record) { r.Key = nil },
		"null value":         func(r *Record) { r.Value = nil },
		"empty value":        func(r *Record) { r.Value = []byte{} },
		"border":             func(r *Record) { r.Key, r.Value = []byte("kv"), []byte{} },
		"header order":       func(r *Record) { r.Headers[0], r.Headers[1] = r.Headers[1], r.Headers[0] },
		"null header":        func(r *Record) { r.Headers[1].Value = []byte{} },
		"one header fewer":   func(r *Record) { r.Headers = r.Headers[:1] },
		"header into record": func(r *Record) { r.Headers[0].Key = "ab"; r.Headers[0].Value = []byte{} },
	} {
		if got := sum(change); got.Content == same.Content || got.Whole == same.Whole {
			t.Errorf("%s: the sum did not change", name)
		}
	}
	later := sum(func(r *Record) { r.Timestamp++ })
	if later.Content != same.Content || later.Whole == same.Whole || later.Folded == same.Folded {
		t.Error("a timestamp belongs to Whole and Folded and not to Content")
	}
	empty := sum(func(r *Record) { r.Value = []byte{} })
	if null := sum(func(r *Record) { r.Value = nil }); null.Folded != empty.Folded || null.Folded == same.Folded {
		t.Error("Folded must take null for empty, and for nothing else")
	}
}

func TestPartsAreDeterministic(t *testing.T) {
	p := Part{Style: Rich, Size: Slice, Index: 1, Parts: 5}
	if a, b := SumOf(p.Records()), SumOf(p.Records()); a != b || a.Records == 0 {
		t.Errorf("two readings of one part: %v and %v", a, b)
	}
}
