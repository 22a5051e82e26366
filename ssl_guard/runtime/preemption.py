"""Saves a run on SIGTERM or Ctrl-C before it ends with exit code 143 or 130.

    preemption.listen()     installs the handlers; called once, by the command
    preemption.hold()       defers signals to `check`, since there is unsaved state
    preemption.check()      raises Preempted if a signal was received
    preemption.release()    lets a signal end the process at once again
    preemption.finish()     ignores signals: the result is written, and the process is ending

Python runs a handler between two instructions of the main thread, which may be in a compiler for
minutes. So a separate thread reads the signals from a pipe. A second signal ends the process at
once; the run then loses the steps since the last checkpoint.
"""

import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preempted(Exception):
    """A signal stopped the run; it can be resumed. code: exit code, 128 + the signal number."""

    def __init__(self, number: int):
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}: run the same command to resume.")
        self.code = 128 + number


_asked = 0  # the deferred signal
_holding = False
_finished = False
_turn = threading.Lock()  # guards the variables above


def listen() -> None:
    """Installs the signal handlers; call it from the main thread.

    With several processes, JAX distributes a preemption notice so that all stop at the same step.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: None)
    threading.Thread(target=_read, args=(read,), daemon=True).start()


def hold() -> None:
    """Defers signals to the next `check`."""
    global _holding
    with _turn:
        _holding = True


def release() -> None:
    """Stops deferring signals. Raises Preempted if one was deferred."""
    global _holding
    with _turn:
        _holding = False
    check()


def finish() -> None:
    """Ignores all further signals, so that a finished run does not end as a stopped one."""
    global _finished
    with _turn:
        _finished = True


def check(step: int | None = None) -> None:
    """Raises Preempted if a signal was received.

    step: of the training loop. Several processes stop only where one is given, all at the same.
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
            if _finished:
                continue
            if _asked or not _holding:
                print(f"ssl_guard: {Preempted(number)}", file=sys.stderr, flush=True)
                os._exit(128 + number)
            _asked = number
