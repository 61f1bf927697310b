package metadata

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/everlog/everlog/tier/record"
)

// Map of an object of the log or of a snapshot (FORMAT.md): lines of JSON, each ended by a newline.
//
//	header   one line, see header
//	records  header.Records lines, each {"type":…,"v":…,fields}
//	trailer  {"crc32c":"<8 hex digits>"}: CRC-32C of all bytes before this line
const (
	// formatVersion is that of the envelope; each type of record has its own.
	formatVersion = 1
	kindLog       = "metadata-log"
	kindSnapshot  = "metadata-snapshot"
	// maxObject bounds an object in bytes. A reader needs it whole in memory, and object.Store reads no more at once.
	maxObject = 32 << 20
)

// header is the first line of an object.
type header struct {
	Kind   string `json:"everlog"`
	Format int    `json:"format"`
	// Cluster is the id in Kafka's 22 characters.
	Cluster string `json:"cluster"`
	Version uint64 `json:"version"`
	// Epoch and Writer are the controller's; in a snapshot the image's.
	Epoch  int64  `json:"epoch"`
	Writer string `json:"writer,omitempty"`
	// Commit is unique to each attempt to commit, so that a writer recognises its own object, and so that no two bodies
	// are equal.
	Commit string `json:"commit"`
	// Previous is the SHA-256 of the object before, in hex: of cluster.json for version 1. In a snapshot it is the SHA-256
	// of the log object of Version, so that the chain goes on from there.
	Previous string `json:"previous"`
	// Time is the writer's wall clock, for people, and for how long old objects are kept.
	Time    time.Time `json:"time"`
	Records int       `json:"records"`
	// NextProducerID is only in snapshots.
	NextProducerID record.ProducerID `json:"nextProducerID,omitempty"`
}

type trailer struct {
	CRC string `json:"crc32c"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(p []byte) digest       { return sha256.Sum256(p) }
func (d digest) String() string { return hex.EncodeToString(d[:]) }
func corrupt(why string) error  { return fmt.Errorf("%w: %s", ErrCorrupt, why) }
func appendCRC(dst, p []byte) []byte {
	return appendLine(dst, trailer{fmt.Sprintf("%08x", crc32.Checksum(p, castagnoli))})
}
func parseDigest(s string) (d digest, err error) {
	if n, err := hex.Decode(d[:], []byte(s)); err != nil || n != len(d) || len(s) != 2*len(d) {
		return d, corrupt("digest " + s)
	}
	return d, nil
}

func appendLine(p []byte, v any) []byte {
	line, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("metadata line: %v", err)) // plain structs of strings and numbers
	}
	return append(append(p, line...), '\n')
}

// appendRecord writes a record's line: its fields after type and version.
func appendRecord(p []byte, r Record) []byte {
	name, version := r.kind()
	at := len(p)
	p = fmt.Appendf(p, `{"type":%q,"v":%d,`, name, version)
	open := len(p)
	p = appendLine(p, r)
	if bytes.Equal(p[open:], []byte("{}\n")) {
		return append(p[:at], fmt.Sprintf("{\"type\":%q,\"v\":%d}\n", name, version)...)
	}
	return slices.Delete(p, open, open+1) // the record's own brace
}

func encode(h header, records []Record) []byte {
	h.Format, h.Records = formatVersion, len(records)
	p := appendLine(nil, h)
	for _, r := range records {
		p = appendRecord(p, r)
	}
	return appendCRC(p, p)
}

// factories make an empty record of each known type. The last two occur only in snapshots.
var factories = map[string]func() Record{
	"controller-elected":     func() Record { return &ControllerElected{} },
	"broker-registered":      func() Record { return &BrokerRegistered{} },
	"topic-created":          func() Record { return &TopicCreated{} },
	"topic-deleted":          func() Record { return &TopicDeleted{} },
	"partitions-added":       func() Record { return &PartitionsAdded{} },
	"partition-changed":      func() Record { return &PartitionChanged{} },
	"topic-configured":       func() Record { return &TopicConfigured{} },
	"broker-configured":      func() Record { return &BrokerConfigured{} },
	"producer-ids-allocated": func() Record { return &ProducerIDsAllocated{} },
	"value-set":              func() Record { return &ValueSet{} },
	"broker":                 func() Record { return &brokerState{} },
	"topic":                  func() Record { return &topicState{} },
}

// frame checks an object's trailer and returns where it begins.
func frame(p []byte) (end int, err error) {
	if len(p) == 0 || p[len(p)-1] != '\n' {
		return 0, corrupt("it does not end with a line")
	}
	end = bytes.LastIndexByte(p[:len(p)-1], '\n') + 1
	if want := appendCRC(nil, p[:end]); !bytes.Equal(want, p[end:]) {
		return 0, corrupt("checksum mismatch")
	}
	return end, nil
}

// decode checks an object's frame and reads it. It does not know whether the object fits any image.
func decode(p []byte, kind string) (h header, records []Record, err error) {
	end, err := frame(p)
	if err != nil {
		return h, nil, err
	}
	first, rest, _ := bytes.Cut(p[:end], []byte("\n"))
	if err := json.Unmarshal(first, &h); err != nil {
		return h, nil, corrupt("header: " + err.Error())
	}
	switch {
	case h.Format > formatVersion:
		return h, nil, fmt.Errorf("%w: format %d", ErrVersion, h.Format)
	case h.Format < 1 || h.Kind != kind || h.Commit == "":
		return h, nil, corrupt(fmt.Sprintf("a %q of format %d", h.Kind, h.Format))
	case h.Records != bytes.Count(rest, []byte("\n")):
		return h, nil, corrupt(fmt.Sprintf("%d records in %d lines", h.Records, bytes.Count(rest, []byte("\n"))))
	}
	for line := range bytes.Lines(rest) {
		r, err := decodeRecord(line)
		if err != nil {
			return h, nil, err
		}
		records = append(records, r)
	}
	return h, records, nil
}

func decodeRecord(line []byte) (Record, error) {
	var head struct {
		Type    string `json:"type"`
		Version int    `json:"v"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return nil, corrupt("record: " + err.Error())
	}
	make := factories[head.Type]
	if make == nil {
		return nil, fmt.Errorf("%w: record type %q", ErrVersion, head.Type)
	}
	r := make()
	if _, known := r.kind(); head.Version > known {
		return nil, fmt.Errorf("%w: record %q version %d", ErrVersion, head.Type, head.Version)
	}
	if head.Version < 1 {
		return nil, corrupt(fmt.Sprintf("record %q version %d", head.Type, head.Version))
	}
	if err := json.Unmarshal(line, r); err != nil {
		return nil, corrupt("record " + head.Type + ": " + err.Error())
	}
	return r, nil
}

// apply returns the image after one log object, which must be the next and name the one before. An object of a controller
// that was already deposed when its slot was taken is void: it keeps its number and its place in the chain, and changes
// nothing. That is what fences: not that a deposed controller stops, but that nobody believes it.
func (d *draft) applyObject(p []byte) error {
	h, records, err := decode(p, kindLog)
	if err != nil {
		return err
	}
	img := d.img
	switch {
	case h.Cluster != img.ClusterIDString():
		return fmt.Errorf("%w: %s, not %s", ErrWrongCluster, h.Cluster, img.ClusterIDString())
	case h.Version != img.Version+1:
		return corrupt(fmt.Sprintf("version %d after %d", h.Version, img.Version))
	case h.Previous != img.last.String():
		return fmt.Errorf("%w: version %d follows %.12s…, here version %d is %.12s…", ErrRestored, h.Version, h.Previous, img.Version, img.last)
	}
	img.Version, img.last = h.Version, sum(p)
	if !entitled(h, records, img.Controller) {
		return nil
	}
	if err := d.applyAll(records); err != nil {
		return fmt.Errorf("%w: version %d: %w", ErrCorrupt, h.Version, err)
	}
	return nil
}

func (d *draft) applyAll(records []Record) error {
	for _, r := range records {
		if err := r.apply(d); err != nil {
			return err
		}
	}
	return nil
}

// entitled reports whether an object's writer is the controller, or becomes it by the object's first record.
func entitled(h header, records []Record, c Controller) bool {
	if h.Epoch == c.Epoch && h.Writer == c.Writer && c.Writer != "" {
		return true
	}
	if len(records) == 0 || h.Epoch <= c.Epoch {
		return false
	}
	e, ok := records[0].(*ControllerElected)
	return ok && e.Epoch == h.Epoch && e.Writer == h.Writer
}
