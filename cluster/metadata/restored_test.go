package metadata

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everlog/everlog/tier/object"
)

// A busy controller whose bucket was restored from an older copy without a request failing must find out: all it commits
// from then on is lost.
func TestBusyCommitterNoticesARestoredBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		swap := &swapped{Store: store}
		l := open(t, swap, Options{Writer: "a"})
		elect(t, l)
		fill(t, l, 3)
		old := copyOf(t, store)
		fill(t, l, 3)
		stop := following(t, l)
		time.Sleep(time.Second)
		swap.swap(old)
		acknowledged := 0
		for i := range 120 { // two minutes of them
			if _, err := l.Commit(t.Context(), l.Image(), set("x", fmt.Sprint(i))); err != nil {
				if !errors.Is(err, ErrRestored) {
					t.Error(err)
				}
				break
			}
			acknowledged++
			time.Sleep(time.Second)
		}
		_ = stop()
		if acknowledged > 0 {
			t.Errorf("%d changes were acknowledged into a bucket that lacks the ones before", acknowledged)
		}
	})
}
