// What an event-sourcing engine does for a command, done with Kafka Streams, exactly once: a
// topology that decides commands, a client that sends them and waits for answers, and its figures.
package annals.peer;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.LongFunction;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.AppInfoParser;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

public final class KafkaStreamsPeer {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Duration WAIT = Duration.ofSeconds(60);
    /** Some 300 bytes with the id and the data filled in. */
    private static final String COMMAND = """
        {"id":"%s","command":"PlaceOrder","schema":1,"expected_version":0,"data":{\
        "customer":"customer-%d","items":[{"line":1,"product":"p","seller":"s",\
        "price":{"amount_minor":2199,"currency":"BRL"},\
        "freight":{"amount_minor":1185,"currency":"BRL"}}],\
        "estimated_delivery":"2018-06-28T00:00:00Z"}}""";
    /** Brings an event to about 700 bytes. */
    private static final String NOTE = "n".repeat(290);

    private final String run = UUID.randomUUID().toString();
    private final String commands = "commands-" + run;
    private final String events = "events-" + run;
    private final String answers = "answers-" + run;
    /** When the commands were sent that are not answered yet. */
    private final Map<String, Long> open = new HashMap<>();
    private final AtomicReference<Throwable> failure = new AtomicReference<>();
    private final Map<String, String> arguments = new HashMap<>();
    private long sent = 0;
    private final List<Long> latencies = new ArrayList<>();

    public static void main(String[] arguments) {
        try {
            System.out.println(new KafkaStreamsPeer(arguments).run());
            System.exit(0);
        } catch (Throwable error) {
            error.printStackTrace();
            System.exit(1);
        }
    }

    private KafkaStreamsPeer(String[] words) {
        for (int i = 0; i + 1 < words.length; i += 2) {
            arguments.put(words[i], words[i + 1]);
        }
        Set<String> known = Set.of("--bootstrap", "--partitions", "--commit-interval-ms",
            "--in-flight", "--warm-up", "--seconds");
        if (words.length != 2 * known.size() || !arguments.keySet().equals(known)) {
            throw new IllegalArgumentException("each of these is needed, with a value: " + known);
        }
    }

    private int number(String argument) {
        return Integer.parseInt(arguments.get(argument));
    }

    private String run() throws Exception {
        try (Admin admin = Admin.create(client())) {
            int partitions = number("--partitions");
            admin.createTopics(Stream.of(commands, events, answers)
                .map(name -> new NewTopic(name, partitions, (short) 1)).toList()).all().get();
        }
        KafkaStreams streams = startStreams();
        int seconds = number("--seconds");
        measure(number("--in-flight"), number("--warm-up"), seconds);
        check(streams.close(WAIT), "Kafka Streams does not end");
        eachOnce(answers, KafkaStreamsPeer::id);
        eachOnce(events, KafkaStreamsPeer::stream);

        int measured = latencies.size();
        check(measured > 0, "no command was answered while it was measured");
        Collections.sort(latencies);
        return String.format(Locale.ROOT, "{\"peer\":\"kafka-streams\",\"version\":\"%s\","
            + "\"commit_interval_ms\":%d,\"in_flight\":%d,\"commands\":%d,\"seconds\":%d.0,"
            + "\"per_second\":%.1f,\"p50_ms\":%.2f,\"p99_ms\":%.2f}", AppInfoParser.getVersion(),
            number("--commit-interval-ms"), number("--in-flight"), measured, seconds,
            (double) measured / seconds, percentile(0.50), percentile(0.99));
    }

    private KafkaStreams startStreams() throws Exception {
        Path folder = Files.createTempDirectory("kafka-streams-peer-");
        Properties settings = client();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "peer-" + run);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, number("--commit-interval-ms"));
        // A thread without input waits this long before it looks whether a commit is due. The
        // default is 100 ms whatever the interval, which would make a short one idle.
        settings.put(StreamsConfig.POLL_MS_CONFIG, number("--commit-interval-ms"));
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, folder.toString());

        KafkaStreams streams = new KafkaStreams(topology(), settings);
        // Whatever ends the program, the folder goes.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(10));
            try (Stream<Path> paths = Files.walk(folder)) {
                for (Path path : paths.sorted(Comparator.reverseOrder()).toList()) {
                    Files.delete(path);
                }
            } catch (IOException error) {
                error.printStackTrace();
                Runtime.getRuntime().halt(1);
            }
        }));
        streams.setUncaughtExceptionHandler(error -> {
            failure.compareAndSet(null, error);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        long deadline = System.nanoTime() + WAIT.toNanos();
        while (streams.state() != KafkaStreams.State.RUNNING) {
            check(System.nanoTime() < deadline, "Kafka Streams does not start");
            Thread.sleep(10);
        }
        return streams;
    }

    private Topology topology() {
        var text = Serdes.String();
        var bytes = Serdes.ByteArray();
        return new Topology()
            .addSource("commands", text.deserializer(), bytes.deserializer(), commands)
            .addProcessor("decide", Decide::new, "commands")
            .addStateStore(Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore("versions"), text, Serdes.Long()), "decide")
            .addSink("events", events, text.serializer(), bytes.serializer(), "decide")
            .addSink("answers", answers, text.serializer(), bytes.serializer(), "decide");
    }

    /** Decides a command against the version that its stream has. */
    private static final class Decide implements Processor<String, byte[], String, byte[]> {
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, Long> versions;

        @Override
        public void init(ProcessorContext<String, byte[]> context) {
            this.context = context;
            versions = context.getStateStore("versions");
        }

        @Override
        public void process(Record<String, byte[]> record) {
            try {
                JsonNode command = JSON.readTree(record.value());
                String id = command.get("id").textValue();
                Long stored = versions.get(record.key());
                long version = stored == null ? 0 : stored;
                boolean accepted = command.get("expected_version").longValue() == version;
                if (accepted) {
                    version += 1;
                    versions.put(record.key(), version);
                    byte[] event = event(record.key(), version, command);
                    context.forward(record.withValue(event), "events");
                }
                ObjectNode answer = JSON.createObjectNode();
                answer.put("id", id).put("accepted", accepted).put("version", version);
                byte[] bytes = JSON.writeValueAsBytes(answer);
                context.forward(new Record<>(id, bytes, record.timestamp()), "answers");
            } catch (IOException error) {
                throw new IllegalStateException("a command cannot be read", error);
            }
        }

        private static byte[] event(String stream, long version, JsonNode command)
                throws IOException {
            ObjectNode event = JSON.createObjectNode();
            event.put("stream", stream).put("version", version).put("event", "OrderPlaced");
            event.put("schema", 1).put("command_id", command.get("id").textValue());
            event.put("decided_at", Instant.now().toString()).put("note", NOTE);
            event.set("data", command.get("data"));
            return JSON.writeValueAsBytes(event);
        }
    }

    /** Keeps so many commands open for the time given, then waits for the last answers. */
    private void measure(int inFlight, int warmUp, int seconds) throws Exception {
        Properties settings = client();
        settings.put("enable.idempotence", "true");
        settings.put("linger.ms", "0");
        try (var producer = new KafkaProducer<>(
                settings, new StringSerializer(), new StringSerializer());
                var consumer = reader(answers)) {
            long begin = System.nanoTime() + Duration.ofSeconds(warmUp).toNanos();
            long end = begin + Duration.ofSeconds(seconds).toNanos();
            long heard = System.nanoTime();
            while (System.nanoTime() < end || !open.isEmpty()) {
                while (open.size() < inFlight && System.nanoTime() < end) {
                    send(producer);
                }
                var records = consumer.poll(Duration.ofMillis(100));
                long now = System.nanoTime();
                for (var record : records) {
                    Long since = open.remove(record.key());
                    check(since != null, "an answer too many: " + record.key());
                    boolean accepted = JSON.readTree(record.value()).get("accepted").asBoolean();
                    check(accepted, "refused: " + record.key());
                    if (now >= begin && now < end) {
                        latencies.add(now - since);
                    }
                    heard = now;
                }
                check(now - heard < WAIT.toNanos(), "no answer for a long time");
            }
        }
    }

    private void send(KafkaProducer<String, String> producer) {
        String id = id(sent);
        String command = COMMAND.formatted(id, sent % 977);
        open.put(id, System.nanoTime());
        producer.send(new ProducerRecord<>(commands, stream(sent), command), (written, error) -> {
            if (error != null) {
                failure.compareAndSet(null, error);
            }
        });
        sent += 1;
    }

    /** Checks that the topic has one record for each command sent, and no other. */
    private void eachOnce(String topic, LongFunction<String> key) {
        Set<String> missing = new HashSet<>(LongStream.range(0, sent).mapToObj(key).toList());
        try (var consumer = reader(topic)) {
            var ends = consumer.endOffsets(consumer.assignment());
            long deadline = System.nanoTime() + WAIT.toNanos();
            while (ends.entrySet().stream()
                    .anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                check(System.nanoTime() < deadline, "cannot read to the end of " + topic);
                for (var record : consumer.poll(Duration.ofMillis(100))) {
                    check(missing.remove(record.key()), "not expected in " + topic + ": "
                        + record.key());
                }
            }
        }
        check(missing.isEmpty(), missing.size() + " missing in " + topic);
    }

    /** Reads what was committed in a topic, from its beginning. */
    private KafkaConsumer<String, byte[]> reader(String topic) {
        Properties settings = client();
        settings.put("isolation.level", "read_committed");
        var consumer = new KafkaConsumer<>(
            settings, new StringDeserializer(), new ByteArrayDeserializer());
        List<TopicPartition> all = IntStream.range(0, number("--partitions"))
            .mapToObj(partition -> new TopicPartition(topic, partition)).toList();
        consumer.assign(all);
        consumer.seekToBeginning(all);
        return consumer;
    }

    private Properties client() {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments.get("--bootstrap"));
        return settings;
    }

    private static String id(long number) {
        return "place-%016x".formatted(number);
    }

    private static String stream(long number) {
        return "order-%032x".formatted(number);
    }

    /** In milliseconds; the latencies are sorted. */
    private double percentile(double part) {
        return latencies.get((int) Math.ceil(part * latencies.size()) - 1) / 1e6;
    }

    private void check(boolean holds, String otherwise) {
        if (failure.get() != null || !holds) {
            throw new IllegalStateException(otherwise, failure.get());
        }
    }
}
