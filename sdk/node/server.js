'use strict';
// The HTTP server around a Node function's async (event, context).
//
// `node server.js [FOLDER]` loads FOLDER/handler.js (or .mjs, .cjs; /function if no folder is named) and listens on PORT
// (8080) of SPORE_ADDRESS (all).
//
//     event       body, rawBody (a Buffer), headers, method, path, query (the first value of each name)
//     event.body  by Content-Type: application/json parsed, text/* and forms a string, everything else a Buffer
//     context     status(code), headers(fields), succeed(body), fail(error), as in OpenFaaS
//     answer      { statusCode, headers, body }, the context, or anything else, which is the body
//     body        strings and Buffers as they are, undefined and null as nothing, everything else as JSON
//
// An exception is answered with status 500, and the log has its stack.

const { existsSync } = require('node:fs');
const http = require('node:http');
const Module = require('node:module');
const path = require('node:path');

const spore = require('./spore.js');

const NAMES = ['handler.js', 'handler.mjs', 'handler.cjs'];
const NO_BODY = [204, 304];
// What the platform requests before the snapshot (SPORE_BEFORE_SNAPSHOT), unless the function names something of its own.
const PRACTICE = '/.spore/practice';

// Functions find the SDK by its name.
const resolve = Module._resolveFilename;
const sdk = require.resolve('./spore.js');
Module._resolveFilename = function (request, ...rest) {
  return request === 'spore' ? sdk : resolve.call(this, request, ...rest);
};

class BadRequest extends Error {}

class Context {
  constructor() {
    this.statusCode = 200;
    this.fields = {};
    this.isSet = false;
    this.body = undefined;
    this.error = undefined;
  }

  status(code) {
    if (code === undefined) {
      return this.statusCode;
    }
    this.statusCode = code;
    return this;
  }

  headers(fields) {
    if (fields === undefined) {
      return this.fields;
    }
    this.fields = fields;
    return this;
  }

  succeed(body) {
    this.isSet = true;
    this.body = body;
    return this;
  }

  fail(error) {
    this.isSet = true;
    this.error = error ?? new Error('the function failed');
    return this;
  }
}

function decode(type, raw) {
  const kind = (type ?? '').split(';')[0].trim().toLowerCase();
  if (kind === 'application/json' || kind.endsWith('+json')) {
    if (raw.length === 0) {
      return undefined;
    }
    try {
      return JSON.parse(raw.toString());
    } catch (error) {
      throw new BadRequest(`the body is no JSON: ${error.message}`);
    }
  }
  if (kind.startsWith('text/') || kind === 'application/x-www-form-urlencoded') {
    return raw.toString();
  }
  return raw;
}

function eventOf(request, raw) {
  const [target, query] = splitOnce(request.url, '?');
  return {
    method: request.method,
    path: decodePath(target),
    headers: request.headers,
    query: queryOf(query),
    rawBody: raw,
    body: decode(request.headers['content-type'], raw),
  };
}

function splitOnce(text, separator) {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

function decodePath(target) {
  try {
    return decodeURIComponent(target);
  } catch {
    return target;
  }
}

function queryOf(text) {
  const query = {};
  if (text !== '') {
    for (const [name, value] of new URLSearchParams(text)) {
      // A name such as __proto__ is a name like any other.
      if (!Object.hasOwn(query, name)) {
        Object.defineProperty(query, name, { value, enumerable: true, writable: true, configurable: true });
      }
    }
  }
  return query;
}

function bytesOf(value) {
  if (value === undefined || value === null) {
    return [Buffer.alloc(0), undefined];
  }
  if (typeof value === 'string') {
    return [Buffer.from(value), 'text/plain; charset=utf-8'];
  }
  if (value instanceof Uint8Array) {
    return [value, 'application/octet-stream'];
  }
  return [Buffer.from(JSON.stringify(value)), 'application/json'];
}

function answerOf(result, context) {
  if (context.error !== undefined) {
    throw context.error;
  }
  if (context.isSet) {
    return { statusCode: context.statusCode, headers: context.fields, body: context.body };
  }
  const isAnswer =
    typeof result === 'object' && result !== null && !(result instanceof Uint8Array) &&
    ['statusCode', 'headers', 'body'].some((name) => name in result);
  if (isAnswer && result !== context) {
    return { statusCode: result.statusCode ?? 200, headers: result.headers ?? {}, body: result.body };
  }
  const body = result === context ? undefined : result;
  return { statusCode: context.statusCode, headers: context.fields, body };
}

function send(response, { statusCode, headers, body }) {
  const [bytes, type] = bytesOf(body);
  if (!Number.isInteger(statusCode) || statusCode < 200 || statusCode > 599) {
    throw new RangeError(`statusCode is ${statusCode}: give one from 200 to 599`);
  }
  for (const [name, value] of Object.entries(headers)) {
    // The server says these itself.
    if (!['content-length', 'transfer-encoding', 'connection'].includes(name.toLowerCase())) {
      response.setHeader(name, value);
    }
  }
  if (type !== undefined && !response.hasHeader('content-type')) {
    response.setHeader('Content-Type', type);
  }
  response.statusCode = statusCode;
  if (NO_BODY.includes(statusCode)) {
    response.end();
  } else {
    response.setHeader('Content-Length', bytes.length);
    response.end(bytes);
  }
}

function sendText(response, statusCode, text) {
  for (const name of response.getHeaderNames()) {
    response.removeHeader(name);
  }
  send(response, { statusCode, headers: {}, body: `${text}\n` });
}

async function serve(handle, request, response) {
  const parts = [];
  for await (const part of request) {
    parts.push(part);
  }
  const raw = parts.length === 1 ? parts[0] : Buffer.concat(parts);
  const context = new Context();
  try {
    send(response, answerOf(await handle(eventOf(request, raw), context), context));
  } catch (error) {
    if (error instanceof BadRequest) {
      sendText(response, 400, error.message);
      return;
    }
    console.error(error);
    sendText(response, 500, "the function's handler failed: its log says why");
  }
}

async function load(folder) {
  const name = NAMES.find((name) => existsSync(path.join(folder, name)));
  if (name === undefined) {
    throw new Error(`there is no handler.js in ${folder}`);
  }
  const file = path.join(folder, name);
  let loaded;
  try {
    loaded = require(file);
  } catch (error) {
    if (error.code !== 'ERR_REQUIRE_ESM' && error.code !== 'ERR_REQUIRE_ASYNC_MODULE') {
      throw error;
    }
    loaded = await import(file);
  }
  const handle = [loaded, loaded.default, loaded.handle, loaded.handler].find((value) => typeof value === 'function');
  if (handle === undefined) {
    throw new Error(`${name} exports no function: module.exports = async (event, context) => { ... }`);
  }
  return handle;
}

// A first request takes Node many times as long as a second: it compiles what is called when it is called. So one is answered
// before the snapshot that never reaches the function, and clones begin with that done.
function withPractice(handle) {
  let isPractised = !spore.becomesSnapshot;
  return (event, context) => {
    if (isPractised || event.path !== PRACTICE) {
      return handle(event, context);
    }
    isPractised = true;
    // They are made when they are used for the first time, too.
    const streams = [process.stdout, process.stderr];
    return { statusCode: 200, headers: { 'Content-Type': 'text/plain' }, body: `${streams.length}` };
  };
}

async function main() {
  const handle = withPractice(await load(path.resolve(process.argv[2] ?? '/function')));
  await spore.runBeforeSnapshot();
  const server = http.createServer((request, response) => {
    serve(handle, request, response).catch(() => response.destroy());
  });
  // Connections stay open as long as the peer wants: the gateway keeps them for the next invocation.
  server.keepAliveTimeout = 0;
  server.requestTimeout = 0;
  server.headersTimeout = 0;
  server.listen(Number(process.env.PORT || 8080), process.env.SPORE_ADDRESS || '0.0.0.0');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
