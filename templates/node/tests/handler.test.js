'use strict';

const assert = require('node:assert');
const test = require('node:test');

const handle = require('../handler.js');

const event = (query = {}, body = '') => ({
  method: 'GET', path: '/', headers: {}, query, body, rawBody: Buffer.from(body),
});

test('greets by name', async () => {
  const answer = await handle(event({ name: 'Ada' }));
  assert.deepStrictEqual([answer.statusCode, answer.body], [200, 'Hello, Ada, from a unikernel!\n']);
});

test('counts the body', async () => {
  assert.match((await handle(event({}, 'abc'))).body, /You sent 3 bytes/);
});
