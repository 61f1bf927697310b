// Package object owns the object store as everlog sees it: one small interface with preconditions on writes, the sentinel
// errors that every driver answers with, and the two stores that need no server (memory, and a local directory). Decorators
// add retries, a name prefix and measurements; Probe refuses a store whose preconditions cannot be trusted.
//
// It does not know what the objects hold, and it speaks no network protocol: the drivers are tier/s3 and tier/minio.
// Segments, manifests, leases and the metadata log are its callers.
//
// # What a store promises
//
// Every operation on one name is atomic and linearizable: a read that begins after a write was acknowledged sees that
// write or a later one, and a reader sees whole objects only. Nothing is atomic across names. An acknowledged write is on
// stable storage. Listings are in byte order of names; nothing correct may depend on how soon a listing shows a write.
//
// # Unknown outcomes
//
// A write that answers an error may have happened, and may yet happen minutes later: only nil and ErrPrecondition say what
// became of a conditional Put. Whoever needs to know reads the object back and looks for a nonce of its own in the body; a
// read that finds nothing is not final either. Drivers send a conditional Put exactly once, because a driver that repeats
// one whose answer was lost gets "precondition failed" for its own success.
//
// # ABA
//
// A Version may be a hash of the body, as the ETag of S3 and MinIO is. Bodies that are swapped by IfMatch must therefore
// never repeat: each carries a nonce.
//
// # Stores
//
//	s3://bucket/prefix?region=…&endpoint=…&path-style=…   tier/s3; credentials as every AWS tool finds them; the bucket exists
//	minio://key:secret@host:port/bucket/prefix?secure=…   tier/minio; keys from the environment if left out; makes the bucket
//	file:///directory                                     Directory: one plain file an object, shared by the processes of one
//	                                                      machine; as durable as the disk below it; needs a working flock
//	mem://                                                Memory, for tests
//
// Which servers keep the promises is for Probe to find out at the start; one that ignores If-None-Match or If-Match is
// refused. The suite of tier/objecttest passes on MinIO (of February 2026; before October 2025 it had holes) and on
// versitygw 1.8; AWS S3 documents the same.
//
// # Names
//
// A name is 1 to 1024 bytes of UTF-8 in segments of 1 to 255 bytes separated by single slashes; no segment begins with a
// dot, and there are no backslashes and no control characters. A name must not continue another object's name with a slash ("a" and "a/b"): stores that keep objects in
// directories cannot hold both and answer ErrUnsupported.
package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Errors that every store answers with, wrapped with the operation and the name. Compare with errors.Is.
var (
	// ErrNotFound means that no object has this name.
	ErrNotFound = errors.New("object not found")
	// ErrPrecondition means that the condition of a Put was false and nothing was written (HTTP 412, and 404 for IfMatch).
	ErrPrecondition = errors.New("precondition failed")
	// ErrConflict means that another write came in between and nothing was decided (HTTP 409).
	ErrConflict = errors.New("conflicting operation")
	// ErrUnknown means that a write may or may not have happened, or may happen later: timeout, 5xx, broken connection.
	ErrUnknown = errors.New("outcome unknown")
	// ErrThrottled means that the store asks for fewer requests (HTTP 429, 503 SlowDown). For a write, nothing was decided.
	ErrThrottled = errors.New("throttled by the object store")
	// ErrDenied means that the credentials are missing, wrong, or lack a permission.
	ErrDenied = errors.New("access denied by the object store")
	// ErrUnavailable means that a read, a listing or a deletion got no answer, or the store does not work at the moment.
	ErrUnavailable = errors.New("object store unavailable")
	// ErrRange means that a read began at or past the end of the object, or at a negative position.
	ErrRange = errors.New("position outside the object")
	// ErrCorrupt means that the bytes are not those that the checksum was made of.
	ErrCorrupt = errors.New("checksum mismatch")
	// ErrUnsupported means that the store cannot do what was asked, or does it wrongly, now and later.
	ErrUnsupported = errors.New("not supported by the object store")
	// ErrName means that a name is not one of those the package comment allows.
	ErrName = errors.New("invalid object name")
	// ErrTooLarge means that an object is larger than MaxGet and must be read in ranges.
	ErrTooLarge = errors.New("object too large for a whole read")
)

const (
	// MaxGet is the size in bytes of the largest object that Get reads.
	MaxGet = 64 << 20
	// MaxName is the length in bytes of the longest name, MaxSegment that of the longest part between two slashes.
	MaxName, MaxSegment = 1024, 255
	// MaxList is the most entries of one List, and what a limit of 0 means.
	MaxList = 1000
)

// Version is an opaque token of one version of an object (its ETag). Only equality means anything, and only between
// versions of one name. The empty Version is "not known".
type Version string

// Condition guards a Put. The zero Condition is always true.
type Condition struct {
	kind  conditionKind
	match Version
}

type conditionKind uint8

const (
	always conditionKind = iota
	ifAbsent
	ifMatch
)

// IfAbsent is true while no object has the name.
func IfAbsent() Condition { return Condition{kind: ifAbsent} }

// IfMatch is true while the object's version is v. An empty v is refused by Put with ErrUnsupported, because a store would
// take it for "unconditional".
func IfMatch(v Version) Condition { return Condition{kind: ifMatch, match: v} }

// IsZero reports whether the condition is always true.
func (c Condition) IsZero() bool { return c.kind == always }

// Absent reports whether the condition asks that the object be absent.
func (c Condition) Absent() bool { return c.kind == ifAbsent }

// Match returns the version that the condition asks for, and false if it asks for none.
func (c Condition) Match() (Version, bool) { return c.match, c.kind == ifMatch }

// Attributes describe an object without its bytes.
type Attributes struct {
	Name string
	// Size is in bytes.
	Size int64
	// Version may be empty in a listing, never in the answer of Head.
	Version Version
	// Modified is the store's wall clock at the write. It is for people and for coarse ages: no order follows from it.
	Modified time.Time
}

// Body is what a Put writes. It is read more than once (checksum, parts, retries), possibly by several goroutines at once,
// and must not change until Put has returned. *bytes.Reader, *strings.Reader and *io.SectionReader are bodies.
type Body interface {
	io.ReaderAt
	// Size returns the number of bytes from position 0 on.
	Size() int64
}

// Bytes returns p as a Body, without a copy.
func Bytes(p []byte) Body { return memoryBody(p) }

// memoryBody is a Body that stores can write from without a buffer of their own.
type memoryBody []byte

func (b memoryBody) Size() int64 { return int64(len(b)) }

func (b memoryBody) ReadAt(p []byte, position int64) (int, error) {
	return bytes.NewReader(b).ReadAt(p, position)
}

// PutOptions qualify one Put. The zero value is an unconditional write.
type PutOptions struct {
	Condition Condition
	// CRC32C is the Castagnoli checksum of the whole body if the caller knows it, else nil. A body that does not match is
	// refused with ErrCorrupt and leaves no object.
	CRC32C *uint32
	// NoRetry asks Retry for one attempt only. Drivers make one attempt at a conditional Put in any case.
	NoRetry bool
}

// Store is an object store. Every method is safe for concurrent use, waits no longer than its context allows, and answers
// errors that match one of this package's sentinels; where the context ended, they match its error too.
type Store interface {
	// Put writes the whole body under name, or nothing. It is durable when Put returns nil. Any error but ErrPrecondition,
	// ErrName, ErrCorrupt, ErrDenied and ErrUnsupported leaves the outcome unknown.
	Put(ctx context.Context, name string, body Body, o PutOptions) (Version, error)
	// Get reads a whole object of at most MaxGet bytes and its version. The bytes are the caller's. ErrNotFound, ErrTooLarge.
	Get(ctx context.Context, name string) ([]byte, Version, error)
	// ReadAt reads len(p) bytes from position on in one request, straight into p. Fewer bytes come only with io.EOF, where
	// the object ends, or with another error. It answers ErrRange at or past the end, and asks nothing if p is empty.
	ReadAt(ctx context.Context, name string, p []byte, position int64) (int, error)
	// Head returns the attributes of one object. ErrNotFound.
	Head(ctx context.Context, name string) (Attributes, error)
	// Delete removes objects. A name that is absent is no error. On partial failure the error is a *DeleteError.
	Delete(ctx context.Context, names ...string) error
	// List returns the objects whose names begin with prefix (any string) and come after after ("" = from the first), in
	// byte order of names, at most limit of them (1 to MaxList; 0 = MaxList). Fewer than limit means that there are no more.
	List(ctx context.Context, prefix, after string, limit int) ([]Attributes, error)
	// String returns the store's URL without secrets.
	String() string
}

// DeleteError tells which names a Delete could not remove (their outcome is unknown), and the first reason.
type DeleteError struct {
	Names []string
	Err   error
}

func (e *DeleteError) Error() string {
	return fmt.Sprintf("%d objects not deleted, first %s: %v", len(e.Names), e.Names[0], e.Err)
}

// Unwrap returns the first reason.
func (e *DeleteError) Unwrap() error { return e.Err }

// CheckName returns an ErrName that says what is wrong with name, or nil. Every store applies it to the names of Put;
// other operations answer to a bad name as to an absent one or with ErrName.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("%w: %d bytes, must be 1 to %d", ErrName, len(name), MaxName)
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("%w: %q is not UTF-8", ErrName, name)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment[0] == '.' || len(segment) > MaxSegment {
			return fmt.Errorf("%w: %q has a segment that is empty, begins with a dot, or is longer than %d bytes", ErrName, name, MaxSegment)
		}
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }); i >= 0 {
		return fmt.Errorf("%w: %q has a control character or a backslash at byte %d", ErrName, name, i)
	}
	return nil
}

// CheckPut refuses what no store may be asked to put: a bad name, or IfMatch of an empty version.
func CheckPut(name string, o PutOptions) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if v, ok := o.Condition.Match(); ok && v == "" {
		return fmt.Errorf("put %s: IfMatch of an empty version: %w", name, ErrUnsupported)
	}
	return nil
}

// limitOf turns the limit of a List into a number from 1 to MaxList.
func limitOf(limit int) int {
	if limit <= 0 || limit > MaxList {
		return MaxList
	}
	return limit
}
