// Package matrix holds what every client library is tried at: groups that rebalance under load, static members, brokers that
// are killed, transactions. EVERLOG_E2E_CLIENTS names the clients (default: all but java, which `make test-clients` adds).
// It holds no code beside its tests.
package matrix
