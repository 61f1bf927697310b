package segment

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand"
	"testing"

	"github.com/everlog/everlog/tier/record"
)

// resign makes the checksums of a footer right, so that the fuzzer gets past them.
func resign(p []byte) []byte {
	p = bytes.Clone(p)
	if n := len(p); n >= TailSize {
		binary.BigEndian.PutUint32(p[n-TailSize+8:], uint32(n-TailSize))
		binary.BigEndian.PutUint32(p[n-12:], crc32.Checksum(p[:n-12], castagnoli))
		copy(p[n-8:], tailMagic[:])
	}
	return p
}

// What parses must be consistent, and must encode to a footer that parses to the same.
func FuzzParseFooter(f *testing.F) {
	for seed := range int64(4) {
		batches := script(rand.New(rand.NewSource(seed)), 100, int(seed)*20)
		_, footer := write(f, 100, batches, nil, []byte("p"))
		f.Add(footer.Encode())
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		footer, err := ParseFooter(resign(p))
		if err != nil {
			return
		}
		again, err := ParseFooter(footer.Encode())
		if err != nil {
			t.Fatalf("%v\n%+v", err, footer)
		}
		if !bytes.Equal(footer.Encode(), again.Encode()) {
			t.Fatal("encoding is not stable")
		}
		position, end, raw := int64(HeaderSize), footer.Base, int64(0)
		for i, k := range footer.Blocks {
			if k.Position != position || k.First < end || k.End <= k.First || k.End > footer.End || k.Stored <= 0 || k.Raw <= 0 {
				t.Fatalf("block %d: %+v", i, k)
			}
			position, end, raw = position+int64(k.Stored), k.End, raw+int64(k.Raw)
		}
		if raw != footer.DataSize {
			t.Fatalf("%d bytes in blocks, %d in all", raw, footer.DataSize)
		}
		footer.Dump(&bytes.Buffer{})
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(appendHeader(nil, testID, 42, 7))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) >= HeaderSize {
			binary.BigEndian.PutUint32(p[HeaderSize-4:], crc32.Checksum(p[:HeaderSize-4], castagnoli))
		}
		id, base, epoch, err := ReadHeader(bytes.NewReader(p))
		if err == nil && !bytes.Equal(appendHeader(nil, id, base, epoch), p[:HeaderSize]) {
			t.Fatalf("header %x decodes to %v %d %d, which encodes otherwise", p[:HeaderSize], id, base, epoch)
		}
	})
}

// Damaged frames under a right checksum must neither crash nor yield a block of another size.
func FuzzDecodeBlock(f *testing.F) {
	frame := encoder().EncodeAll(bytes.Repeat([]byte("abcdefgh"), 1000), nil)
	f.Add(frame, int32(8000), uint8(Zstd))
	f.Add([]byte("raw"), int32(3), uint8(Raw))
	f.Fuzz(func(t *testing.T, stored []byte, raw int32, encoding uint8) {
		if raw > 1<<20 {
			return
		}
		k := Block{Stored: int32(len(stored)), Raw: raw, Encoding: Encoding(encoding), CRC: crc32.Checksum(stored, castagnoli)}
		p, err := DecodeBlock(nil, stored, k)
		if err == nil && k.Encoding == Zstd && (len(p) != int(raw) || cap(p) > int(raw)) {
			t.Fatalf("%d bytes (%d allocated) of a block of %d", len(p), cap(p), raw)
		}
	})
}

// A random segment, recoded with a random cut and decoded, is what was written.
func FuzzRecode(f *testing.F) {
	f.Add(int64(1), uint8(30), uint8(0), uint8(30), true)
	f.Add(int64(2), uint8(9), uint8(4), uint8(2), false)
	f.Fuzz(func(t *testing.T, seed int64, n, from, count uint8, compress bool) {
		batches := script(rand.New(rand.NewSource(seed)), 50, 1+int(n)%40)
		raw, footer := write(t, 50, batches, nil, nil)
		first := int(from) % len(batches)
		last := first + 1 + int(count)%(len(batches)-first)
		o := RecodeOptions{From: batches[first].BaseOffset(), To: batches[last-1].NextOffset(), MinSaving: 1}
		if compress {
			o.MinSaving = 0.01
		}
		var w bytes.Buffer
		if _, _, _, err := Recode(&w, bytes.NewReader(raw), footer, o); err != nil {
			t.Fatal(err)
		}
		got, err := ReadFooter(bytes.NewReader(w.Bytes()), int64(w.Len()))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(decode(t, w.Bytes(), got), bytes.Join(asBytes(batches[first:last]), nil)) {
			t.Fatal("bytes differ")
		}
		var again bytes.Buffer
		if _, _, _, err := Recode(&again, bytes.NewReader(w.Bytes()), got, RecodeOptions{MinSaving: 1}); err != nil {
			t.Fatal(err)
		}
		_, want := write(t, o.From, batches[first:last], nil, nil)
		if back, err := ReadFooter(bytes.NewReader(again.Bytes()), int64(again.Len())); err != nil || back.DataSize != want.DataSize {
			t.Fatalf("an object recoded raw: %v", err)
		}
	})
}

// Find must agree with a scan over any table.
func FuzzFind(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 0, 9}, int64(5))
	f.Fuzz(func(t *testing.T, steps []byte, o int64) {
		footer := &Footer{}
		var end record.Offset
		for i := 0; i+1 < len(steps); i += 2 {
			first := end + record.Offset(steps[i])
			end = first + 1 + record.Offset(steps[i+1])
			footer.Blocks = append(footer.Blocks, Block{First: first, End: end, MaxTimestamp: int64(steps[i])})
		}
		byOffset, byTime := len(footer.Blocks), len(footer.Blocks)
		for i := len(footer.Blocks) - 1; i >= 0; i-- {
			if footer.Blocks[i].End > record.Offset(o) {
				byOffset = i
			}
			if footer.Blocks[i].MaxTimestamp >= o {
				byTime = i
			}
		}
		if got := footer.Find(record.Offset(o)); got != byOffset {
			t.Fatalf("Find(%d) = %d, want %d", o, got, byOffset)
		}
		if got := footer.FindTime(o); got != byTime {
			t.Fatalf("FindTime(%d) = %d, want %d", o, got, byTime)
		}
	})
}

// The checksum of a concatenation, made from those of its parts.
func FuzzConcat(f *testing.F) {
	f.Add([]byte("some"), []byte("bytes"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		want := crc32.Checksum(append(bytes.Clone(a), b...), castagnoli)
		if got := concat(crc32.Checksum(a, castagnoli), crc32.Checksum(b, castagnoli), int64(len(b))); got != want {
			t.Fatalf("%08x, want %08x", got, want)
		}
	})
}
