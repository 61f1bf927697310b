// Package e2e holds the tests of everlog as a whole: real clients (franz-go, kcat, sarama, kafka-go), real broker processes
// and real object stores. It owns no production code; every package below it is used by tests alone.
//
//   - harness starts, kills and watches processes and mounts disks that can fail
//   - corpus is the data set, and the digests by which two copies of it are compared
//   - clients produces and consumes it with each client library
//   - disk holds the tests that need root: power cuts and full disks
//   - servers and tools provide object stores and test peers
//
// Set EVERLOG_E2E_SIZE=full for the whole data set (over 200 MB); the default is a slice that suits every change.
package e2e
