"""The HTTP server around a Python function's handle(event, context).

`python3 server.py [FOLDER]` loads handler.py from FOLDER (/function if none is named) and listens on PORT (8080) of
SPORE_ADDRESS (all). Packages that the function needs are in /packages.

    event       body (bytes), headers (names in any case), method, path, query (the first value of each name)
    context     hostname
    answer      {"statusCode": 200, "headers": {...}, "body": ...}; anything else is the body
    body        bytes and str as they are, None as nothing, everything else as JSON

`async def handle` is awaited. An exception is answered with status 500, and the log has its traceback. One request is served
at a time; while a connection is idle, others get in between.
"""

import io
import os
import select
import socket
import sys
import traceback
from http.client import responses as REASONS
from urllib.parse import parse_qsl, unquote

import spore

PACKAGES = "/packages"
HEAD_BYTES_MAX = 64 * 1024
READ_BYTES = 64 * 1024
# How long a peer that has begun a request may let the server wait for its next byte.
READ_TIMEOUT_SECONDS = 30
CONNECTIONS_MAX = 256
# inspect.CO_COROUTINE, without what that module loads.
CODE_IS_COROUTINE = 0x80


class Headers(dict):
    """Header fields by name; upper and lower case are the same. Fields of the same name are joined by a comma."""

    def add(self, name, value):
        name = name.lower()
        present = dict.get(self, name)
        separator = "; " if name == "cookie" else ", "
        dict.__setitem__(self, name, value if present is None else present + separator + value)

    def __getitem__(self, name):
        return dict.__getitem__(self, name.lower())

    def __contains__(self, name):
        return dict.__contains__(self, name.lower())

    def get(self, name, default=None):
        return dict.get(self, name.lower(), default)


class Event:
    """What is asked for."""

    __slots__ = ("body", "headers", "method", "path", "_query_text", "_query")

    def __init__(self, method, path, query_text, headers, body):
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self._query_text = query_text
        self._query = None

    @property
    def query(self):
        if self._query is None:
            self._query = {}
            for name, value in parse_qsl(self._query_text, keep_blank_values=True):
                self._query.setdefault(name, value)
        return self._query


class Context:
    """Where the function runs."""

    def __init__(self):
        self.hostname = os.environ.get("HOSTNAME") or socket.gethostname()


class BadRequest(Exception):
    """What a peer sent is no request that can be served."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


class Gone(Exception):
    """The peer has closed the connection, or does not go on."""


class Connection:
    def __init__(self, stream):
        stream.settimeout(READ_TIMEOUT_SECONDS)
        self.stream = stream
        self.pending = b""

    def more(self):
        try:
            data = self.stream.recv(READ_BYTES)
        except OSError as error:
            raise Gone from error
        if not data:
            raise Gone
        self.pending += data

    def take(self, count):
        """The next so many bytes."""
        if len(self.pending) >= count:
            data, self.pending = self.pending[:count], self.pending[count:]
            return data
        parts = io.BytesIO()
        parts.write(self.pending)
        left = count - len(self.pending)
        self.pending = b""
        while left > 0:
            try:
                data = self.stream.recv(min(left, 1 << 20))
            except OSError as error:
                raise Gone from error
            if not data:
                raise Gone
            parts.write(data)
            left -= len(data)
        return parts.getvalue()

    def take_until(self, end, limit):
        """What comes before the next `end`, which is taken as well."""
        while True:
            at = self.pending.find(end)
            if at > limit or (at < 0 and len(self.pending) > limit):
                raise BadRequest(431, "the request's head is too long")
            if at >= 0:
                data, self.pending = self.pending[:at], self.pending[at + len(end):]
                return data
            self.more()

    def chunked_body(self):
        body = io.BytesIO()
        while True:
            size = self.take_until(b"\r\n", 1024).split(b";", 1)[0].strip()
            # int() takes signs, blanks and underscores as well.
            if not size or len(size) > 15 or size.strip(b"0123456789abcdefABCDEF"):
                raise BadRequest(400, "a chunk's size is no number")
            size = int(size, 16)
            if size == 0:
                while self.take_until(b"\r\n", HEAD_BYTES_MAX):
                    pass
                return body.getvalue()
            body.write(self.take(size))
            if self.take(2) != b"\r\n":
                raise BadRequest(400, "a chunk is longer than its size says")

    def request(self):
        """The next request, and whether the connection is kept afterwards."""
        while self.pending[:2] in (b"", b"\r\n"):
            self.pending = self.pending[2:]
            if not self.pending:
                self.more()
        lines = self.take_until(b"\r\n\r\n", HEAD_BYTES_MAX).decode("latin-1").split("\r\n")
        parts = lines[0].split(" ")
        if len(parts) != 3 or not parts[0] or not parts[1] or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise BadRequest(400, "the first line is no request of HTTP/1.1")
        method, target, version = parts
        headers = Headers()
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name.strip() != name:
                raise BadRequest(400, "a header field has no name")
            headers.add(name, value.strip())
        coding = dict.get(headers, "transfer-encoding")
        length = dict.get(headers, "content-length")
        if coding is not None and (length is not None or coding.lower() != "chunked"):
            raise BadRequest(400, "the body's length cannot be told")
        if length is not None and (not length.isascii() or not length.isdigit() or len(length) > 15):
            raise BadRequest(400, "Content-Length is no number")
        has_body = coding is not None or (length is not None and int(length) > 0)
        if has_body and "100-continue" in dict.get(headers, "expect", "").lower():
            self.stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        if has_body:
            body = self.take(int(length)) if coding is None else self.chunked_body()
        if not target.startswith("/"):
            # The form with a host in it: everything from the path on counts.
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, query_text = target.partition("?")
        connection = dict.get(headers, "connection", "").lower()
        is_kept = "close" not in connection and (version == "HTTP/1.1" or "keep-alive" in connection)
        return Event(method, unquote(path), query_text, headers, body), is_kept


def to_bytes(value):
    """A body as bytes, and its type if nothing else is said."""
    if value is None:
        return b"", None
    if isinstance(value, str):
        return value.encode(), "text/plain; charset=utf-8"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), "application/octet-stream"
    import json

    return json.dumps(value).encode(), "application/json"


def answer_of(result):
    """Status, header fields and body that stand for what a handler returned."""
    status, fields, body = 200, [], result
    if isinstance(result, dict) and not result.keys().isdisjoint(("statusCode", "body", "headers")):
        status = int(result.get("statusCode", 200))
        if not 200 <= status <= 599:
            raise ValueError(f"statusCode is {status}: give one from 200 to 599")
        fields = result.get("headers") or {}
        fields = list(fields.items() if isinstance(fields, dict) else fields)
        body = result.get("body")
    body, kind = to_bytes(body)
    named = set()
    head = []
    for name, value in fields:
        name, value = str(name), str(value)
        if not name or any(character in name + value for character in "\r\n\0") or ":" in name:
            raise ValueError(f"the header field {name!r} cannot be sent")
        named.add(name.lower())
        # The server says these itself.
        if name.lower() not in ("content-length", "transfer-encoding", "connection"):
            head.append(f"{name}: {value}\r\n")
    if kind is not None and "content-type" not in named:
        head.append(f"Content-Type: {kind}\r\n")
    return status, "".join(head), body


def encode(method, answer, is_kept):
    status, head, body = answer
    text = f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\n{head}"
    if status not in (204, 304):
        text += f"Content-Length: {len(body)}\r\n"
    if not is_kept:
        text += "Connection: close\r\n"
    sent = b"" if method == "HEAD" or status in (204, 304) else body
    return text.encode("latin-1", "replace") + b"\r\n" + sent


def load(folder):
    """The function's handle(event, context), which may be a coroutine function."""
    sys.path[0:0] = [folder, PACKAGES]
    import handler

    try:
        handle = handler.handle
    except AttributeError:
        sys.exit("handler.py defines no function handle(event, context)")
    if getattr(getattr(handle, "__code__", None), "co_flags", 0) & CODE_IS_COROUTINE:
        import asyncio

        loop = asyncio.new_event_loop()
        return lambda event, context: loop.run_until_complete(handle(event, context))
    return handle


def serve_one(connection, handle, context):
    """Serves the next request of a connection; whether the connection is kept."""
    try:
        event, is_kept = connection.request()
    except BadRequest as error:
        answer = (error.status, "Content-Type: text/plain; charset=utf-8\r\n", f"{error}\n".encode())
        connection.stream.sendall(encode("GET", answer, False))
        return False
    try:
        answer = answer_of(handle(event, context))
    except Exception:
        traceback.print_exc()
        text = b"the function's handler failed: its log says why\n"
        answer = (500, "Content-Type: text/plain; charset=utf-8\r\n", text)
    connection.stream.sendall(encode(event.method, answer, is_kept))
    return is_kept


def serve(listener, handle, context):
    connections = {}
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                stream, _ = listener.accept()
                if len(connections) >= CONNECTIONS_MAX:
                    stream.close()
                    continue
                connections[stream.fileno()] = Connection(stream)
                poll.register(stream, select.POLLIN)
                continue
            connection = connections[descriptor]
            try:
                is_kept = serve_one(connection, handle, context)
                while is_kept and connection.pending:
                    is_kept = serve_one(connection, handle, context)
            except (Gone, OSError):
                is_kept = False
            if not is_kept:
                poll.unregister(descriptor)
                del connections[descriptor]
                connection.stream.close()


def main():
    handle = load(sys.argv[1] if len(sys.argv) > 1 else "/function")
    context = Context()
    spore.run_before_snapshot()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    address = os.environ.get("SPORE_ADDRESS") or "0.0.0.0"
    listener.bind((address, int(os.environ.get("PORT") or 8080)))
    listener.listen(128)
    serve(listener, handle, context)


if __name__ == "__main__":
    main()
