// Package clients produces and consumes the records of package corpus with client libraries as they are shipped: franz-go,
// librdkafka (as the program kcat), sarama and kafka-go. It knows nothing of brokers beyond their address. Its callers are the
// tests of e2e.
package clients

import (
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/everlog/everlog/e2e/corpus"
)

// Codecs are the names of all codecs, as topics' compression.type and kcat know them.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// Range is the records [From, To) of one partition.
type Range struct {
	Addr      string
	Topic     string
	Partition int32
	From, To  int64
}

func (r Range) String() string {
	return fmt.Sprintf("%s-%d [%d, %d)", r.Topic, r.Partition, r.From, r.To)
}

// Reader is one way to consume.
type Reader struct {
	Name  string
	Folds bool // it returns null as empty, or empty as null
	// Read calls fn for every record of the range, in order, and returns when the last was seen or ctx ends. The record's slices are fn's to keep.
	Read func(ctx context.Context, r Range, fn func(corpus.Record)) error
}

// The clients that consume.
var (
	Franz   = Reader{"franz-go", false, readFranz}
	Kcat    = Reader{"kcat", false, readKcat}
	Sarama  = Reader{"sarama", false, readSarama}
	KafkaGo = Reader{"kafka-go", true, readKafkaGo}
	Readers = []Reader{Franz, Kcat, Sarama, KafkaGo}
)

// Sum reads the range and returns what it holds. Records out of order, outside the range or missing are an error.
func (c Reader) Sum(ctx context.Context, r Range) (corpus.Sum, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	digest := corpus.NewDigest()
	next := r.From
	var wrong error
	err := c.Read(ctx, r, func(record corpus.Record) {
		if wrong == nil && record.Offset != next {
			wrong = fmt.Errorf("%s: offset %d came where %d was due", r, record.Offset, next)
		}
		next = record.Offset + 1
		digest.Add(record)
	})
	switch {
	case err != nil:
		return corpus.Sum{}, fmt.Errorf("%s reads %s, had come to %d: %w", c.Name, r, next, err)
	case wrong != nil:
		return corpus.Sum{}, fmt.Errorf("%s reads %w", c.Name, wrong)
	case next != r.To:
		return corpus.Sum{}, fmt.Errorf("%s reads %s, and ends at %d: %w", c.Name, r, next, io.ErrUnexpectedEOF)
	}
	return digest.Sum(), nil
}

// Equal reports whether what the client read is what was expected, as far as it can tell.
func (c Reader) Equal(got, want corpus.Sum) bool {
	if c.Folds {
		got.Content, got.Whole = want.Content, want.Whole
	}
	return got == want
}

// Writer is one way to produce.
type Writer struct {
	Name  string
	Style corpus.Style // what records it can send
	// Write sends the records of one partition in order and returns when all are acknowledged.
	Write func(ctx context.Context, to Destination, records iter.Seq[corpus.Record]) error
}

// Destination is where records go, and how.
type Destination struct {
	Addr      string
	Topic     string
	Partition int32
	Codec     string
	Headers   []corpus.Header // of every record: the only ones kcat can send
}

// Writers are the clients that produce the data set.
var Writers = []Writer{{"franz", corpus.Rich, WriteFranz}, {"kcat", corpus.Plain, WriteKcat}}

// readLimit bounds the reading of one range.
const readLimit = 5 * time.Minute

// patience is how long kcat keeps trying while a broker is down: longer than any test.
const patience = 30 * time.Minute
