import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.WindowStore;

/**
 * The question of top-sales-by-city in Kafka Streams, exactly once: sum and count by country, city, currency and day.
 *
 * <p>Prints "running" once it has its partitions, and "done" once it has added up as many events as it was told.
 * Arguments: bootstrap, input topic, output topic, Avro schema file, folder for its state, number of events.
 */
public final class TopSalesByCity {
    // A registry's header: the magic byte and the schema's id.
    private static final int HEADER_BYTES = 5;

    private record Total(long sum, long count) {}

    public static void main(String[] arguments) throws Exception {
        long events = Long.parseLong(arguments[5]);
        AtomicLong added = new AtomicLong();
        KafkaStreams streams = new KafkaStreams(
            topology(arguments[1], arguments[2], new Schema.Parser().parse(new File(arguments[3])), added).build(),
            configuration(arguments[0], arguments[2], arguments[4]));
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) System.out.println("running");
        });
        streams.start();
        while (added.get() < events) {
            if (streams.state() == KafkaStreams.State.ERROR) System.exit(1);
            Thread.sleep(10);
        }
        System.out.println("done");
        streams.close();
    }

    private static StreamsBuilder topology(String input, String output, Schema schema, AtomicLong added) {
        Serde<Total> totals = Serdes.serdeFrom(
            (topic, total) -> total == null ? null
                : ByteBuffer.allocate(16).putLong(total.sum).putLong(total.count).array(),
            (topic, bytes) -> bytes == null ? null
                : new Total(ByteBuffer.wrap(bytes).getLong(), ByteBuffer.wrap(bytes).getLong(8)));
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(input, Consumed.with(Serdes.ByteArray(), sales(schema))
                .withTimestampExtractor((sale, before) -> (long) ((GenericRecord) sale.value()).get("sold_at") / 1000))
            .map((id, sale) -> KeyValue.pair(
                sale.get("country") + "|" + sale.get("city") + "|" + sale.get("currency"), amount(sale)))
            .groupByKey(Grouped.with(Serdes.String(), Serdes.Long()))
            .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofDays(1), Duration.ofDays(60)))
            .aggregate(() -> new Total(0, 0), (group, amount, total) -> {
                added.incrementAndGet();
                return new Total(total.sum + amount, total.count + 1);
            }, Materialized.<String, Total, WindowStore<Bytes, byte[]>>with(Serdes.String(), totals))
            .toStream((group, total) -> group.window().start() + "|" + group.key())
            .to(output, Produced.with(Serdes.String(), totals));
        return builder;
    }

    /** Ten-thousandths, as the log has them. */
    private static long amount(GenericRecord sale) {
        ByteBuffer bytes = (ByteBuffer) sale.get("amount");
        byte[] digits = new byte[bytes.remaining()];
        bytes.get(digits);
        return new BigInteger(digits).longValueExact();
    }

    private static Serde<GenericRecord> sales(Schema schema) {
        GenericDatumReader<GenericRecord> reader = new GenericDatumReader<>(schema);
        return Serdes.serdeFrom((topic, sale) -> { throw new UnsupportedOperationException(); }, (topic, bytes) -> {
            try {
                return reader.read(null, DecoderFactory.get()
                    .binaryDecoder(bytes, HEADER_BYTES, bytes.length - HEADER_BYTES, null));
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        });
    }

    private static Properties configuration(String bootstrap, String name, String folder) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, name);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, folder);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        return settings;
    }
}
