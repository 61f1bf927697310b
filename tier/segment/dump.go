package segment

import (
	"bufio"
	"fmt"
	"io"
	"time"
)

// Dump prints a footer for people, one line a fact, a block, an epoch and a transaction.
func (f *Footer) Dump(w io.Writer) {
	b := bufio.NewWriter(w)
	defer b.Flush()
	fmt.Fprintf(b, "segment     [%d, %d) of partition %d of topic %s, cluster %x\n", f.Base, f.End, f.Identity.Partition, f.Identity.Topic, f.Identity.Cluster)
	fmt.Fprintf(b, "created     in leader epoch %d, sparse %t\n", f.CreatedEpoch, f.Sparse)
	fmt.Fprintf(b, "data        %d records, %d bytes raw, %d stored, in %d blocks\n", f.Records, f.DataSize, f.DataEnd()-HeaderSize, len(f.Blocks))
	fmt.Fprintf(b, "timestamps  %s to %s, latest in the batch at %d\n", timestamp(f.MinTimestamp), timestamp(f.MaxTimestamp), f.MaxTimestampOffset)
	fmt.Fprintf(b, "producers   %d bytes\n", len(f.Producers))
	for _, e := range f.Epochs {
		fmt.Fprintf(b, "epoch       %d from %d\n", e.Epoch, e.Start)
	}
	for _, a := range f.Aborted {
		fmt.Fprintf(b, "aborted     producer %d, [%d, %d], last stable offset then %d\n", a.ProducerID, a.First, a.Last, a.LastStable)
	}
	for i, k := range f.Blocks {
		fmt.Fprintf(b, "block %-5d [%d, %d) at %d, %d bytes %s, %d raw, crc %08x, latest %s\n", i, k.First, k.End, k.Position, k.Stored, k.Encoding, k.Raw, k.CRC, timestamp(k.MaxTimestamp))
	}
}

// timestamp prints Kafka milliseconds.
func timestamp(ms int64) string {
	if ms < 0 {
		return "none"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
