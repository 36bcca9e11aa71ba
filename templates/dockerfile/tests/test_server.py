import os
import sys
import threading
import unittest
from http.server import ThreadingHTTPServer
from urllib.request import urlopen

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from server import Handler


class ServerTest(unittest.TestCase):
    def setUp(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()

    def test_greets_by_name(self):
        self.assertEqual(urlopen(f"{self.url}/?name=Ada").read(), b"Hello, Ada, from a unikernel!\n")

    def test_counts_the_body(self):
        self.assertIn(b"You sent 3 bytes.", urlopen(self.url, data=b"abc").read())


if __name__ == "__main__":
    unittest.main()
