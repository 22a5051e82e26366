"""SIGTERM and Ctrl-C: the run saves what it has and ends, with an exit code of its own.

    preemption.listen()     once, by the command
    preemption.hold()       from here on there is something to save: a signal waits for `check`
    preemption.check()      raises Preempted if a signal has come
    preemption.release()    nothing is left to save: a signal ends the process at once

Python runs a handler between two instructions of the main thread, which may be in a compiler for
minutes. So a thread of its own reads the signals from a pipe. A second signal ends the process at
once: like a kill, it costs the steps since the last checkpoint and nothing else.
"""

import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preempted(Exception):
    """The run was asked to stop, and can be resumed. code: the exit code, 128 + the signal's
    number, as shells have it: 143 after SIGTERM, 130 after Ctrl-C."""

    def __init__(self, number: int):
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}: the same command goes on from here.")
        self.code = 128 + number


_asked = 0  # the signal that came while something was to be saved
_holding = False
_turn = threading.Lock()  # of the two threads that read and write these


def listen() -> None:
    """Begins to listen; to be called from the main thread.

    Several processes hear of a preemption from JAX, which sees to it that all stop at one step.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: None)
    threading.Thread(target=_read, args=(read,), daemon=True).start()


def hold() -> None:
    """There is something to save from here on."""
    global _holding
    with _turn:
        _holding = True


def release() -> None:
    """Nothing is left to save. Raises Preempted if a signal has come meanwhile."""
    global _holding
    with _turn:
        _holding = False
    check()


def check(step: int | None = None) -> None:
    """Raises Preempted if a signal has come.

    step: the loop's. Several processes have to agree on one, so they stop there and nowhere else.
    """
    if jax.process_count() == 1:
        asked = _asked
    else:
        asked = step is not None and multihost_utils.reached_preemption_sync_point(step)
    if asked:
        raise Preempted(_asked or signal.SIGTERM)


def _read(pipe: int) -> None:
    global _asked
    while True:
        number = os.read(pipe, 1)[0]
        if number not in SIGNALS:
            continue
        with _turn:
            if _asked or not _holding:
                print(f"ssl_guard: {Preempted(number)}", file=sys.stderr, flush=True)
                os._exit(128 + number)
            _asked = number
