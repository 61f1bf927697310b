import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.common.errors.TransactionAbortableException;

/** Copies a topic exactly once: what was read, and that it was read, are committed together. */
final class Transform {
    private static final String POISON = "POISON-"; // as in package drivers
    private final Map<String, String> options;
    private final KafkaConsumer<String, String> consumer;
    private final KafkaProducer<String, String> producer;

    Transform(Map<String, String> options, KafkaConsumer<String, String> consumer, KafkaProducer<String, String> producer) {
        this.options = options;
        this.consumer = consumer;
        this.producer = producer;
    }

    /** Returns when the input ends. An error that only a new producer survives leaves as an exception, and ends the process. */
    void run() {
        Random random = new Random(Long.parseLong(options.getOrDefault("seed", "1")));
        int aborts = Integer.parseInt(options.getOrDefault("aborts", "0"));
        producer.initTransactions();
        consumer.subscribe(List.of(options.get("topic")), new Driver.Reports());
        while (!Output.ended) {
            ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(100));
            if (records.isEmpty()) {
                continue;
            }
            boolean abort = aborts > 0 && random.nextInt(aborts) == 0;
            producer.beginTransaction();
            try {
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                for (ConsumerRecord<String, String> r : records) {
                    producer.send(new ProducerRecord<>(options.get("to"), r.partition(), null, abort ? POISON + r.value() : r.value()));
                    offsets.put(new TopicPartition(r.topic(), r.partition()), new OffsetAndMetadata(r.offset() + 1));
                }
                producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                if (!abort) {
                    producer.commitTransaction();
                    Output.say("committed", records.count());
                    continue;
                }
            } catch (CommitFailedException | RebalanceInProgressException | TransactionAbortableException error) {
                Output.say("note", Output.oneLine(error));
            }
            producer.abortTransaction();
            Output.say("aborted", records.count());
            rewind();
        }
        producer.close();
        consumer.close();
    }

    private void rewind() {
        Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(consumer.assignment());
        for (TopicPartition p : consumer.assignment()) {
            OffsetAndMetadata at = committed.get(p);
            if (at == null) {
                consumer.seekToBeginning(List.of(p));
            } else {
                consumer.seek(p, at);
            }
        }
    }
}
