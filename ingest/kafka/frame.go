package kafka

import (
	"errors"
	"math/bits"
	"sync"
	"syscall"
)

// Frames and write buffers come from pools of size classes, powers of two: fresh memory costs more than the work on it.
const (
	minClass = 12 // 4 KiB
	maxClass = 27 // 128 MiB
)

var classes [maxClass - minClass + 1]sync.Pool

// buffer is pooled memory. p is the part in use.
type buffer struct {
	p     []byte
	class int
}

// getBuffer returns a buffer with len(p) == size.
func getBuffer(size int) *buffer {
	class := max(bits.Len(uint(max(size, 1)-1)), minClass)
	if class > maxClass {
		return &buffer{p: make([]byte, size), class: -1}
	}
	if b, _ := classes[class-minClass].Get().(*buffer); b != nil {
		b.p = b.p[:size]
		return b
	}
	return &buffer{p: make([]byte, size, 1<<class), class: class}
}

// release gives the memory back; p must not be used any more.
func (b *buffer) release() {
	if b != nil && b.class >= 0 {
		classes[b.class-minClass].Put(b)
	}
}

func isTemporary(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}
