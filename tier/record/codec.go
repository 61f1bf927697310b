package record

import "fmt"

// Codec is the compression of a batch's records: the low three bits of its attributes.
type Codec int8

// The codecs of batch format v2.
const (
	None Codec = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

var codecNames = [...]string{"uncompressed", "gzip", "snappy", "lz4", "zstd"}

// String returns the codec's name as the topic config compression.type has it.
func (c Codec) String() string {
	if c < 0 || int(c) >= len(codecNames) {
		return fmt.Sprintf("codec(%d)", int8(c))
	}
	return codecNames[c]
}

// ParseCodec reads a codec's name; "none" is taken for uncompressed.
func ParseCodec(s string) (Codec, error) {
	if s == "none" {
		return None, nil
	}
	for i, n := range codecNames {
		if n == s {
			return Codec(i), nil
		}
	}
	return None, fmt.Errorf("unknown compression %q: want none, gzip, snappy, lz4 or zstd", s)
}
