import os
import sys
import unittest
from types import SimpleNamespace

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from handler import handle


def event(query=None, body=b""):
    return SimpleNamespace(method="GET", path="/", headers={}, query=query or {}, body=body)


class HandleTest(unittest.TestCase):
    def test_greets_by_name(self):
        answer = handle(event({"name": "Ada"}), None)
        self.assertEqual((answer["statusCode"], answer["body"]), (200, "Hello, Ada, from a unikernel!\n"))

    def test_counts_the_body(self):
        self.assertIn("You sent 3 bytes.", handle(event(body=b"abc"), None)["body"])


if __name__ == "__main__":
    unittest.main()
