"""Spore SDK for Python: what a program renews when it goes on as a clone of a snapshot.

Functions that `spore deploy` builds find it; beside another program, copy this file. Importing it is all that is needed for
these, which draw a new seed in each clone:

    random     its functions; other instances of random.Random are yours to seed, see after_restore
    ssl        OpenSSL's generators
    numpy      the functions of numpy.random, if that was imported before the snapshot

secrets, uuid.uuid4, os.urandom and random.SystemRandom ask the system each time, and need nothing. Hashes of strings
(PYTHONHASHSEED) are the same in all clones of a snapshot, and cannot be changed in a running program.

    import spore

    def connect():
        ...

    spore.after_restore(connect)

before_snapshot(callback) lets callback() be called once, before the snapshot is made, in functions that `spore deploy`
builds: what it loads or computes, every clone has from the start.

Callbacks run in each clone in the order in which they were registered, after the generators are renewed and before the
first request reaches the program, in a thread of their own. If one raises an exception, the instance ends. Where there
are no snapshots, nothing is ever called.

For a program that must not be changed, put this file in a folder, beside it a file sitecustomize.py with the line
`import spore`, and name the folder in PYTHONPATH.
"""

import os
import random
import sys
import threading
import traceback

__all__ = ["after_restore", "before_snapshot"]

# The kernel's number of the generation of this memory; see docs/snapshots.md.
_DEVICE = "/dev/sysgenid"
_GENERATION_BYTES = 4

_callbacks = []
_before_snapshot = []


def after_restore(callback):
    """Lets callback() be called in each clone. Returns it, so that this can be a decorator."""
    _callbacks.append(callback)
    return callback


def before_snapshot(callback):
    """Lets callback() be called once before the snapshot. Returns it, so that this can be a decorator."""
    _before_snapshot.append(callback)
    return callback


def run_before_snapshot():
    """Calls what is to be called before the snapshot, if one is made: for a server, before it listens."""
    if os.environ.get("SPORE_INITIALIZATION") == "snapshot":
        for callback in _before_snapshot:
            callback()


def _renew():
    random.seed()
    if "ssl" in sys.modules:
        sys.modules["ssl"].RAND_add(os.urandom(48), 48.0)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _watch(device):
    while True:
        generation = os.read(device, _GENERATION_BYTES)
        try:
            _renew()
            for callback in _callbacks:
                callback()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        # The first request waits for this.
        os.write(device, generation)


def _start():
    try:
        device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    threading.Thread(target=_watch, args=(device,), name="spore", daemon=True).start()


_start()
