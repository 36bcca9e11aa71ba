"""Answers with a number that this instance has drawn for itself when it was first asked, and how often it was asked."""

import http.server
import os

identity = None
asked = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global identity, asked
        self.rfile.read(int(self.headers["Content-Length"]))
        asked += 1
        identity = identity or os.urandom(8).hex()
        body = f"{identity} {asked}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


http.server.HTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
