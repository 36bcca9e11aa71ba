import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        print(self.command, url.path, flush=True)
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        name = parse_qs(url.query).get("name", ["world"])[0]
        text = f"Hello, {name}, from a unikernel!\n"
        if sent:
            text += f"You sent {len(sent)} bytes.\n"
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT") or 8080)
    ThreadingHTTPServer((os.environ.get("SPORE_ADDRESS") or "0.0.0.0", port), Handler).serve_forever()
