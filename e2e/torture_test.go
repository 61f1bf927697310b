package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/e2e/clients"
	"github.com/everlog/everlog/e2e/corpus"
	"github.com/everlog/everlog/e2e/harness"
)

const (
	// mostMemory is what no client may drive the broker over: Kafka's own queue of requests may take more.
	mostMemory     = 700 << 20
	mutants        = 3000
	idleCrowd      = 3000
	answerPatience = 10 * time.Second
)

// TestTorture sends what no client should: the broker may answer with an error or close the connection, and nothing else. After each
// kind of mischief it must live, serve a well-behaved client, and be of a sane size.
func TestTorture(t *testing.T) {
	for name, mischief := range map[string]func(t *testing.T, broker *harness.Broker){
		"lengths":        lengths,
		"half frames":    halfFrames,
		"arrays":         arrayBombs,
		"mutants":        mutantFrames,
		"batches":        batchBombs,
		"crowd":          crowd,
		"never reading":  neverReading,
		"unasked closes": closes,
	} {
		t.Run(name, func(t *testing.T) {
			broker := harness.StartBroker(t, harness.Options{}) // its own, so that its size is this mischief's doing
			if err := newAdmin(t, broker.Addr()).CreateTopic(t.Context(), "victim", 1, nil); err != nil {
				t.Fatal(err)
			}
			mischief(t, broker)
			broker.MustRun()
			served(t, broker)
			if rss := broker.PeakRSS(); rss > mostMemory {
				t.Errorf("the broker has been of %d MiB, at most %d are sane", rss>>20, int64(mostMemory)>>20)
			} else {
				t.Logf("at most %d MiB, now %d MiB", rss>>20, broker.RSS()>>20)
			}
		})
	}
}

// served shows that a well-behaved client gets its due.
func served(t *testing.T, broker *harness.Broker) {
	t.Helper()
	admin := newAdmin(t, broker.Addr())
	records := corpus.Part{Style: corpus.Plain, Size: corpus.Slice, Parts: 50}.Take(200)
	before, err := admin.Offset(t.Context(), "victim", 0, clients.Latest)
	if err != nil {
		t.Fatal(err)
	}
	if err := clients.WriteFranz(t.Context(), clients.Destination{Addr: broker.Addr(), Topic: "victim", Codec: "zstd"}, slices.Values(records)); err != nil {
		t.Fatal(err)
	}
	got, err := clients.Kcat.Sum(t.Context(), clients.Range{Addr: broker.Addr(), Topic: "victim", From: before.Offset, To: before.Offset + int64(len(records))})
	if err != nil {
		t.Fatal(err)
	}
	if want := corpus.SumOf(slices.Values(records)); got.Bytes != want.Bytes {
		t.Errorf("a client reads %v, want %v", got, want)
	}
}

func dial(t *testing.T, broker *harness.Broker) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", broker.Addr(), answerPatience)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// provoke sends bytes and returns what comes back until the broker closes or, if it does not, until there was one frame. An answer
// longer than any honest one, or none at all, is an error.
func provoke(t *testing.T, broker *harness.Broker, sent []byte) ([]byte, error) {
	t.Helper()
	conn := dial(t, broker)
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		t.Fatal(err)
	}
	// The broker may close before all is sent: that is an answer too.
	_, _ = conn.Write(sent)
	_ = conn.(*net.TCPConn).CloseWrite()
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return nil, fmt.Errorf("neither an answer nor a close within %v", answerPatience)
		}
		return nil, nil
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > 16<<20 {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, fmt.Errorf("an answer that ends in the middle: %w", err)
	}
	return answer, nil
}

func frame(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func lengths(t *testing.T, broker *harness.Broker) {
	for _, n := range []uint32{0, 1, 7, 1<<31 - 1, 1 << 31, 1<<32 - 1, 100<<20 + 1, 'G'<<24 | 'E'<<16 | 'T'<<8 | ' ', 0x16030100} {
		sent := append(binary.BigEndian.AppendUint32(nil, n), bytes.Repeat([]byte{0x41}, 64)...)
		if _, err := provoke(t, broker, sent); err != nil {
			t.Errorf("a frame that says %d bytes: %v", n, err)
		}
	}
}

// halfFrames promise the largest frame there may be, on many connections at once, and send a little of it.
func halfFrames(t *testing.T, broker *harness.Broker) {
	const promised, connections = 100 << 20, 500
	header := append(binary.BigEndian.AppendUint32(nil, promised), 0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff)
	for range connections {
		conn := dial(t, broker)
		defer conn.Close()
		if _, err := conn.Write(append(header, make([]byte, 1000)...)); err != nil {
			t.Fatal(err)
		}
	}
	served(t, broker)
}

// requests are one valid frame of each API the broker says it has, at its lowest and highest version.
func requests(t *testing.T, broker *harness.Broker) [][]byte {
	t.Helper()
	client := rawClient(t, broker.Addr())
	response, err := kmsg.NewPtrApiVersionsRequest().RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for _, api := range response.ApiKeys {
		for _, version := range slices.Compact([]int16{api.MinVersion, api.MaxVersion}) {
			request := kmsg.RequestForKey(api.ApiKey)
			if request == nil || request.MaxVersion() < version {
				continue
			}
			if r, ok := request.(interface{ Default() }); ok {
				r.Default()
			}
			request.SetVersion(version)
			var formatter kmsg.RequestFormatter
			all = append(all, formatter.AppendRequest(nil, request, 1))
		}
	}
	if len(all) < 20 {
		t.Fatalf("the broker says that it has %d APIs", len(response.ApiKeys))
	}
	return all
}

func apiVersions() []byte {
	request := kmsg.NewPtrApiVersionsRequest()
	var formatter kmsg.RequestFormatter
	return formatter.AppendRequest(nil, request, 1)
}

// arrayBombs say at every place in every request that the largest array there may be follows.
func arrayBombs(t *testing.T, broker *harness.Broker) {
	huge := [][]byte{{0x7f, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0xff, 0x07}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}}
	for _, request := range requests(t, broker) {
		header := 4 + 8
		for at := header; at <= len(request); at++ {
			for _, length := range huge {
				body := slices.Concat(request[4:at], length, request[at:], bytes.Repeat([]byte{0x7f}, 64))
				if _, err := provoke(t, broker, frame(body)); err != nil {
					t.Fatalf("key %d version %d, %x at %d: %v", binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:]), length, at, err)
				}
			}
		}
	}
}

// mutantFrames flip, cut and repeat bytes of valid requests.
func mutantFrames(t *testing.T, broker *harness.Broker) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	originals := requests(t, broker)
	for range mutants {
		body := slices.Clone(originals[rng.IntN(len(originals))][4:])
		for range 1 + rng.IntN(4) {
			switch at := 4 + rng.IntN(max(1, len(body)-4)); rng.IntN(4) {
			case 0:
				body[at%len(body)] ^= 1 << rng.IntN(8)
			case 1:
				body[at%len(body)] = byte(rng.IntN(256))
			case 2:
				body = body[:max(4, min(at, len(body)))]
			case 3:
				body = slices.Insert(body, min(at, len(body)), body[rng.IntN(len(body)):]...)
			}
		}
		body = body[:min(len(body), 1<<20)]
		if _, err := provoke(t, broker, frame(body)); err != nil {
			t.Fatalf("%x: %v", body, err)
		}
	}
}

// batchBombs are small batches whose payload unpacks to gigabytes, many at a time.
func batchBombs(t *testing.T, broker *harness.Broker) {
	const unpacked = 1 << 30
	for codec, compress := range map[int16]func(w io.Writer) io.WriteCloser{
		1: func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		2: func(w io.Writer) io.WriteCloser { return s2.NewWriter(w, s2.WriterSnappyCompat()) },
		3: func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) },
		4: func(w io.Writer) io.WriteCloser {
			encoder, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
			if err != nil {
				t.Fatal(err)
			}
			return encoder
		},
	} {
		var payload bytes.Buffer
		// One record that says it is as long as it is, so that no decoder may stop early for another reason.
		head := append(binary.AppendVarint(nil, unpacked-16), 0, 0, 0, 1)
		head = binary.AppendVarint(head, unpacked-64)
		packed := compress(&payload)
		zeros := make([]byte, 1<<20)
		_, err := packed.Write(head)
		for written := 0; written < unpacked && err == nil && payload.Len() < 900<<10; written += len(zeros) {
			_, err = packed.Write(zeros)
		}
		if err := errors.Join(err, packed.Close()); err != nil {
			t.Fatal(err)
		}
		sent := produceFrame(batchOf(codec, 1, payload.Bytes()))
		for range 4 {
			if _, err := provoke(t, broker, sent); err != nil {
				t.Errorf("codec %d, %d bytes that unpack to %d: %v", codec, payload.Len(), unpacked, err)
			}
		}
	}
	manyRecords := batchOf(0, 1<<31-1, []byte{0})
	if _, err := provoke(t, broker, produceFrame(manyRecords)); err != nil {
		t.Errorf("a batch that says it has 2^31-1 records: %v", err)
	}
}

// batchOf is a record batch with a right checksum around any payload.
func batchOf(codec int16, count int32, payload []byte) []byte {
	b := make([]byte, 61, 61+len(payload))
	binary.BigEndian.PutUint32(b[8:], uint32(49+len(payload)))
	b[16] = 2
	binary.BigEndian.PutUint16(b[21:], uint16(codec))
	binary.BigEndian.PutUint32(b[23:], uint32(count-1))
	now := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint64(b[27:], now)
	binary.BigEndian.PutUint64(b[35:], now)
	for i := 43; i < 57; i++ {
		b[i] = 0xff // no producer
	}
	binary.BigEndian.PutUint32(b[57:], uint32(count))
	b = append(b, payload...)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func produceFrame(batch []byte) []byte {
	request := kmsg.NewPtrProduceRequest()
	request.SetVersion(9)
	request.Acks, request.TimeoutMillis = -1, 5000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "victim"
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = batch
	topic.Partitions = append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	var formatter kmsg.RequestFormatter
	return formatter.AppendRequest(nil, request, 1)
}

// crowd opens thousands of connections, each with one small request, and keeps them.
func crowd(t *testing.T, broker *harness.Broker) {
	request := apiVersions()
	for range idleCrowd {
		conn := dial(t, broker)
		defer conn.Close()
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
	}
	served(t, broker)
}

// neverReading asks for all there is, again and again, and reads none of it.
func neverReading(t *testing.T, broker *harness.Broker) {
	const connections, asked = 20, 2000
	part := corpus.Part{Style: corpus.Rich, Size: corpus.Slice, Parts: 1}
	if err := clients.WriteFranz(t.Context(), clients.Destination{Addr: broker.Addr(), Topic: "victim", Codec: "none"}, part.Records()); err != nil {
		t.Fatal(err)
	}
	request := kmsg.NewPtrFetchRequest()
	request.SetVersion(11)
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes, request.SessionEpoch = 100, 1, 100<<20, -1
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = "victim"
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.PartitionMaxBytes, partition.CurrentLeaderEpoch = 100<<20, -1
	topic.Partitions = append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	var formatter kmsg.RequestFormatter
	sent := formatter.AppendRequest(nil, request, 1)
	for range connections {
		conn := dial(t, broker)
		defer conn.Close()
		for range asked {
			if err := conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			// When the broker reads no more, it has had enough: what it should do.
			if _, err := conn.Write(sent); err != nil {
				break
			}
		}
	}
	served(t, broker)
}

// closes hangs up at every place of a conversation.
func closes(t *testing.T, broker *harness.Broker) {
	rng := rand.New(rand.NewPCG(3, 3))
	all := requests(t, broker)
	for range 500 {
		request := all[rng.IntN(len(all))]
		conn := dial(t, broker)
		if _, err := conn.Write(request[:rng.IntN(len(request)+1)]); err != nil {
			t.Fatal(err)
		}
		if rng.IntN(2) == 0 {
			_ = conn.(*net.TCPConn).SetLinger(0) // a reset, not a farewell
		}
		conn.Close()
	}
}
