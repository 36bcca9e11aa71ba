import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.LongAdder;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.zip.Deflater;

/** A server on the JDK's own HttpServer that uses threads, the collector, faults as exceptions, files and sockets. */
public final class Server {
    interface Page {
        String text() throws Exception;
    }

    private static String threads() throws Exception {
        var pool = Executors.newFixedThreadPool(16);
        var sum = new LongAdder();
        var tasks = IntStream.range(0, 1000).mapToObj(number -> CompletableFuture.runAsync(() -> sum.add(number), pool));
        CompletableFuture.allOf(tasks.toArray(CompletableFuture[]::new)).get(60, TimeUnit.SECONDS);
        pool.shutdown();
        ScheduledExecutorService clock = Executors.newScheduledThreadPool(2);
        var ticks = new AtomicInteger();
        for (int i = 0; i < 20; i++) clock.schedule(ticks::incrementAndGet, i, TimeUnit.MILLISECONDS);
        clock.shutdown();
        boolean isDone = clock.awaitTermination(60, TimeUnit.SECONDS);
        long parallel = IntStream.range(0, 100_000).parallel().mapToLong(number -> number % 7).sum();
        return sum + " " + ticks + " " + isDone + " " + parallel;
    }

    private static String garbage() {
        Map<Integer, List<String>> kept = null;
        for (int round = 0; round < 20; round++) {
            kept = IntStream.range(0, 20_000).boxed().collect(
                Collectors.groupingBy(number -> number % 100, Collectors.mapping(number -> "text " + number, Collectors.toList())));
            byte[][] blocks = new byte[64][];
            for (int i = 0; i < blocks.length; i++) blocks[i] = new byte[64 * 1024];
        }
        System.gc();
        return kept.size() + " " + kept.get(7).get(3);
    }

    private static String faults() {
        var messages = new ArrayList<String>();
        String nothing = System.getProperty("none.such");
        for (int i = 0; i < 20_000; i++) { // often enough to be compiled
            try {
                nothing.length();
            } catch (NullPointerException exception) {
                if (i == 0) messages.add(exception.getClass().getSimpleName());
            }
        }
        try {
            messages.add(String.valueOf(1 / messages.indexOf("none") + 1 / (messages.size() - 1)));
        } catch (ArithmeticException exception) {
            messages.add(exception.getMessage());
        }
        try {
            messages.add(String.valueOf(dive(0)));
        } catch (StackOverflowError error) {
            messages.add("stack overflow");
        }
        return String.join(", ", messages);
    }

    private static int dive(int depth) {
        return dive(depth + 1) + 1;
    }

    private static String files() throws IOException {
        Path folder = Files.createTempDirectory("java");
        Path file = Files.writeString(folder.resolve("data.txt"), "one\ntwo\n");
        Files.copy(file, folder.resolve("copy.txt"));
        Files.move(file, folder.resolve("moved.txt"));
        String names;
        try (var list = Files.list(folder)) {
            names = list.map(path -> path.getFileName().toString()).sorted().collect(Collectors.joining(","));
        }
        long size = Files.size(folder.resolve("moved.txt"));
        for (String name : names.split(",")) Files.delete(folder.resolve(name));
        Files.delete(folder);
        return names + " " + size + " " + Files.exists(folder);
    }

    private static String loopback() throws Exception {
        try (var server = new ServerSocket(0)) {
            var echo = CompletableFuture.supplyAsync(() -> {
                try (var socket = server.accept()) {
                    return socket.getInputStream().transferTo(socket.getOutputStream());
                } catch (IOException exception) {
                    return -1L;
                }
            });
            try (var socket = new Socket("127.0.0.1", server.getLocalPort())) {
                byte[] sent = "loopback ".repeat(1000).getBytes(StandardCharsets.UTF_8);
                socket.getOutputStream().write(sent);
                socket.shutdownOutput();
                return socket.getInputStream().readAllBytes().length + " " + echo.get(60, TimeUnit.SECONDS);
            }
        }
    }

    private static String digest() throws Exception {
        byte[] data = "abc".repeat(300_000).getBytes(StandardCharsets.UTF_8);
        var deflater = new Deflater(6);
        deflater.setInput(data);
        deflater.finish();
        int packed = deflater.deflate(new byte[100_000]);
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data)) + " " + packed;
    }

    private static void answer(HttpExchange exchange, Map<String, Page> pages) throws IOException {
        Page page = pages.get(exchange.getRequestURI().getPath());
        int status = page == null ? 404 : 200;
        String text;
        try {
            text = page == null ? "no such page" : page.text();
        } catch (Exception exception) {
            status = 500;
            text = exception.toString();
        }
        if (exchange.getRequestMethod().equals("POST")) {
            status = 200;
            text = exchange.getRequestBody().readAllBytes().length + " bytes";
        }
        byte[] content = (text + "\n").getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "text/plain");
        exchange.sendResponseHeaders(status, content.length);
        try (var body = exchange.getResponseBody()) {
            body.write(content);
        }
    }

    public static void main(String[] arguments) throws IOException {
        Map<String, Page> pages = Map.of(
            "/", () -> "java", "/threads", Server::threads, "/garbage", Server::garbage, "/faults", Server::faults,
            "/files", Server::files, "/loopback", Server::loopback, "/digest", Server::digest);
        var server = HttpServer.create(new InetSocketAddress(Integer.parseInt(System.getenv("PORT"))), 0);
        server.createContext("/", exchange -> answer(exchange, pages));
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
    }
}
