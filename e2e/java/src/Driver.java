import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The driver of Apache Kafka's Java client. Its protocol is that of the Go package e2e/drivers. */
public final class Driver {
    private final Map<String, String> options;

    private Driver(Map<String, String> options) {
        this.options = options;
    }

    public static void main(String[] args) throws Exception {
        Driver driver = new Driver(Output.options(args));
        switch (args[0]) {
            case "produce" -> {
                Output.watchInput();
                driver.produce();
            }
            case "member" -> driver.member();
            case "transactor" -> driver.transactor();
            case "transform" -> {
                Output.watchInput();
                new Transform(driver.options, driver.consumer("committed"), driver.producer(driver.options.get("id"))).run();
            }
            default -> throw new IllegalArgumentException("java has no " + args[0]);
        }
        Output.flush();
    }

    private int number(String name, int otherwise) {
        return Integer.parseInt(options.getOrDefault(name, String.valueOf(otherwise)));
    }

    private KafkaProducer<String, String> producer(String transactionalId) {
        Properties p = new Properties();
        p.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("broker"));
        p.put(ProducerConfig.LINGER_MS_CONFIG, 5);
        p.put(ProducerConfig.BUFFER_MEMORY_CONFIG, 8 << 20);
        if (transactionalId != null) {
            p.put(ProducerConfig.TRANSACTIONAL_ID_CONFIG, transactionalId);
            p.put(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG, number("timeout", 60_000));
            p.put(ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, number("timeout", 60_000));
            p.put(ProducerConfig.REQUEST_TIMEOUT_MS_CONFIG, Math.min(30_000, number("timeout", 60_000) - 5));
        } else {
            p.put(ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, Integer.MAX_VALUE);
        }
        return new KafkaProducer<>(p, new StringSerializer(), new StringSerializer());
    }

    private KafkaConsumer<String, String> consumer(String isolation) {
        Properties p = new Properties();
        p.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("broker"));
        p.put(ConsumerConfig.GROUP_ID_CONFIG, options.get("group"));
        p.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        p.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        p.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_" + isolation);
        p.put(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG, 100);
        String protocol = options.getOrDefault("protocol", "classic");
        p.put(ConsumerConfig.GROUP_PROTOCOL_CONFIG, protocol);
        if (protocol.equals("classic")) {
            p.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, number("session", 10_000));
            p.put(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, 500);
        }
        if (options.containsKey("instance")) {
            p.put(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG, options.get("instance"));
        }
        return new KafkaConsumer<>(p, new StringDeserializer(), new StringDeserializer());
    }

    private void produce() throws InterruptedException {
        int rate = number("rate", 500);
        int partitions = number("partitions", 1);
        AtomicReference<Exception> failed = new AtomicReference<>();
        int n = 0;
        try (KafkaProducer<String, String> producer = producer(null)) {
            long began = System.nanoTime();
            while (!Output.ended) {
                for (long due = (long) ((System.nanoTime() - began) / 1e9 * rate); n < due; n++) {
                    producer.send(new ProducerRecord<>(options.get("topic"), n % partitions, null, options.get("prefix") + n), (at, error) -> {
                        if (error != null) {
                            failed.compareAndSet(null, error);
                        }
                    });
                }
                Thread.sleep(5);
            }
        }
        if (failed.get() != null) {
            throw new IllegalStateException(failed.get());
        }
        Output.say("done", n);
    }

    private void member() throws IOException {
        try (KafkaConsumer<String, String> consumer = consumer(options.getOrDefault("isolation", "uncommitted"))) {
            Output.begin(options); // all of the client is loaded by now
            Output.watchInput();
            consumer.subscribe(List.of(options.get("topic")), new Reports());
            while (!Output.ended) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(100));
                for (ConsumerRecord<String, String> r : records) {
                    Output.print("record", r.partition(), r.offset(), r.value());
                }
                Output.flush();
                if (!records.isEmpty()) {
                    try {
                        consumer.commitSync();
                    } catch (KafkaException error) {
                        Output.say("note", "commit:", Output.oneLine(error));
                    }
                }
            }
        }
    }

    /** Says what a member is assigned and what is taken from it. */
    static final class Reports implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            Output.partitions("assigned", partitions);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            Output.partitions("revoked", partitions);
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            Output.partitions("lost", partitions);
        }
    }

    private void transactor() throws Exception {
        KafkaProducer<String, String> producer = producer(options.get("id"));
        producer.initTransactions();
        Output.say("ok");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            try {
                obey(producer, line.split(" "));
                Output.say("ok");
            } catch (KafkaException | ExecutionException error) {
                Output.say("failed", Output.oneLine(error));
            }
        }
        producer.close(Duration.ofSeconds(10));
    }

    @SuppressWarnings("removal") // a group without members has no other metadata
    private void obey(KafkaProducer<String, String> producer, String[] words) throws ExecutionException, InterruptedException {
        String topic = options.get("topic");
        switch (words[0]) {
            case "begin" -> producer.beginTransaction();
            case "send" -> producer.send(new ProducerRecord<>(topic, Integer.valueOf(words[1]), null, words[2])).get();
            case "offsets" -> producer.sendOffsetsToTransaction(
                Map.of(new TopicPartition(topic, Integer.parseInt(words[2])), new OffsetAndMetadata(Long.parseLong(words[3]))),
                new ConsumerGroupMetadata(words[1]));
            case "commit" -> producer.commitTransaction();
            case "abort" -> producer.abortTransaction();
            default -> throw new IllegalArgumentException("no command: " + words[0]);
        }
    }
}
