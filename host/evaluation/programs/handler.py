"""The workloads of `spore bench` in Python: see workload.c, which says what each is."""

import cmath
import hashlib
import json
import math
import os
import tempfile
import time
import zlib


def primes(n, _):
    composite = bytearray(n + 1)
    count = 0
    for i in range(2, n):
        if not composite[i]:
            count += 1
            composite[i * i:n:i] = b"\x01" * len(range(i * i, n, i))
    return count


def matrix(n, _):
    a = [[(i * n + j) % 7 for j in range(n)] for i in range(n)]
    columns = [[(i * n + j) % 5 for i in range(n)] for j in range(n)]
    return sum(sum(x * y for x, y in zip(row, column)) for row in a for column in columns)


def transform(points):
    n = len(points)
    if n == 1:
        return points
    even, odd = transform(points[0::2]), transform(points[1::2])
    turned = [cmath.exp(-2j * math.pi * k / n) * odd[k] for k in range(n // 2)]
    return [even[k] + turned[k] for k in range(n // 2)] + [even[k] - turned[k] for k in range(n // 2)]


def fft(bits, _):
    n = 1 << min(bits, 20)
    return int(abs(transform([complex(i % 8) for i in range(n)])[n // 2]) + 0.5)


def write_and_read(n, _):
    text = json.dumps([{"id": i, "name": f"item {i}", "even": i % 2 == 0} for i in range(n)])
    return sum(item["id"] for item in json.loads(text))


def sha256(n, _):
    return int.from_bytes(hashlib.sha256(bytes(n)).digest()[:4], "big")


files = {}


def file_of(kib):
    if kib not in files:
        file = tempfile.TemporaryFile(buffering=0)
        for _ in range(kib // 128):
            file.write(b"\x01" * 131072)
        file.write(b"\x01" * (kib % 128 * 1024))
        files[kib] = file
    return files[kib]


def read(kib, _):
    total, position = 0, 0
    while piece := os.pread(file_of(kib).fileno(), 131072, position):
        position += len(piece)
        total += len(piece) * piece[0]
    return total


def unzip(n, body):
    total = 0
    for _ in range(n):
        total = sum(zlib.decompress(body, wbits=-15))
    return total


def spin(n, _):
    state = 88172645463325252
    for _ in range(n):
        state ^= state << 13 & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 7
        state ^= state << 17 & 0xFFFFFFFFFFFFFFFF
    return state & 0xFFFF


def sleep(n, _):
    time.sleep(n / 1000)
    return n


WORK = {
    "/primes": primes,
    "/matrix": matrix,
    "/fft": fft,
    "/json": write_and_read,
    "/sha256": sha256,
    "/read": read,
    "/unzip": unzip,
    "/spin": spin,
    "/sleep": sleep,
}


def handle(event, context):
    if event.path == "/echo":
        return event.body
    if event.path == "/next":
        return event.body + b"."
    n = int(event.query.get("n", "0"))
    if event.path == "/read":
        file_of(n)
    start = time.monotonic_ns()
    work = WORK.get(event.path)
    check = work(n, event.body) if work else 0
    return f"elapsed_ns={time.monotonic_ns() - start} check={check}\n"
