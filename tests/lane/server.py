"""A server whose answers lean on the interpreter, threads, floating point and the C library."""

import hashlib
import http.server
import json
import math
import os
import sys
import threading


def threads():
    results, lock = [], threading.Lock()

    def work(number):
        with lock:
            results.append(sum(range(number * 1000)))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sorted(results)


ANSWERS = {
    "/hash": lambda: hashlib.sha256(b"spore" * 10000).hexdigest(),
    "/json": lambda: json.dumps({"pi": math.pi, "list": [1, 2.5, None, "ü"]}, sort_keys=True),
    "/threads": threads,
    "/mathematics": lambda: [math.exp(1), math.sin(1e6), 2**200, math.gamma(5.5)],
    "/files": lambda: sorted(os.listdir("/")) and open("/server.py").read().count("\n"),
    "/version": lambda: sys.version_info[:2],
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        answer = ANSWERS.get(self.path)
        text = f"{answer() if answer else 'unknown'}\n".encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


http.server.HTTPServer(("", 8080), Handler).serve_forever()
