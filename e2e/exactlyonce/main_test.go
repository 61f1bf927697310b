package exactlyonce

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/everlog/everlog/e2e/drivers"
	"github.com/everlog/everlog/e2e/harness"
)

func TestMain(m *testing.M) {
	drivers.Main()
	harness.Main(m)
}

// limit is how long any one step may take, the recovery of all pipelines included.
const limit = 4 * time.Minute

const partitions = 4

// A kind is a kind of pipeline. Each of its processes is started with options for its number.
type kind struct {
	name    string
	client  drivers.Client
	options []string
	check   func(p *pipeline, in, out map[int32][]record) error
}

var kinds = []kind{
	{"franz-go", drivers.Franz, []string{"protocol=classic", "session=6000"}, isCopy},
	{"franz-go-848", drivers.Franz, []string{"protocol=consumer"}, isCopy},
	{"java", drivers.Java, []string{"protocol=classic", "session=6000"}, isCopy},
	{"java-848", drivers.Java, []string{"protocol=consumer"}, isCopy},
	{"streams", drivers.Streams, nil, isCount},
}

func wanted(t *testing.T) []kind {
	t.Helper()
	list := os.Getenv("EVERLOG_E2E_EOS")
	if list == "" {
		list = "franz-go,franz-go-848"
	}
	var out []kind
	for name := range strings.SplitSeq(list, ",") {
		at := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
		if at < 0 {
			t.Fatalf("EVERLOG_E2E_EOS: no such pipeline: %q", name)
		}
		out = append(out, kinds[at])
	}
	return out
}

func duration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("EVERLOG_E2E_EOS_DURATION")
	if text == "" {
		text = "20s"
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("EVERLOG_E2E_EOS_DURATION: %v", err)
	}
	return d
}

func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("EVERLOG_E2E_SEED")
	if text == "" {
		return uint64(time.Now().UnixNano())
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("EVERLOG_E2E_SEED: %v", err)
	}
	return n
}
