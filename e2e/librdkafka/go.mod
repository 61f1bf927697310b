// A module of its own: librdkafka needs cgo, and nothing else here does.
module github.com/everlog/everlog/e2e/librdkafka

go 1.26.0

require github.com/confluentinc/confluent-kafka-go/v2 v2.11.1
