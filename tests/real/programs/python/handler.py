"""Uses the parts of the standard library that lean on the system. Each path answers the same text each time."""

import array
import concurrent.futures
import ctypes
import datetime
import decimal
import hashlib
import hmac
import http.server
import json
import lzma
import mmap
import os
import queue
import random
import select
import signal
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
import zlib


def threads(_):
    """Workers on a queue, a lock, an event, a timer, a pool, a generous time-out."""
    work, results, lock = queue.Queue(), [], threading.Lock()

    def worker():
        while (number := work.get()) is not None:
            with lock:
                results.append(number * number)

    workers = [threading.Thread(target=worker) for _ in range(16)]
    for one in workers:
        one.start()
    for number in range(2000):
        work.put(number)
    for _ in workers:
        work.put(None)
    for one in workers:
        one.join()
    fired = threading.Event()
    threading.Timer(0.01, fired.set).start()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        squares = sum(pool.map(lambda number: number**2, range(500)))
    local = threading.local()
    local.value = threading.current_thread() is threading.main_thread()
    never = threading.Event().wait(0.01)
    return f"{len(results)} {sum(results)} {fired.wait(10)} {squares} {never} {local.value}"


def database(_):
    """A database in a file and one in memory, transactions, an index, a failed constraint."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "books.db")
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE book(id INTEGER PRIMARY KEY, title TEXT UNIQUE, year INTEGER)")
            connection.executemany(
                "INSERT INTO book(title, year) VALUES(?, ?)", [(f"book {i}", 1900 + i % 100) for i in range(2000)]
            )
            connection.execute("CREATE INDEX by_year ON book(year)")
        try:
            with connection:
                connection.execute("DELETE FROM book WHERE year < 1950")
                connection.execute("INSERT INTO book(title) VALUES('book 99')")
        except sqlite3.IntegrityError as error:
            failure = str(error)
        rows = connection.execute("SELECT year, count(*) FROM book GROUP BY year ORDER BY year LIMIT 3").fetchall()
        connection.close()
        again = sqlite3.connect(path)
        total = again.execute("SELECT count(*), sum(year) FROM book").fetchone()
        check = again.execute("PRAGMA integrity_check").fetchone()
        again.close()
        files = sorted(os.listdir(folder))
    memory = sqlite3.connect(":memory:")
    memory.create_function("twice", 1, lambda text: text * 2)
    twice = memory.execute("SELECT twice('ab'), json_extract('{\"a\": [1, 2]}', '$.a[1]')").fetchone()
    return f"{failure} | {rows} | {total} | {check} | {files} | {twice}"


def tls(_):
    """A handshake with a server in another thread, both ends in this program, and what each sees."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain("certificate.pem", "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        plain, _ = listener.accept()
        with server_context.wrap_socket(plain, server_side=True) as connection:
            data = b""
            while not data.endswith(b"\n"):
                data += connection.recv(65536)
            connection.sendall(data.upper())

    server = threading.Thread(target=serve)
    server.start()
    client_context = ssl.create_default_context(cafile="certificate.pem")
    with socket.create_connection(listener.getsockname()) as plain:
        with client_context.wrap_socket(plain, server_hostname="localhost") as connection:
            subject = connection.getpeercert()["subject"][0][0][1]
            protocol, cipher = connection.version(), connection.cipher()[0]
            connection.sendall(b"x" * 200000 + b"\n")
            received = b""
            while not received.endswith(b"\n"):
                received += connection.recv(65536)
    server.join()
    listener.close()
    refused = ""
    try:
        listener = socket.create_server(("127.0.0.1", 0))

        def refuse():
            plain, _ = listener.accept()
            try:
                server_context.wrap_socket(plain, server_side=True).close()
            except (ssl.SSLError, ConnectionError):
                plain.close()

        server = threading.Thread(target=refuse)
        server.start()
        with socket.create_connection(listener.getsockname()) as plain:
            ssl.create_default_context(cafile="certificate.pem").wrap_socket(plain, server_hostname="example.org")
    except ssl.SSLCertVerificationError as error:
        refused = error.verify_message
    server.join()
    listener.close()
    return f"{subject} {protocol} {cipher} {len(received)} {received[:3]} {refused}"


def texts(_):
    """JSON, time zones, decimals, random numbers from a seed."""
    value = {"names": ["Ada", "Grüße", "\U0001f331"], "numbers": [1, 2.5, -3e300, None, True], "deep": {"a": {"b": {}}}}
    text = json.dumps(value, sort_keys=True, indent=1)
    generator = random.Random(7)
    when = datetime.datetime.fromtimestamp(1700000000, datetime.timezone.utc).isoformat()
    lines = [
        text,
        str(json.loads(text) == value),
        when,
        str(decimal.Decimal(2).sqrt()),
        str([generator.randrange(1000) for _ in range(5)]),
        struct.pack("<IHd", 7, 8, 0.5).hex(),
        str(array.array("d", range(1000)).tobytes().count(0)),
        os.fsencode("Grüße").hex(),
        sys.getfilesystemencoding(),
    ]
    return "\n".join(lines)


def digests(_):
    data = bytes(range(256)) * 4096
    names = ["md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b"]
    lines = [f"{name} {hashlib.new(name, data).hexdigest()}" for name in names]
    lines.append(hmac.new(b"key", data, "sha256").hexdigest())
    lines.append(hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 20000).hex())
    lines.append(hashlib.scrypt(b"password", salt=b"salt", n=1024, r=8, p=1).hex())
    lines.append(f"random {len(os.urandom(33))} {len(set(os.urandom(8) for _ in range(100)))}")
    return "\n".join(lines)


def compression(_):
    data = b"".join(b"%d little words " % (number % 1000) for number in range(60000))
    packed, xz = zlib.compress(data, 6), lzma.compress(data, preset=1)
    whole = zlib.decompress(packed) == data and lzma.decompress(xz) == data
    return f"{len(data)} {len(packed)} {len(xz)} {zlib.crc32(data):08x} {zlib.adler32(data):08x} {whole}"


def processes(_):
    """Helpers: their output, input, environment, status, a signal, one that is missing, one in another folder."""
    lines = []
    helper = os.path.abspath("helper")
    done = subprocess.run([helper, "one", "two words"], input=b"some text\n", capture_output=True)
    lines.append(f"{done.returncode} {done.stdout} {done.stderr}")
    done = subprocess.run([helper], env={"COLOUR": "green"}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    lines.append(f"{done.returncode} {done.stdout!r} {done.stderr!r}")
    done = subprocess.run(["/usr/bin/env", "-i", "A=b", "C=d"], capture_output=True, close_fds=False)
    lines.append(f"{done.returncode} {done.stdout}")
    big = b"0123456789" * 40000
    done = subprocess.run([helper], input=big, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/tmp")
    lines.append(f"{done.returncode} {len(done.stdout)}")
    child = subprocess.Popen([helper], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    running = child.poll()
    child.terminate()
    lines.append(f"{running} {child.wait(10)} {signal.Signals(-child.returncode).name}")
    try:
        subprocess.run(["./none-such"])
    except FileNotFoundError as error:
        lines.append(f"{error.strerror} {error.filename}")
    with subprocess.Popen([helper], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        try:
            child.wait(0.05)
            lines.append("ended by itself")
        except subprocess.TimeoutExpired:
            lines.append("timed out")
        lines.append(f"{child.communicate(b'late')} {child.returncode}")
    spawned = os.posix_spawn(helper, [helper, "spawned"], {}, file_actions=[
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
    ])
    lines.append(str(os.waitstatus_to_exitcode(os.waitpid(spawned, 0)[1])))
    return "\n".join(lines)


def matrices(_):
    """Linear algebra in native code."""
    import numpy

    generator = numpy.random.default_rng(42)
    square = generator.integers(-9, 9, (60, 60)).astype(float)
    square += numpy.eye(60) * 100
    right = numpy.arange(60.0)
    solution = numpy.linalg.solve(square, right)
    values = numpy.sort(numpy.linalg.eigvalsh(square + square.T))
    lines = [
        numpy.__version__,
        f"{numpy.linalg.slogdet(square)[1]:.6f}",
        f"{float(solution.sum()):.9f} {bool(numpy.allclose(square @ solution, right))}",
        f"{values[0]:.6f} {values[-1]:.6f}",
        f"{float(numpy.abs(numpy.fft.fft(right)).sum()):.6f}",
        str(numpy.linalg.matrix_rank(square)),
        str(int((numpy.arange(1_000_000, dtype=numpy.int64) ** 2).sum())),
    ]
    return "\n".join(lines)


def files(_):
    """The writable layer: files, folders, links, a mapping, a lock, times, walking."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data")
        with open(path, "wb+") as file:
            file.write(bytes(range(256)) * 64)
            file.flush()
            with mmap.mmap(file.fileno(), 0) as mapping:
                mapping[0:5] = b"hello"
                found = mapping.find(b"\x0a\x0b")
            file.seek(0)
            start = file.read(8)
            file.truncate(1000)
        os.utime(path, (1_000_000, 2_000_000))
        os.rename(path, path + "2")
        os.symlink("data2", path)
        os.link(path + "2", os.path.join(folder, "other"))
        os.makedirs(os.path.join(folder, "a/b/c"))
        state = os.stat(path)
        tree = sorted(
            os.path.relpath(os.path.join(where, name), folder)
            for where, folders, names in os.walk(folder)
            for name in folders + names
        )
        os.chmod(path, 0o600)
        line = f"{start} {found} {state.st_size} {state.st_nlink} {int(state.st_mtime)} {os.readlink(path)} {tree}"
        line += f" {oct(os.stat(path).st_mode)}"
    return f"{line} {os.path.exists(folder)}"


def sockets(_):
    """Pairs, datagrams and what waits for them."""
    left, right = socket.socketpair()
    poll = select.poll()
    poll.register(right, select.POLLIN)
    before = poll.poll(0)
    left.sendall(b"ping")
    after = [events for _, events in poll.poll(1000)]
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"datagram", receiver.getsockname())
    readable, _, _ = select.select([receiver], [], [], 10)
    datagram = receiver.recv(100)
    refused = socket.socket()
    refused.settimeout(5)
    try:
        refused.connect(("127.0.0.1", 1))
        outcome = "connected"
    except ConnectionRefusedError:
        outcome = "refused"
    line = f"{before} {after} {right.recv(10)} {len(readable)} {datagram} {outcome}"
    for one in (left, right, receiver, sender, refused):
        one.close()
    return line


def signals(_):
    """A handler, an interval timer, a fault in native code is left to others."""
    caught = []
    old = signal.signal(signal.SIGALRM, lambda number, _: caught.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    deadline = time.monotonic() + 10
    while not caught and time.monotonic() < deadline:
        time.sleep(0.001)
    signal.signal(signal.SIGALRM, old)
    pending = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    os.kill(os.getpid(), signal.SIGUSR1)
    waiting = signal.sigpending()
    got = signal.sigwait({signal.SIGUSR1})
    signal.pthread_sigmask(signal.SIG_SETMASK, pending)
    abs_value = ctypes.CDLL(None).abs(-7)
    return f"{caught} {sorted(waiting)} {got} {abs_value}"


def compute(query):
    """Times a loop of the interpreter."""
    iterations = int(query.get("iterations", ["100000"])[0])
    start = time.perf_counter_ns()
    value = 1
    for _ in range(iterations):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return f"value={value} elapsed_ns={time.perf_counter_ns() - start}"


def objects(query):
    """Times making and dropping of many objects, small and large."""
    rounds = int(query.get("rounds", ["1"])[0])
    start = time.perf_counter_ns()
    total = 0
    for number in range(rounds):
        kept = [{"number": i, "text": str(i) * (i % 7), "list": [i] * (i % 9)} for i in range(20000)]
        blocks = [bytearray(number + (i << 10)) for i in range(64)]
        total += sum(len(one["list"]) for one in kept) + sum(map(len, blocks))
        del kept, blocks
    return f"total={total} elapsed_ns={time.perf_counter_ns() - start}"


PAGES = {
    "/": lambda _: "python",
    "/threads": threads,
    "/sqlite3": database,
    "/ssl": tls,
    "/json": texts,
    "/hashlib": digests,
    "/zlib": compression,
    "/subprocess": processes,
    "/numpy": matrices,
    "/files": files,
    "/sockets": sockets,
    "/signals": signals,
    "/compute": compute,
    "/objects": objects,
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        page = PAGES.get(url.path)
        try:
            status, text = (200, page(urllib.parse.parse_qs(url.query))) if page else (404, "no such page")
        except Exception:
            status, text = 500, traceback.format_exc()
        self.answer(status, text)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(200, f"{self.command} {len(body)} {hashlib.sha256(body).hexdigest()}")

    def answer(self, status, text):
        content = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    # The signal handler above works in the main thread only, so that is where requests are answered.
    http.server.HTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
