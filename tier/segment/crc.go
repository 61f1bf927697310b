package segment

import (
	"hash/crc32"

	"github.com/everlog/everlog/tier/record"
)

// A batch carries the CRC-32C of all but its first 21 bytes. A CRC being linear, the checksum of a block follows from
// those of its batches without reading their bytes again: shift by the batch's length, then xor. This saves one pass
// over every produced byte, and cannot hide damage: a batch whose bytes do not match its CRC spoils the block's too.

// batchCovered is where the bytes under a batch's own CRC begin, and minShift the size from which shifting is cheaper
// than reading.
const (
	batchCovered = 21
	minShift     = 4 << 10
)

const polynomial = crc32.Castagnoli // reversed bit order, as hash/crc32 has it

// shifts[j][i] is x^(8·i·256^j) modulo the polynomial: the factor for appending i·256^j bytes. Six tables reach 256 TiB.
var shifts = func() (t [6][256]uint32) {
	step := uint32(1) << (31 - 8) // x^8
	for j := range t {
		t[j][0] = 1 << 31 // x^0
		for i := 1; i < 256; i++ {
			t[j][i] = multiply(t[j][i-1], step)
		}
		step = multiply(t[j][255], step)
	}
	return t
}()

// multiply returns a·b modulo the polynomial over GF(2), both in reversed bit order.
func multiply(a, b uint32) uint32 {
	var p uint32
	for ; a != 0; a <<= 1 {
		p ^= b & -(a >> 31)
		b = b>>1 ^ polynomial&-(b&1)
	}
	return p
}

// concat returns the CRC of the bytes under a followed by the size bytes under b.
func concat(a, b uint32, size int64) uint32 {
	for j := 0; size != 0; j, size = j+1, size>>8 {
		if i := size & 0xff; i != 0 {
			a = multiply(shifts[j][i], a)
		}
	}
	return a ^ b
}

// addBatch extends crc by the bytes of a batch whose own CRC has been verified.
func addBatch(crc uint32, b record.Batch) uint32 {
	if len(b) < minShift {
		return crc32.Update(crc, castagnoli, b)
	}
	return concat(crc32.Update(crc, castagnoli, b[:batchCovered]), b.CRC(), int64(len(b)-batchCovered))
}
