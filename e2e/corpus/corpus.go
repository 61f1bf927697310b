// Package corpus is the data set of the end-to-end tests: the text of the Go toolchain's own source tree, cut into records of
// mixed sizes with keys, headers, timestamps and null values, the same for everybody who has the same toolchain. It also owns
// the digest by which two copies of a partition are compared. It knows no broker and no client.
package corpus

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/fnv"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Record is one record as a client sees it. A nil Key or Value is null, which is not the same as empty.
type Record struct {
	Offset    int64
	Timestamp int64 // milliseconds since 1970
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Bytes is the size of key, value and headers.
func (r Record) Bytes() int64 {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// Size says how much of the tree is used.
type Size int

// The sizes: a slice that suits every change (about 40 MB and 150,000 records over all parts), and the whole tree (over 200 MB, over 1 million).
const (
	Slice Size = iota
	Full
)

// sliceOf is the share of the files a Slice takes: one in sliceOf.
const sliceOf = 6

// SizeFromEnv is Full if EVERLOG_E2E_SIZE=full, else Slice.
func SizeFromEnv() Size {
	if os.Getenv("EVERLOG_E2E_SIZE") == "full" {
		return Full
	}
	return Slice
}

// Style is what the producing client is able to send.
type Style int

const (
	// Rich has its own timestamps, null, empty and repeated headers, empty values and keys. Only a library can send it.
	Rich Style = iota
	// Plain is what kcat can send from a stream: the client's own timestamps, the same headers on every record, null where the text is empty.
	Plain
)

// Delimiters that occur in no record, for programs that read records from a stream.
const (
	RecordDelimiter = 0x1e
	KeyDelimiter    = 0x1f
)

// Part is one partition's worth of the data set: every file of the tree is in exactly one of the Parts parts of a style.
type Part struct {
	Style Style
	Size  Size
	Index int // 0 ≤ Index < Parts
	Parts int
}

// FirstTimestamp is that of every Rich part's first record; later ones mostly grow, and now and then step back as real producers' do.
const FirstTimestamp = 1_700_000_000_000

// Headers are the headers of all records of a Plain part.
func (p Part) Headers() []Header {
	return []Header{{"tree", []byte("go")}, {"part", fmt.Append(nil, p.Index, "of", p.Parts)}}
}

// Records yields the part's records in order, with offsets from 0. The slices are the caller's to keep, not to change.
func (p Part) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		rng := rand.New(rand.NewPCG(uint64(p.Style), uint64(p.Index)<<32|uint64(p.Parts)))
		cut := cutter{part: p, rng: rng, at: FirstTimestamp}
		for _, file := range p.files() {
			text, err := os.ReadFile(filepath.Join(root(), file))
			if err != nil {
				panic(fmt.Sprintf("the Go toolchain's tree is not readable: %v", err))
			}
			if bytes.ContainsAny(text, "\x1e\x1f") {
				text = bytes.Map(func(r rune) rune {
					if r == RecordDelimiter || r == KeyDelimiter {
						return '?'
					}
					return r
				}, text)
			}
			if !cut.file(file, text, yield) {
				return
			}
		}
		cut.flush(yield)
	}
}

// Take returns at most n records of the part.
func (p Part) Take(n int) []Record {
	var records []Record
	for r := range p.Records() {
		if len(records) == n {
			break
		}
		records = append(records, r)
	}
	return records
}

func (p Part) files() []string {
	var mine []string
	for _, file := range tree() {
		h := fnv.New32a()
		h.Write([]byte(file))
		sum := h.Sum32()
		if p.Size == Slice && sum>>16%sliceOf != 0 {
			continue
		}
		if int(sum%uint32(p.Parts)) == p.Index {
			mine = append(mine, file)
		}
	}
	return mine
}

// root is GOROOT.
var root = sync.OnceValue(func() string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		panic(fmt.Sprintf("go env GOROOT: %v; the data set is the Go toolchain's own source tree", err))
	}
	return strings.TrimSpace(string(out))
})

// tree lists the text files of the toolchain, sorted.
var tree = sync.OnceValue(func() []string {
	kinds := []string{".go", ".s", ".md", ".txt", ".html", ".golden", ".c", ".h", ".js", ".json"}
	var files []string
	err := filepath.WalkDir(root(), func(path string, entry fs.DirEntry, err error) error {
		switch name, _ := filepath.Rel(root(), path); {
		case err != nil:
			return err
		case entry.IsDir() && (name == "pkg" || name == "bin"):
			return fs.SkipDir
		case entry.Type().IsRegular() && slices.Contains(kinds, filepath.Ext(path)):
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("the Go toolchain's tree is not readable: %v", err))
	}
	slices.SortFunc(files, cmp.Compare[string])
	return files
})
