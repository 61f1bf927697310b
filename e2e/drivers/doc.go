// Package drivers runs client libraries as processes of their own, which can be killed, and says what they did. It owns the
// drivers of the Go clients and of kcat; those of other languages stand in e2e/librdkafka, e2e/kafkajs and e2e/java and speak
// the same protocol. It knows nothing of what is right; its callers are the tests of e2e.
//
// A driver is called with a verb and name=value options. It prints one event a line on its standard output:
//
//	MICROSECONDS KIND ARGUMENTS...
//
// with the time since 1970 by its own clock. What it says on its standard error is shown if the test fails. The verbs:
//
//	produce     writes <prefix>0, <prefix>1, … to topic, record i to partition i mod partitions (kcat: by key), rate a second, until
//	            its input ends. Then all is acknowledged and it prints "done N".
//	member      joins group for topic, prints "assigned P,P…", "revoked P,P…" (before others can have them), "lost P,P…" (when others
//	            have them already), and "record P OFFSET VALUE"; commits after it printed. When its input ends it leaves in good order.
//	transactor  is a transactional producer that obeys its input: begin, "send P VALUE", "offsets GROUP P OFFSET" (of topic),
//	            commit, abort. It answers each with "ok" or "failed TEXT", after a first answer to InitProducerId.
//	transform   reads topic as a member of group and writes each value to the partition of the same number of the topic to,
//	            exactly once; it prints "committed N" and "aborted N" for each transaction.
//
// Options: broker, topic, partitions, group, prefix, rate, idempotent, instance (group.instance.id), session (milliseconds),
// protocol (classic or consumer: KIP-848), isolation (committed or uncommitted), hold (print "ready" and wait for a line of
// input before joining), id (transactional.id), timeout (of transactions, milliseconds), to, seed, aborts (one in so many
// transactions is aborted on purpose), words (franz-go: values are <prefix>N:WORD, of so many words).
package drivers
