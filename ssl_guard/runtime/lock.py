"""Locks a workdir for one process."""

import contextlib
import datetime
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock
import jax

from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import write_json


@contextlib.contextmanager
def held(workdir: str | Path) -> Iterator[None]:
    """Holds `workdir/lock`; `workdir/owner.json` has the owner's host, pid and start time.

    The kernel frees the lock when its process dies, so it is never stale. In a run of several
    processes the first one holds it. Raises BadInput, with the owner, if another process holds it.
    """
    if jax.process_index() != 0:
        yield
        return
    workdir = Path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--workdir: {workdir} cannot be made: {error.strerror}.") from error
    owner = workdir / "owner.json"
    lock = filelock.FileLock(workdir / "lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        other = json.loads(owner.read_text()) if owner.exists() else {}
        raise BadInput(
            f"{workdir} is in use by process {other.get('pid')} on {other.get('host')} since "
            f"{other.get('since')}: wait for it, or choose another --workdir."
        ) from error
    try:
        since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_json(owner, {"host": socket.gethostname(), "pid": os.getpid(), "since": since})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
