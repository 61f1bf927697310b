package harness

import (
	"fmt"
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

// FreeAddress returns a loopback address nobody listened on a moment ago, with the port after it free too (Kafka's starter takes both).
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		first.Close()
		if err != nil {
			continue
		}
		second.Close()
		return fmt.Sprintf("127.0.0.1:%d", port)
	}
	t.Fatal("no two free ports in a row on 127.0.0.1")
	return ""
}
