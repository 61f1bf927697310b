//go:build unix

package server

import "golang.org/x/sys/unix"

// openFiles is how many files this process may have open at once.
func openFiles() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	return uint64(limit.Cur), nil
}
