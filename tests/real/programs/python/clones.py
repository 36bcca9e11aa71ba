"""Answers with numbers from every generator that a program of Python's has: a name and a number in each line."""

import http.server
import os
import random
import secrets
import ssl
import uuid

if os.environ.get("WITH_SDK"):
    import spore

    restored = []
    spore.after_restore(lambda: restored.append(random.getrandbits(64)))


def numbers():
    yield "os.urandom", os.urandom(8).hex()
    yield "secrets", secrets.token_hex(8)
    yield "uuid.uuid4", uuid.uuid4().hex
    yield "ssl.RAND_bytes", ssl.RAND_bytes(8).hex()
    yield "random.SystemRandom", random.SystemRandom().getrandbits(64)
    yield "random", random.getrandbits(64)
    if os.environ.get("WITH_SDK") and len(restored) == 1:
        yield "after_restore", restored[0]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = "".join(f"{name} {number}\n" for name, number in numbers()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


# All of them have a seed, and numbers drawn ahead where they do so, before the snapshot.
for name, number in (line for _ in range(3) for line in numbers()):
    pass
http.server.HTTPServer(("", 8080), Handler).serve_forever()
