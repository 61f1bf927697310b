package coordinators

import "testing"

// The partitions are those of Kafka 4.3.1 (Utils.abs of Java's hash), or tools look in the wrong place.
func TestPartitionFor(t *testing.T) {
	for id, want := range map[string]int32{
		"consumer-0":         7,  // its hash is negative
		"a":                  47, // 97
		"polygenelubricants": 0,  // the least integer, which has no absolute value
		"":                   0,
	} {
		if got := PartitionFor(id, 50); got != want {
			t.Errorf("%q is in partition %d, want %d", id, got, want)
		}
	}
}
