'use strict';
// The workloads of `spore bench` in JavaScript: see workload.c, which says what each is.

const { createHash } = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const zlib = require('node:zlib');

function primes(n) {
  const composite = new Uint8Array(n + 1);
  let count = 0;
  for (let i = 2; i < n; i++) {
    if (composite[i]) continue;
    count++;
    for (let j = i * i; j < n; j += i) composite[j] = 1;
  }
  return count;
}

function matrix(n) {
  const a = Float64Array.from({ length: n * n }, (_, i) => i % 7);
  const b = Float64Array.from({ length: n * n }, (_, i) => i % 5);
  const c = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < n; k++) {
      const factor = a[i * n + k];
      for (let j = 0; j < n; j++) c[i * n + j] += factor * b[k * n + j];
    }
  }
  return c.reduce((sum, value) => sum + value, 0);
}

function fft(bits) {
  const n = 2 ** Math.min(bits, 22);
  const re = new Float64Array(n);
  const im = new Float64Array(n);
  for (let i = 0, j = 0; i < n; i++) {
    re[j] = i % 8;
    let bit = n >> 1;
    while (bit && j & bit) {
      j ^= bit;
      bit >>= 1;
    }
    j |= bit;
  }
  for (let length = 2; length <= n; length *= 2) {
    for (let k = 0; k < length / 2; k++) {
      const wr = Math.cos((-2 * Math.PI * k) / length);
      const wi = Math.sin((-2 * Math.PI * k) / length);
      for (let i = k; i < n; i += length) {
        const o = i + length / 2;
        const xr = re[o] * wr - im[o] * wi;
        const xi = re[o] * wi + im[o] * wr;
        re[o] = re[i] - xr;
        im[o] = im[i] - xi;
        re[i] += xr;
        im[i] += xi;
      }
    }
  }
  return Math.floor(Math.hypot(re[n / 2], im[n / 2]) + 0.5);
}

function json(n) {
  const items = Array.from({ length: n }, (_, i) => ({ id: i, name: `item ${i}`, even: i % 2 === 0 }));
  return JSON.parse(JSON.stringify(items)).reduce((sum, item) => sum + item.id, 0);
}

const sha256 = (n) => createHash('sha256').update(Buffer.alloc(n)).digest().readUInt32BE(0);

const files = new Map();

function fileOf(kib) {
  if (!files.has(kib)) {
    const name = path.join(os.tmpdir(), `workload-${process.pid}-${kib}`);
    const file = fs.openSync(name, 'w+');
    fs.unlinkSync(name);
    const piece = Buffer.alloc(1024, 1);
    for (let i = 0; i < kib; i++) fs.writeSync(file, piece);
    files.set(kib, file);
  }
  return files.get(kib);
}

function read(kib) {
  const file = fileOf(kib);
  const piece = Buffer.alloc(131072);
  let total = 0;
  for (let position = 0; ; ) {
    const count = fs.readSync(file, piece, 0, piece.length, position);
    if (count === 0) return total;
    position += count;
    total += count * piece[0];
  }
}

function unzip(n, body) {
  let total = 0;
  for (let i = 0; i < n; i++) {
    total = 0;
    for (const byte of zlib.inflateRawSync(body)) total += byte;
  }
  return total;
}

// With two halves of 32 bits each: the language has no integers of 64 that are quick.
function spin(n) {
  const value = 88172645463325252n;
  let high = Number(value >> 32n) | 0;
  let low = Number(value & 0xffffffffn) | 0;
  for (let i = 0; i < n; i++) {
    high ^= (high << 13) | (low >>> 19);
    low ^= low << 13;
    low ^= (low >>> 7) | (high << 25);
    high ^= high >>> 7;
    high ^= (high << 17) | (low >>> 15);
    low ^= low << 17;
  }
  return low & 0xffff;
}

const work = { '/primes': primes, '/matrix': matrix, '/fft': fft, '/json': json, '/sha256': sha256, '/read': read, '/unzip': unzip, '/spin': spin };

module.exports = async (event) => {
  if (event.path === '/echo') return event.rawBody;
  if (event.path === '/next') return Buffer.concat([event.rawBody, Buffer.from('.')]);
  const n = Number(event.query.n ?? 0);
  if (event.path === '/read') fileOf(n);
  const start = process.hrtime.bigint();
  let check = 0;
  if (event.path === '/sleep') {
    await new Promise((resolve) => setTimeout(resolve, n));
    check = n;
  } else {
    check = work[event.path]?.(n, event.rawBody) ?? 0;
  }
  return `elapsed_ns=${process.hrtime.bigint() - start} check=${check}\n`;
};
