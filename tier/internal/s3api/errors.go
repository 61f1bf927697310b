// Package s3api owns what the two drivers of the S3 protocol share, whatever SDK they use: which of object's sentinels an
// answer stands for, how a body is cut into parts, what the answer to a ranged GET must look like, and the HTTP transport.
// It sends no requests. tier/s3 and tier/minio are its callers.
package s3api

import (
	"errors"
	"fmt"
	"strings"

	"github.com/everlog/everlog/tier/object"
)

// Op is an operation in the words of errors.
type Op string

// The operations of object.Store.
const (
	Put    Op = "put"
	Get    Op = "get"
	Read   Op = "read"
	Head   Op = "head"
	Delete Op = "delete"
	List   Op = "list"
)

// codes maps S3 error codes to sentinels. A sentinel of nil means "no answer": ErrUnknown for Put, else ErrUnavailable.
var codes = map[string]error{
	"NoSuchKey": object.ErrNotFound, "NotFound": object.ErrNotFound,
	// A bucket that is not there must not look like an object that is not there: an empty manifest would follow.
	"NoSuchBucket": nil, "NoSuchUpload": nil,
	"PreconditionFailed":         object.ErrPrecondition,
	"ConditionalRequestConflict": object.ErrConflict, "OperationAborted": object.ErrConflict,
	"InvalidRange": object.ErrRange,
	"AccessDenied": object.ErrDenied, "AllAccessDisabled": object.ErrDenied, "InvalidAccessKeyId": object.ErrDenied,
	"SignatureDoesNotMatch": object.ErrDenied, "ExpiredToken": object.ErrDenied, "InvalidToken": object.ErrDenied,
	// The clock may be set right, a slow client may become quick, a cut body may come whole the next time.
	"RequestTimeTooSkewed": nil, "RequestTimeout": nil, "IncompleteBody": nil, "UnexpectedEOF": nil,
	"SlowDown": object.ErrThrottled, "SlowDownRead": object.ErrThrottled, "SlowDownWrite": object.ErrThrottled,
	"TooManyRequests": object.ErrThrottled, "RequestLimitExceeded": object.ErrThrottled, "Throttling": object.ErrThrottled,
	"ThrottlingException": object.ErrThrottled, "BandwidthLimitExceeded": object.ErrThrottled,
	"BadDigest": object.ErrCorrupt, "InvalidDigest": object.ErrCorrupt, "XAmzContentChecksumMismatch": object.ErrCorrupt,
	"XAmzContentSHA256Mismatch": object.ErrCorrupt, "ChecksumMismatch": object.ErrCorrupt,
	"ObjectParentIsFile": object.ErrUnsupported, "ExistingObjectIsDirectory": object.ErrUnsupported,
	"ExistingObjectIsFile": object.ErrUnsupported, "XMinioParentIsObject": object.ErrUnsupported,
}

// statuses maps HTTP status codes where the error code says nothing. What is not in it and below 500 is ErrUnsupported:
// the same request will be refused again.
var statuses = map[int]error{
	401: object.ErrDenied, 403: object.ErrDenied, 404: object.ErrNotFound, 408: nil, 409: object.ErrConflict,
	412: object.ErrPrecondition, 416: object.ErrRange, 429: object.ErrThrottled,
}

// Sentinel returns what an answer stands for. status is the HTTP status, 0 if no answer came; code is S3's error code, ""
// if there was none. conditional tells a Put with a condition.
func Sentinel(op Op, conditional bool, status int, code string) error {
	sentinel, known := codes[code]
	if !known {
		sentinel, known = statuses[status]
	}
	if !known && status >= 400 && status < 500 {
		sentinel = object.ErrUnsupported
	}
	if !known && status == 501 {
		sentinel = object.ErrUnsupported
	}
	noAnswer := object.ErrUnavailable
	if op == Put {
		noAnswer = object.ErrUnknown
	}
	switch {
	case sentinel == nil:
		return noAnswer
	case sentinel == object.ErrNotFound && op == Put && conditional:
		return object.ErrPrecondition // IfMatch of an absent name
	case sentinel == object.ErrNotFound && (op == Put || op == List):
		return noAnswer
	case sentinel == object.ErrPrecondition && !(op == Put && conditional), sentinel == object.ErrConflict && op != Put:
		return noAnswer
	}
	return sentinel
}

// Wrap returns err with the operation, the name, and the sentinel that status and code stand for; an err that matches one
// of object's final sentinels already keeps it.
func Wrap(op Op, conditional bool, name string, status int, code string, err error) error {
	for _, ours := range []error{object.ErrCorrupt, object.ErrRange, object.ErrTooLarge, object.ErrUnavailable, object.ErrUnsupported} {
		if errors.Is(err, ours) {
			return fmt.Errorf("%s %s: %w", op, name, err)
		}
	}
	return fmt.Errorf("%s %s: %w: %w", op, name, Sentinel(op, conditional, status, code), err)
}

// Version turns an ETag as it stands in a header or a listing into a version.
func Version(etag string) object.Version { return object.Version(strings.Trim(etag, `"`)) }

// ETag turns a version back into the text of an If-Match header.
func ETag(v object.Version) string { return `"` + string(v) + `"` }
