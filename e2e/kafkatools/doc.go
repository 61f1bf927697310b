// Package kafkatools runs a script of Apache Kafka's own command line tools and compares what they print with what they print
// against Apache Kafka. It holds no code beside its tests, which `make test-clients` runs: they need Maven and a JDK.
package kafkatools
