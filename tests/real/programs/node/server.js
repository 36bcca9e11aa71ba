// Uses the parts of Node that lean on the system: threads, native code, streams, files, timers, processes.
// Each path answers the same text each time.
'use strict';

const childProcess = require('node:child_process');
const crypto = require('node:crypto');
const events = require('node:events');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const stream = require('node:stream');
const timers = require('node:timers/promises');
const util = require('node:util');
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const zlib = require('node:zlib');

if (!isMainThread) {
  // One of the workers of /worker_threads: sums into shared memory, then tells how far it came.
  const { shared, from, count } = workerData;
  const cells = new BigInt64Array(shared);
  for (let i = 0; i < count; i++) Atomics.add(cells, 0, BigInt((from + i) % 97));
  parentPort.on('message', (text) => {
    parentPort.postMessage(`${text} ${from}`);
    parentPort.close();
  });
} else {
  main();
}

async function workers() {
  const shared = new SharedArrayBuffer(8);
  const replies = await Promise.all([0, 1, 2, 3].map(async (index) => {
    const worker = new Worker(__filename, { workerData: { shared, from: index * 10000, count: 10000 } });
    // Both may come in one turn of the loop, so both are waited for from the start.
    const both = [events.once(worker, 'message'), events.once(worker, 'exit')];
    worker.postMessage('from');
    const [[reply], [code]] = await Promise.all(both);
    return `${reply} ${code}`;
  }));
  return `${new BigInt64Array(shared)[0]} ${replies.join(', ')}`;
}

async function digests() {
  const data = Buffer.alloc(1 << 20, 'abc');
  const pbkdf2 = await util.promisify(crypto.pbkdf2)('password', 'salt', 20000, 32, 'sha512');
  const scrypt = await util.promisify(crypto.scrypt)('password', 'salt', 32);
  const random = await util.promisify(crypto.randomBytes)(100);
  const cipher = crypto.createCipheriv('aes-256-gcm', Buffer.alloc(32, 1), Buffer.alloc(12, 2));
  const sealed = Buffer.concat([cipher.update(data), cipher.final()]);
  const { publicKey, privateKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const isVerified = crypto.verify('sha256', data, publicKey, crypto.sign('sha256', data, privateKey));
  return [
    ...['md5', 'sha1', 'sha256', 'sha512'].map((name) => crypto.createHash(name).update(data).digest('hex')),
    crypto.createHmac('sha256', 'key').update(data).digest('hex'), pbkdf2.toString('hex'), scrypt.toString('hex'),
    crypto.createHash('sha256').update(sealed).digest('hex'), cipher.getAuthTag().toString('hex'),
    random.length, crypto.randomUUID().length, isVerified,
  ].join('\n');
}

async function compression() {
  const data = Buffer.from(Array.from({ length: 60000 }, (_, i) => `${i % 1000} little words `).join(''));
  const gzip = await util.promisify(zlib.gzip)(data);
  const brotli = zlib.brotliCompressSync(data, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } });
  const isWhole = zlib.gunzipSync(gzip).equals(data) && zlib.brotliDecompressSync(brotli).equals(data);
  return `${data.length} ${gzip.length} ${brotli.length} ${isWhole}`;
}

async function streams() {
  const hash = crypto.createHash('sha256');
  let chunks = 0;
  async function* source() {
    for (let i = 0; i < 500; i++) {
      if (i % 100 === 0) await timers.setImmediate();
      yield Buffer.alloc(5000, i);
    }
  }
  const counter = new stream.Transform({
    transform(chunk, _, done) { chunks++; done(null, chunk); },
  });
  await stream.promises.pipeline(source, counter, zlib.createGzip({ level: 1 }), zlib.createGunzip(), hash);
  return `${chunks} ${hash.digest('hex')}`;
}

async function files() {
  const folder = await fs.promises.mkdtemp(path.join(os.tmpdir(), 'node-'));
  const file = path.join(folder, 'data.txt');
  await fs.promises.writeFile(file, 'one\ntwo\n');
  await fs.promises.appendFile(file, 'three\n');
  await fs.promises.copyFile(file, path.join(folder, 'copy.txt'));
  await stream.promises.pipeline(fs.createReadStream(file), fs.createWriteStream(path.join(folder, 'piped.txt')));
  await fs.promises.rename(file, path.join(folder, 'renamed.txt'));
  await fs.promises.symlink('renamed.txt', path.join(folder, 'link'));
  fs.mkdirSync(path.join(folder, 'a/b'), { recursive: true });
  const names = (await fs.promises.readdir(folder)).sort();
  const state = await fs.promises.stat(path.join(folder, 'link'));
  const text = fs.readFileSync(path.join(folder, 'piped.txt'), 'utf8');
  const missing = await fs.promises.readFile(path.join(folder, 'none')).catch((error) => error.code);
  await fs.promises.rm(folder, { recursive: true });
  return `${names} ${state.size} ${state.isFile()} ${JSON.stringify(text)} ${missing} ${fs.existsSync(folder)}`;
}

async function clocks() {
  const order = [];
  const note = (name) => () => order.push(name);
  setTimeout(note('late'), 30);
  setTimeout(note('early'), 5);
  setImmediate(note('immediate'));
  process.nextTick(note('tick'));
  Promise.resolve().then(note('microtask'));
  const start = process.hrtime.bigint();
  await timers.setTimeout(60);
  const waitedMs = Number(process.hrtime.bigint() - start) / 1e6;
  let ticks = 0;
  for await (const _ of timers.setInterval(2)) if (++ticks === 10) break;
  return `${order} ${waitedMs >= 59 && waitedMs < 10000} ${ticks}`;
}

async function processes() {
  const helper = path.resolve('helper');
  const execFile = util.promisify(childProcess.execFile);
  const running = execFile(helper, ['one', 'two words'], { env: { COLOUR: 'blue' } });
  running.child.stdin.end('some text\n');
  const done = await running.catch((error) => error); // its status is not 0
  const missing = await execFile('./none-such').catch((error) => error.code);
  const sync = childProcess.spawnSync(helper, [], { input: 'x'.repeat(200000) });
  const killed = childProcess.spawn(helper, [], { stdio: ['pipe', 'ignore', 'ignore'] });
  killed.kill('SIGTERM');
  const [code, signal] = await events.once(killed, 'exit');
  return [
    `${done.code} ${JSON.stringify(done.stdout)} ${JSON.stringify(done.stderr)}`, missing,
    `${sync.status} ${sync.stdout.length} ${sync.stderr}`.trim(), `${code} ${signal}`,
  ].join('\n');
}

async function loopback() {
  const server = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
  await events.once(server, 'listening');
  const lengths = await Promise.all(Array.from({ length: 50 }, async (_, index) => {
    const socket = net.connect(server.address().port, '127.0.0.1');
    socket.end(Buffer.alloc(1000 * index, 'a'));
    let length = 0;
    for await (const chunk of socket) length += chunk.length;
    return length;
  }));
  server.close();
  const refused = await events.once(net.connect(1, '127.0.0.1'), 'connect').catch((error) => error.code);
  return `${lengths.reduce((sum, length) => sum + length)} ${refused}`;
}

// WebAssembly, the garbage collector and both compilers of V8.
async function engine() {
  const wasm = Uint8Array.from([
    0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3, 97, 100, 100, 0, 0, 10, 9, 1,
    7, 0, 32, 0, 32, 1, 106, 11,
  ]);
  const { instance } = await WebAssembly.instantiate(wasm);
  let sum = 0;
  for (let i = 0; i < 100000; i++) sum = instance.exports.add(sum, i) | 0;
  let kept = [];
  for (let i = 0; i < 300000; i++) {
    kept.push({ number: i, text: `text ${i}` });
    if (kept.length > 20000) kept = kept.slice(10000);
  }
  const depth = (function dive(level) { try { return dive(level + 1); } catch { return level; } })(0);
  return `${sum} ${kept.length} ${kept.at(-1).text} ${depth > 1000} ${'Grüße'.normalize('NFD').length} ` +
    new Intl.NumberFormat('de-DE').format(1234567.5);
}

// Times a loop of compiled code.
async function compute(query) {
  const iterations = Number(query.get('iterations') ?? 100000);
  const start = process.hrtime.bigint();
  let value = 1;
  for (let i = 0; i < iterations; i++) value = (Math.imul(value, 1103515245) + 12345) & 0x7fffffff;
  return `value=${value} elapsed_ns=${process.hrtime.bigint() - start}`;
}

function main() {
  const pages = {
    '/': async () => 'node', '/worker_threads': workers, '/crypto': digests, '/zlib': compression,
    '/streams': streams, '/fs': files, '/timers': clocks, '/child_process': processes, '/net': loopback,
    '/engine': engine, '/compute': compute,
  };
  const server = http.createServer(async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    let status = 200, text;
    if (request.method === 'POST') {
      const hash = crypto.createHash('sha256');
      let length = 0;
      for await (const chunk of request) { length += chunk.length; hash.update(chunk); }
      text = `${length} ${hash.digest('hex')}`;
    } else if (pages[url.pathname]) {
      try {
        text = await pages[url.pathname](url.searchParams);
      } catch (error) {
        [status, text] = [500, error.stack];
      }
    } else {
      [status, text] = [404, 'no such page'];
    }
    response.writeHead(status, { 'Content-Type': 'text/plain' });
    response.end(`${text}\n`);
  });
  server.listen(Number(process.env.PORT));
}
