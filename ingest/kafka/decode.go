package kafka

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Bounds of decoding what may be made to take long.
const (
	decodeTimeout  = time.Second
	maxSlowDecodes = 4
)

// decode decodes a request. kmsg believes the number of tagged fields that a flexible request states and loops over it
// even when the bytes have ended: two billion rounds for ten bytes. A body that could hold such a number is decoded
// beside the connection, which is closed if that does not end soon; few at a time, so that what is left running, which
// cannot be stopped, takes a bounded share of the processors.
func (s *Server) decode(req kmsg.Request, body []byte) error {
	if !req.IsFlexible() || !mayCountHigh(body) {
		return req.ReadFrom(body)
	}
	ctx, cancel := context.WithTimeout(context.Background(), decodeTimeout)
	defer cancel()
	if err := s.decodes.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("no turn to decode it: %w", err)
	}
	done := make(chan error, 1)
	own := slices.Clone(body) // the frame is given back when the connection goes on
	go func() {
		defer s.decodes.Release(1)
		done <- req.ReadFrom(own)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("decoding did not end: %w", ctx.Err())
	}
}

// mayCountHigh reports whether p holds a varint of more than three bytes, that is a number of two million or more. Fixed
// integers may look like one: that costs a goroutine, no more.
func mayCountHigh(p []byte) bool {
	run := 0
	for _, b := range p {
		if b < 0x80 {
			run = 0
			continue
		}
		if run++; run >= 3 {
			return true
		}
	}
	return false
}
