// Package connect runs Kafka Connect in distributed mode: workers that find each other in a group, keep their connectors and
// offsets in compacted topics, and copy a file into a topic and the topic into a file. It holds no code beside its tests, which
// `make test-java` runs: they need Maven and a JDK.
package connect
