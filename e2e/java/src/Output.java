import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Collection;
import java.util.HashMap;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.kafka.common.TopicPartition;

/** What the drivers of the Go package e2e/drivers print and are told. */
final class Output {
    private static final PrintStream OUT = new PrintStream(new BufferedOutputStream(System.out, 1 << 16));

    /** Set once the input has ended. */
    static volatile boolean ended;

    private Output() {}

    static synchronized void print(String kind, Object... words) {
        OUT.print(ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now()));
        OUT.print(' ');
        OUT.print(kind);
        for (Object word : words) {
            OUT.print(' ');
            OUT.print(word);
        }
        OUT.print('\n');
    }

    static synchronized void flush() {
        OUT.flush();
    }

    static void say(String kind, Object... words) {
        print(kind, words);
        flush();
    }

    static void partitions(String kind, Collection<TopicPartition> partitions) {
        if (!partitions.isEmpty()) {
            say(kind, partitions.stream().map(p -> String.valueOf(p.partition())).sorted().collect(Collectors.joining(",")));
        }
    }

    static String oneLine(Throwable error) {
        return String.valueOf(error).replaceAll("\\s+", " ");
    }

    static Map<String, String> options(String[] args) {
        Map<String, String> options = new HashMap<>();
        for (int i = 1; i < args.length; i++) {
            int at = args[i].indexOf('=');
            options.put(args[i].substring(0, at), args[i].substring(at + 1));
        }
        return options;
    }

    /** Returns when the first word comes, if the options say that it is waited for. */
    static void begin(Map<String, String> options) throws IOException {
        if (options.containsKey("hold")) {
            say("ready");
            while (System.in.read() != '\n') {
                // the word is "go"
            }
        }
    }

    /** Watches the input: it carries no more words, only its end. */
    static void watchInput() {
        Thread watch = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    // nothing is said there
                }
            } catch (IOException gone) {
                // an end too
            }
            ended = true;
        });
        watch.setDaemon(true);
        watch.start();
    }
}
