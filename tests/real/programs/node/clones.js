'use strict';
// Answers with numbers from every generator that a program of Node's has: a name and a number in each line.
const crypto = require('node:crypto');
const http = require('node:http');

const restored = [];
if (process.env.WITH_SDK) {
  const { afterRestore } = require('./spore');
  afterRestore(async () => {
    await new Promise((resolve) => setImmediate(resolve));
    restored.push(Math.random());
  });
}

function numbers() {
  const numbers = {
    'crypto.randomBytes': crypto.randomBytes(8).toString('hex'),
    'crypto.getRandomValues': crypto.getRandomValues(new BigUint64Array(1))[0],
    'crypto.generateKeyPair': crypto.generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' }).x,
    'crypto.randomUUID': crypto.randomUUID(),
    'webcrypto.randomUUID': crypto.webcrypto.randomUUID(),
    'crypto.randomInt': [1, 2, 3, 4].map(() => crypto.randomInt(2 ** 31)).join('-'),
    'Math.random': Math.random(),
  };
  if (restored.length === 1) {
    numbers.afterRestore = restored[0];
  }
  return numbers;
}

// All of them have a seed, and numbers drawn ahead where they do so, before the snapshot.
for (let i = 0; i < 3; i++) {
  numbers();
}
http
  .createServer((request, response) => {
    const lines = Object.entries(numbers()).map(([name, number]) => `${name} ${number}\n`);
    response.end(lines.join(''));
  })
  .listen(8080);
