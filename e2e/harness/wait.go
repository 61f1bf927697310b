package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// Until polls check until it returns nil. When limit has passed the test ends with what it waited for and check's last answer.
// It is the only way tests here wait: no condition is assumed to hold after some time.
func Until(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	const longestPause = 100 * time.Millisecond
	deadline := time.Now().Add(limit)
	pause := 2 * time.Millisecond
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		Pause(pause)
		pause = min(2*pause, longestPause)
	}
}

// Pause lets d pass, between two polls or as the length of a fault; never as a guess of how long something takes.
func Pause(d time.Duration) { <-time.After(d) }

// FreeAddress returns a loopback address nobody listened on a moment ago, with the port after it free too (Kafka's starter takes
// both). The port is below those the kernel gives to outgoing connections: a client that dials such a port again and again while
// its broker is down may end up connected to itself.
func FreeAddress(t testing.TB) string {
	t.Helper()
	const lowest, highest = 12_000, 32_000
	for range 1000 {
		port := lowest + 2*rand.IntN((highest-lowest)/2)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		if canListen(addr) && canListen(fmt.Sprintf("127.0.0.1:%d", port+1)) {
			return addr
		}
	}
	t.Fatalf("no two free ports in a row between %d and %d on 127.0.0.1", lowest, highest)
	return ""
}

// canListen reports whether addr can be listened on.
func canListen(addr string) bool {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	listener.Close()
	return true
}
