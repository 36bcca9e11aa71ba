"""Spore SDK for Python: what a program renews when it goes on as a clone of a snapshot.

Copy this file beside the program and import it; no more is needed for these, which draw a new seed in each clone:

    random     its functions; other instances of random.Random are yours to seed, see after_restore
    ssl        OpenSSL's generators
    numpy      the functions of numpy.random, if that was imported before the snapshot

secrets, uuid.uuid4, os.urandom and random.SystemRandom ask the system each time, and need nothing. Hashes of strings
(PYTHONHASHSEED) are the same in all clones of a snapshot, and cannot be changed in a running program.

    import spore

    def connect():
        ...

    spore.after_restore(connect)

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

__all__ = ["after_restore"]

# The kernel's number of the generation of this memory; see docs/snapshots.md.
_DEVICE = "/dev/sysgenid"
_GENERATION_BYTES = 4

_callbacks = []


def after_restore(callback):
    """Lets callback() be called in each clone. Returns it, so that this can be a decorator."""
    _callbacks.append(callback)
    return callback


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
