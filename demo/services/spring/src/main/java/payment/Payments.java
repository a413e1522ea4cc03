package payment;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.servlet.context.ServletWebServerInitializedEvent;
import org.springframework.context.event.EventListener;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestHeader;
import org.springframework.web.bind.annotation.RestController;

/**
 * A payment service that takes part in sagas: Spring Boot, and a file for what must not be forgotten.
 *
 * <pre>java -jar target/payment.jar --port=8200 --database=payments.jsonl</pre>
 *
 * Its one rule: what is answered is written, in one line with the deed, before it is answered. So whoever asks again under a key
 * gets the answer that was given, whatever happened in between; and what was called off before it came stays called off.
 */
@SpringBootApplication
@RestController
public class Payments {
    private static final long LIMIT_CENTS = 100_000;
    private static final Map<String, String> EVENT = Map.of("Content-Type", "application/cloudevents+json");
    private static final Map<String, String> PROBLEM = Map.of("Content-Type", "application/problem+json");

    /** What is answered under a key. */
    record Answer(int status, Map<String, String> headers, JsonNode body) {}

    /** A line of the file: the answer to a key, and what stands since. */
    record Entry(String key, Answer answer, String saga, Long cents, String off) {}

    private final ObjectMapper json = new ObjectMapper();
    private final FileChannel file;
    private final Map<String, Answer> answers = new HashMap<>();
    private final Map<String, Long> charges = new HashMap<>();
    private final Set<String> calledOff = new HashSet<>();

    public Payments(@Value("${database:payments.jsonl}") Path database) throws IOException {
        byte[] text = Files.exists(database) ? Files.readAllBytes(database) : new byte[0];
        // A line without its end was being written when the process died: nobody was answered.
        int whole = new String(text, StandardCharsets.ISO_8859_1).lastIndexOf('\n') + 1;
        for (String line : new String(text, 0, whole, StandardCharsets.UTF_8).split("\n")) {
            if (!line.isEmpty()) {
                apply(json.readValue(line, Entry.class));
            }
        }
        file = FileChannel.open(database, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        file.truncate(whole).position(whole);
    }

    private void apply(Entry entry) {
        answers.put(entry.key(), entry.answer());
        if (entry.saga() != null) {
            charges.put(entry.saga(), entry.cents());
        }
        if (entry.off() != null) {
            calledOff.add(entry.off());
            charges.remove(entry.off());
        }
    }

    private void keep(Entry entry) throws IOException {
        ByteBuffer line = ByteBuffer.wrap((json.writeValueAsString(entry) + "\n").getBytes(StandardCharsets.UTF_8));
        while (line.hasRemaining()) {
            file.write(line);
        }
        file.force(true);
        apply(entry);
    }

    @PostMapping("/payments")
    ResponseEntity<byte[]> charge(
            @RequestHeader("Idempotency-Key") String key,
            @RequestHeader("ce-sagaid") String saga,
            @RequestBody(required = false) byte[] body) throws IOException {
        return answered(key, body, order -> charge(key, saga, order));
    }

    @PostMapping("/payments/cancel")
    ResponseEntity<byte[]> cancel(
            @RequestHeader("Idempotency-Key") String key,
            @RequestBody(required = false) byte[] body) throws IOException {
        return answered(key, body, step -> refund(key, step));
    }

    private interface Deed {
        Entry on(JsonNode message);
    }

    /** Two requests under one key, and of one saga, come one after the other. */
    private synchronized ResponseEntity<byte[]> answered(String key, byte[] body, Deed deed) throws IOException {
        if (!answers.containsKey(key)) {
            Entry entry;
            try {
                entry = deed.on(json.readTree(body == null ? new byte[0] : body));
            } catch (JsonProcessingException notJson) {
                entry = problem(key, 400, "not-json", "the body is not JSON");
            }
            keep(entry);
        }
        Answer answer = answers.get(key);
        ResponseEntity.BodyBuilder response = ResponseEntity.status(answer.status());
        answer.headers().forEach(response::header);
        return response.body(json.writeValueAsBytes(answer.body()));
    }

    private Entry charge(String key, String saga, JsonNode order) {
        if (!order.path("amountCents").isIntegralNumber()) {
            return problem(key, 400, "not-an-order", "amountCents must be a whole number");
        }
        if (calledOff.contains(saga)) {
            return problem(key, 422, "called-off", "the order was called off before it came");
        }
        long cents = order.path("amountCents").asLong();
        if (cents > LIMIT_CENTS) {
            String detail = cents + " is above " + LIMIT_CENTS;
            Entry declined = problem(key, 422, "LIMIT_EXCEEDED", detail);
            ObjectNode failed = json.createObjectNode().put("code", "LIMIT_EXCEEDED").put("detail", detail);
            failed.set("orderId", order.get("orderId"));
            ((ObjectNode) declined.answer().body()).putArray("events").add(event("PaymentFailed", failed));
            return declined;
        }
        ObjectNode processed = json.createObjectNode().put("paymentId", "p-" + saga);
        for (String name : List.of("orderId", "sku", "quantity", "amountCents")) {
            processed.set(name, order.get(name));
        }
        return new Entry(key, new Answer(201, EVENT, event("PaymentProcessed", processed)), saga, cents, null);
    }

    private Entry refund(String key, JsonNode step) {
        String saga = step.path("sagaId").asText("");
        if (saga.isEmpty()) {
            return problem(key, 400, "not-a-step", "sagaId is missing");
        }
        Long cents = charges.get(saga);
        if (cents == null) {
            Answer nothing = new Answer(200, Map.of("Sagahost-Outcome", "nothing-to-undo"), json.createObjectNode());
            return new Entry(key, nothing, null, null, saga);
        }
        ObjectNode refunded = json.createObjectNode()
                .put("orderId", saga).put("paymentId", "p-" + saga).put("amountCents", cents);
        Map<String, String> headers = new HashMap<>(EVENT);
        headers.put("Sagahost-Outcome", "undone");
        return new Entry(key, new Answer(200, headers, event("PaymentRefunded", refunded)), null, null, saga);
    }

    private ObjectNode event(String kind, ObjectNode data) {
        ObjectNode event = json.createObjectNode()
                .put("specversion", "1.0").put("type", kind).put("source", "/payments").put("id", "1");
        event.set("data", data);
        return event;
    }

    private Entry problem(String key, int status, String code, String detail) {
        ObjectNode body = json.createObjectNode().put("code", code).put("detail", detail);
        return new Entry(key, new Answer(status, PROBLEM, body), null, null, null);
    }

    @EventListener
    void listens(ServletWebServerInitializedEvent event) {
        System.out.println("payments on http://127.0.0.1:" + event.getWebServer().getPort());
    }

    public static void main(String[] arguments) {
        SpringApplication application = new SpringApplication(Payments.class);
        application.setDefaultProperties(Map.of(
                "server.port", "${port:8200}", "server.address", "127.0.0.1",
                "spring.main.banner-mode", "off", "logging.level.root", "warn"));
        application.run(arguments);
    }
}
