package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/everlog/everlog/"

// A layer is one package, or a tree of them when its name ends in "/...", with the trees of ours it may import. Within one
// tree the order of tiers in its list is the order of imports: a package may import what has a lower rank, or its own rank.
type layer struct {
	name   string
	rank   int
	may    []string
	reason string
}

const (
	cmdReason         = "cmd wires everything together; within it node is importable by simulations and so must not know the command line"
	ingestReason      = "ingest is the write path and the protocol: it knows cluster, tier and, to run it, compaction (ingest/DESIGN.md), and is handed the cache by cmd/node"
	clusterReason     = "cluster decides who serves what; it keeps its own records through tier and must run without a broker"
	coordinatorReason = clusterReason + "; groups and transactions are pure state machines over cluster/coordinator, and know nothing else of the cluster"
	tierReason        = "tier is the foundation, usable from a tool that reads the bucket alone: nothing above it may leak in"
	cacheReason       = "the cache is a decorator of the object store: it must not know segments, manifests or brokers"
	compactReason     = "compaction rewrites sealed segments: it must be able to run as a process of its own, beside no broker"
	deployReason      = "deploy holds charts and images, no Go"
	e2eReason         = "e2e may use anything, and nothing may use e2e"
)

// layers is the table of DESIGN.md §4. A new package needs a line in both.
var layers = []layer{
	{"tier/record", 0, []string{"tier"}, tierReason},
	{"tier/vfs", 0, []string{"tier"}, tierReason},
	{"tier/object", 0, []string{"tier"}, tierReason},
	{"tier/segment", 1, []string{"tier"}, tierReason},
	{"tier/internal/s3api", 0, []string{"tier"}, tierReason},
	{"tier/s3", 1, []string{"tier"}, tierReason},
	{"tier/minio", 1, []string{"tier"}, tierReason},
	{"tier/objecttest", 1, []string{"tier"}, tierReason},
	{"tier/manifest", 2, []string{"tier"}, tierReason},
	{"tier/ship", 3, []string{"tier"}, tierReason},
	{"tier/fetch", 3, []string{"tier"}, tierReason},

	{"cache", 0, []string{"tier/object", "tier/vfs"}, cacheReason},

	{"compaction", 0, []string{"tier"}, compactReason},

	{"cluster/config", 0, []string{"tier", "cluster"}, clusterReason},
	{"cluster/quota", 0, []string{"tier", "cluster"}, clusterReason},
	{"cluster/membership", 0, []string{"tier", "cluster"}, clusterReason},
	{"cluster/lease", 0, []string{"tier", "cluster"}, clusterReason},
	{"cluster/metadata", 1, []string{"tier", "cluster"}, clusterReason},
	{"cluster/controller", 2, []string{"tier", "cluster"}, clusterReason},
	{"cluster/coordinator", 0, []string{"tier"}, coordinatorReason},
	{"cluster/group/assign", 0, nil, coordinatorReason},
	{"cluster/group/consumer", 1, []string{"tier", "cluster/coordinator", "cluster/group"}, coordinatorReason},
	{"cluster/group", 2, []string{"tier", "cluster/coordinator", "cluster/group"}, coordinatorReason},
	{"cluster/txn", 1, []string{"tier", "cluster/coordinator"}, coordinatorReason},

	{"ingest/budget", 0, []string{"tier", "cluster", "ingest"}, ingestReason},
	{"ingest/localstate", 0, []string{"tier", "cluster", "ingest"}, ingestReason},
	{"ingest/hotlog", 1, []string{"tier", "cluster", "ingest"}, ingestReason},
	{"ingest/producer", 1, []string{"tier", "cluster", "ingest"}, ingestReason},
	{"ingest/replication", 1, []string{"tier", "cluster", "ingest"}, ingestReason},
	{"ingest/partition", 2, []string{"tier", "compaction", "cluster", "ingest"}, ingestReason},
	{"ingest/broker", 3, []string{"tier", "compaction", "cluster", "ingest"}, ingestReason},
	{"ingest/coordinators", 4, []string{"tier", "cluster", "ingest"}, ingestReason},
	{"ingest/kafka", 5, []string{"tier", "cluster", "ingest"}, ingestReason},

	{"cmd/node", 0, []string{"cmd", "ingest", "cluster", "cache", "compaction", "tier"}, cmdReason},
	{"cmd/everlog/...", 1, []string{"cmd", "ingest", "cluster", "cache", "compaction", "tier"}, cmdReason},

	{"e2e/...", 0, []string{"cmd", "ingest", "cluster", "cache", "compaction", "tier", "e2e"}, e2eReason},
}

// A guest is a module or package that only some places may import.
type guest struct {
	prefix string
	hosts  []string
	reason string
}

var guests = []guest{
	{"github.com/aws/", []string{"tier/s3", "e2e"}, "each SDK has one importer, the driver, so that its errors and types stay out of the tier"},
	{"github.com/minio/minio-go", []string{"tier/minio", "e2e"}, "each SDK has one importer, the driver, so that its errors and types stay out of the tier"},
	{"github.com/minio/minio/", nil, "MinIO is AGPL: it is started as a test peer and never imported"},
	{"github.com/cockroachdb/pebble", []string{"ingest/localstate"}, "one Pebble store a broker, with one owner"},
	{"github.com/hashicorp/serf", []string{"cluster/membership"}, "serf events cause checks and never state changes: only membership may see them"},
	{"github.com/spf13/cobra", []string{"cmd/everlog"}, "the command line ends in cmd/everlog"},
	{"github.com/vbauerster/mpb", []string{"cmd/everlog"}, "the command line ends in cmd/everlog"},
	{"github.com/goccy/go-yaml", []string{"cmd/everlog"}, "files of configuration are read in cmd/everlog"},
	{"github.com/twmb/franz-go/pkg/kerr", []string{"ingest/kafka", "ingest/replication", "cluster/group", "cluster/txn", "cmd/everlog", "e2e"}, "domain errors become Kafka error codes in ingest/kafka, in one table; the answers of coordinators are the protocol's own"},
	{"github.com/twmb/franz-go/pkg/kgo", []string{"ingest/replication", "cmd/everlog", "e2e"}, "kgo is a client: brokers speak the protocol through kmsg"},
	{"github.com/twmb/franz-go/pkg/kadm", []string{"cmd/everlog", "e2e"}, "kadm is a client: brokers speak the protocol through kmsg"},
	{"github.com/twmb/franz-go/pkg/kmsg", []string{"ingest/kafka", "ingest/replication", "cluster/group", "cluster/txn", "cmd", "e2e"}, "the messages of the protocol end where the protocol ends"},
	{"github.com/IBM/sarama", []string{"e2e"}, "a test client"},
	{"github.com/segmentio/kafka-go", []string{"e2e"}, "a test client"},
	{"github.com/prometheus/client_golang", []string{"cmd", "ingest/broker", "ingest/kafka", "e2e"}, "packages report through small interfaces; metrics are wired at the top"},
	{"testing", []string{"tier/objecttest", "e2e"}, "package testing in a production package puts its flags into the binary"},
	{"net/http/pprof", []string{"cmd"}, "pprof registers itself on import: only the binary may decide to serve it"},
}

type pkg struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// TestLayers holds the imports of the whole module against DESIGN.md §4.
func TestLayers(t *testing.T) {
	packages := listPackages(t)
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module)
		from, ok := findLayer(name)
		if !ok {
			t.Errorf("%s is not in the table of layers: give it a line in DESIGN.md §4 and in e2e/layers_test.go", name)
			continue
		}
		for _, path := range p.Imports {
			checkImport(t, from, name, path)
			checkGuest(t, name, path)
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if path == module+"tier/objecttest" || path == p.ImportPath {
				continue
			}
			checkImport(t, from, "a test of "+name, path)
		}
	}
}

// TestLayersCatchViolations is the test of the test: each of these imports must be refused.
func TestLayersCatchViolations(t *testing.T) {
	for _, bad := range [][2]string{
		{"tier/record", "tier/segment"}, {"tier/object", "cache"}, {"tier/manifest", "tier/ship"}, {"tier/fetch", "ingest/partition"},
		{"cache", "tier/segment"}, {"cluster/metadata", "cluster/controller"}, {"cluster/group", "cluster/metadata"}, {"cluster/lease", "ingest/broker"},
		{"ingest/hotlog", "ingest/partition"}, {"ingest/kafka", "cache"}, {"ingest/kafka", "compaction"}, {"ingest/broker", "cache"}, {"compaction", "cache"},
		{"cmd/node", "cmd/everlog"}, {"cmd/everlog", "e2e/harness"},
	} {
		from, _ := findLayer(bad[0])
		if refusal(from, module+bad[1]) == "" {
			t.Errorf("%s may import %s, which DESIGN.md §4 forbids", bad[0], bad[1])
		}
	}
	for _, bad := range [][2]string{{"ingest/partition", "github.com/twmb/franz-go/pkg/kerr"}, {"tier/manifest", "github.com/aws/aws-sdk-go-v2/aws"}, {"ingest/hotlog", "testing"}} {
		if guestRefusal(bad[0], bad[1]) == "" {
			t.Errorf("%s may import %s, which is forbidden", bad[0], bad[1])
		}
	}
}

func findLayer(name string) (layer, bool) {
	for _, l := range layers {
		if tree, ok := strings.CutSuffix(l.name, "/..."); l.name == name || ok && within(name, tree) {
			return l, true
		}
	}
	return layer{}, false
}

func within(name, tree string) bool { return name == tree || strings.HasPrefix(name, tree+"/") }

// refusal says why the layer must not import the path, or "".
func refusal(from layer, imported string) string {
	name, ours := strings.CutPrefix(imported, module)
	if !ours {
		return ""
	}
	if !slices.ContainsFunc(from.may, func(tree string) bool { return within(name, tree) }) {
		return from.reason
	}
	to, ok := findLayer(name)
	if !ok {
		return "it is not in the table of layers"
	}
	if parent(to) == parent(from) && to.rank > from.rank {
		return "imports run one way: " + name + " stands above " + from.name
	}
	return ""
}

func parent(l layer) string { return path.Dir(strings.TrimSuffix(l.name, "/...")) }

func checkImport(t *testing.T, from layer, who, imported string) {
	t.Helper()
	if reason := refusal(from, imported); reason != "" {
		t.Errorf("%s imports %s: %s", who, strings.TrimPrefix(imported, module), reason)
	}
}

func guestRefusal(name, imported string) string {
	for _, g := range guests {
		if imported != g.prefix && !strings.HasPrefix(imported, strings.TrimSuffix(g.prefix, "/")+"/") {
			continue
		}
		if !slices.ContainsFunc(g.hosts, func(tree string) bool { return within(name, tree) }) {
			return g.reason
		}
	}
	return ""
}

func checkGuest(t *testing.T, name, imported string) {
	t.Helper()
	if reason := guestRefusal(name, imported); reason != "" {
		t.Errorf("%s imports %s: %s", name, imported, reason)
	}
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -e ./...: %v\n%s", err, stderr.Bytes())
	}
	var packages []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("go list ./...: %v", err)
		}
		packages = append(packages, p)
	}
}
