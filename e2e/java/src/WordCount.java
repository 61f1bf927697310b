import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Counts the words of a topic whose values are NUMBER:WORD and writes each new count to another topic, exactly once. Options:
 * broker, topic, to, group (the application), dir (for its state). It prints its states, and leaves when its input ends.
 */
public final class WordCount {
    private WordCount() {}

    public static void main(String[] args) {
        Map<String, String> options = Output.options(args);
        Output.watchInput();
        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(options.get("topic"))
            .selectKey((key, value) -> value.substring(value.indexOf(':') + 1))
            .groupByKey(Grouped.with(Serdes.String(), Serdes.String()))
            .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts"))
            .toStream()
            .mapValues(String::valueOf)
            .to(options.get("to"), Produced.with(Serdes.String(), Serdes.String()));
        KafkaStreams streams = new KafkaStreams(builder.build(), config(options));
        streams.setStateListener((now, before) -> Output.say("state", now));
        streams.setUncaughtExceptionHandler(error -> {
            Output.say("note", Output.oneLine(error));
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.start();
        while (!Output.ended) {
            try {
                Thread.sleep(50);
            } catch (InterruptedException stop) {
                break;
            }
        }
        streams.close(Duration.ofSeconds(30));
        Output.flush();
    }

    private static Properties config(Map<String, String> options) {
        Properties p = new Properties();
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("broker"));
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, options.get("group"));
        p.put(StreamsConfig.STATE_DIR_CONFIG, options.get("dir"));
        p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        // Every count is written, none is kept back for the next.
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        p.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        p.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), 6000);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG), 500);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        p.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 8 << 20);
        return p;
    }
}
