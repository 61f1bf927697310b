package metadata

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
)

// Names of the objects, below the cluster's prefix. Numbers have 20 digits, so that a listing is in order.
const (
	clusterName    = "cluster.json"
	rootName       = "meta/root"
	logPrefix      = "meta/log/"
	snapshotPrefix = "meta/snapshot/"
)

func logName(version uint64) string { return fmt.Sprintf("%s%020d", logPrefix, version) }

func snapshotName(version uint64, nonce string) string {
	return fmt.Sprintf("%s%020d-%s", snapshotPrefix, version, nonce)
}

// versionOf returns the number in the name of a log or snapshot object.
func versionOf(name string) (uint64, bool) {
	digits, _, _ := strings.Cut(name[strings.LastIndexByte(name, '/')+1:], "-")
	v, err := strconv.ParseUint(digits, 10, 64)
	return v, err == nil && len(digits) == 20
}

// cluster is the body of cluster.json. It is created once, by whoever comes first to an empty prefix, and never changes;
// the log's chain begins at its digest.
type cluster struct {
	Kind    string    `json:"everlog"`
	Format  int       `json:"format"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

// root is the body of meta/root: the boundary below which numbers of the log may be deleted, and the newest snapshot. It
// is swapped by compare-and-swap, never deleted, and only moves forward. Absent means: nothing was ever deleted.
type root struct {
	Kind    string `json:"everlog"`
	Format  int    `json:"format"`
	Cluster string `json:"cluster"`
	// Generation grows by one with every swap; a lower one than seen before shows a bucket restored from a copy.
	Generation uint64 `json:"generation"`
	// FirstRetained is the lowest number of the log that counts. Objects below it are leftovers, whatever they hold.
	FirstRetained uint64 `json:"firstRetained"`
	// Snapshot is the newest, Before the one that it replaced, which readers may still be on their way to.
	Snapshot snapshotRef `json:"snapshot"`
	Before   snapshotRef `json:"before"`
	// Marks remember when versions were reached, about one an hour, oldest first: what decides FirstRetained by age.
	Marks []mark `json:"marks"`
	Nonce string `json:"nonce"`
}

type snapshotRef struct {
	Version uint64 `json:"version"`
	Name    string `json:"name,omitempty"` // "" = there is none
	SHA256  string `json:"sha256,omitempty"`
}

type mark struct {
	Version uint64    `json:"version"`
	Time    time.Time `json:"time"`
}

const crcField = `,"crc32c":"`

// seal writes a small object: one line of JSON whose last field is the CRC-32C of what precedes that field.
func seal(v any) []byte {
	p := appendLine(nil, v)
	p = p[:len(p)-2]
	return fmt.Appendf(p, "%s%08x\"}\n", crcField, crc32.Checksum(p, castagnoli))
}

// unseal checks and reads what seal wrote.
func unseal(p []byte, name string, v any) error {
	at := bytes.LastIndex(p, []byte(crcField))
	if at < 0 || !bytes.Equal(fmt.Appendf(nil, "%s%08x\"}\n", crcField, crc32.Checksum(p[:at], castagnoli)), p[at:]) {
		return fmt.Errorf("%w: %s: checksum mismatch", ErrCorrupt, name)
	}
	if err := json.Unmarshal(p, v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	return nil
}

func decodeCluster(p []byte) (id [16]byte, err error) {
	var c cluster
	if err := unseal(p, clusterName, &c); err != nil {
		return id, err
	}
	if c.Format > formatVersion {
		return id, fmt.Errorf("%w: %s of format %d", ErrVersion, clusterName, c.Format)
	}
	if c.Kind != "cluster" || c.Format < 1 {
		return id, corrupt(clusterName)
	}
	return parseClusterID(c.ID)
}

func decodeRoot(p []byte, clusterID string) (root, error) {
	var r root
	if err := unseal(p, rootName, &r); err != nil {
		return r, err
	}
	switch {
	case r.Format > formatVersion:
		return r, fmt.Errorf("%w: %s of format %d", ErrVersion, rootName, r.Format)
	case r.Kind != "metadata-root" || r.Format < 1 || r.FirstRetained < 1 || r.FirstRetained > r.Snapshot.Version+1:
		return r, corrupt(rootName)
	case r.Cluster != clusterID:
		return r, fmt.Errorf("%w: %s is of %s, not %s", ErrWrongCluster, rootName, r.Cluster, clusterID)
	}
	return r, nil
}

func newNonce() string { return rand.Text() }
