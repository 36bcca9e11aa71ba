"""Tells what it finds of earlier requests, and leaves something in every place that it has.

GET /       how often it was asked, what it finds (a list that should be empty), 16 random bytes, seconds of the clock
"""

import http.server
import json
import os
import random
import sys
import threading
import time
import types

asked = 0
kept = []


def found():
    places = {
        "a global variable": kept,
        "a file": os.path.exists("/tmp/left"),
        "a folder": os.path.exists("/tmp/folder"),
        "an environment variable": "LEFT" in os.environ,
        "a module": "left" in sys.modules,
        "an attribute of a class": hasattr(Handler, "left"),
        "a built-in name": "left" in dir(__builtins__),
        "the working directory": os.getcwd() != "/srv",
        "a thread": threading.active_count() != 1,
        "an open file": len(os.listdir("/proc/self/fd")) > descriptors,
    }
    return [place for place, is_there in places.items() if is_there]


def leave():
    kept.append(bytearray(200_000))
    with open("/tmp/left", "w") as file:
        file.write("left" * 5000)
    os.makedirs("/tmp/folder/within")
    os.environ["LEFT"] = "yes"
    sys.modules["left"] = types.ModuleType("left")
    Handler.left = True
    __builtins__.left = True
    os.chdir("/tmp")
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    kept.append(open("/tmp/left"))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global asked
        asked += 1
        told = {
            "asked": asked,
            "found": found(),
            "random": os.urandom(16).hex(),
            "system": random.SystemRandom().getrandbits(128),
            "seconds": time.time(),
        }
        leave()
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        print("asked", asked)


server = http.server.HTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler)
# The folder that is listed and the connection are two more.
descriptors = len(os.listdir("/proc/self/fd")) + 2
server.serve_forever()
