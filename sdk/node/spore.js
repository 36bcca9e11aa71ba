'use strict';
// Spore SDK for Node: what a program renews when it goes on as a clone of a snapshot.
//
// Functions that `spore deploy` builds find it as 'spore'; beside another program, copy this file and require it first. No more
// is needed for these, which are new in each clone:
//
//     Math.random                            drawn from the crypto module, once in a clone
//     crypto.randomUUID, crypto.randomInt    what they have drawn ahead is thrown away when they are called
//
// crypto.randomBytes, randomFill, getRandomValues and generated keys need nothing (docs/snapshots.md).
//
//     const { afterRestore } = require('spore');
//     afterRestore(async () => { ... });
//
// beforeSnapshot(callback) lets callback be called once, before the snapshot is made, in functions that `spore deploy` builds:
// what it loads or computes, every clone has from the start.
//
// Callbacks run in each clone in the order in which they were registered, after the generators are renewed and before the
// first request reaches the program. If one throws or rejects, the instance ends. Where there are no snapshots, nothing is
// ever called. For a program that must not be changed: NODE_OPTIONS='--require /path/spore.js'.

const crypto = require('node:crypto');
const fs = require('node:fs');
const { syncBuiltinESMExports } = require('node:module');

// The kernel's number of the generation of this memory; see docs/snapshots.md.
const DEVICE = '/dev/sysgenid';
const GENERATION_BYTES = 4;
// How many values Node's crypto module draws ahead, at most.
const UUIDS_AHEAD = 128;
const INTEGERS_AHEAD = 1024;
// How many values Math.random draws ahead in a clone.
const NUMBERS_AHEAD = 128;

const callbacks = [];
const beforeSnapshotCallbacks = [];

function afterRestore(callback) {
  callbacks.push(callback);
}

function beforeSnapshot(callback) {
  beforeSnapshotCallbacks.push(callback);
}

const becomesSnapshot = process.env.SPORE_INITIALIZATION === 'snapshot';

// Calls what is to be called before the snapshot, if one is made: for a server, before it listens.
async function runBeforeSnapshot() {
  if (becomesSnapshot) {
    for (const callback of beforeSnapshotCallbacks) {
      await callback();
    }
  }
}

let isClone = false;

const ownRandom = Math.random;
const drawn = new Uint32Array(2 * NUMBERS_AHEAD);
let next = drawn.length;

// There is no way to seed V8's generator, so that another one takes its place in clones.
Math.random = function random() {
  if (!isClone) {
    return ownRandom();
  }
  if (next === drawn.length) {
    crypto.getRandomValues(drawn);
    next = 0;
  }
  const high = drawn[next++] >>> 5;
  const low = drawn[next++] >>> 6;
  return (high * 2 ** 26 + low) / 2 ** 53;
};

// Returns a function that throws away, once in a clone, up to `count` values that were drawn before the snapshot.
function dropper(draw, count) {
  let left = count;
  return () => {
    while (isClone && left > 0) {
      draw();
      left--;
    }
  };
}

const { randomInt, randomUUID, webcrypto } = crypto;
const dropIntegers = dropper(() => randomInt(2), INTEGERS_AHEAD);
const dropUuids = dropper(randomUUID, UUIDS_AHEAD);

crypto.randomInt = function (...parameters) {
  dropIntegers();
  return randomInt(...parameters);
};
crypto.randomUUID = function (...parameters) {
  dropUuids();
  return randomUUID(...parameters);
};
const webPrototype = Object.getPrototypeOf(webcrypto);
const webRandomUUID = webPrototype.randomUUID;
webPrototype.randomUUID = function () {
  dropUuids();
  return webRandomUUID.call(this);
};
syncBuiltinESMExports();

async function restored(device) {
  const generation = Buffer.alloc(GENERATION_BYTES);
  try {
    fs.readSync(device, generation);
  } catch (error) {
    if (error.code === 'EAGAIN') {
      return;
    }
    throw error;
  }
  isClone = true;
  for (const callback of callbacks) {
    await callback();
  }
  // The first request waits for this.
  fs.writeSync(device, generation);
}

function start() {
  let device;
  try {
    device = fs.openSync(DEVICE, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
  } catch {
    return;
  }
  const failed = (error) => {
    console.error(error);
    process.exit(1);
  };
  fs.watch(DEVICE, { persistent: false }, () => restored(device).catch(failed));
}

start();

module.exports = { afterRestore, becomesSnapshot, beforeSnapshot, runBeforeSnapshot };
