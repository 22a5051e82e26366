"""Coordinates the processes of one run on several hosts."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from ssl_guard.errors import BadInput


def start(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes; call it before any other function of JAX.

    JAX detects the processes on TPU pods, SLURM, GKE and Open MPI. Elsewhere they come from the
    three arguments; without these the process is alone. Raises BadInput if only some of the three
    are given, and if the processes cannot connect.
    """
    given = coordinator_address, num_processes, process_id
    if None in given and any(value is not None for value in given):
        raise BadInput(
            "--coordinator_address, --num_processes and --process_id belong together: give all "
            "three or none."
        )
    try:
        jax.distributed.initialize(*given)
    except ValueError as error:
        if coordinator_address is not None:
            raise BadInput(f"the processes of the run cannot be joined: {error}") from error
    # Without arguments the error means that JAX detected no cluster.


def first_process_first(make: Callable[[], Any]) -> Any:
    """Calls make() in the first process, then in the others, which read the files it wrote."""
    if jax.process_index() == 0:
        made = make()
        multihost_utils.sync_global_devices("made")
        return made
    multihost_utils.sync_global_devices("made")
    return make()


def of_first_process(arrays: Any) -> Any:
    """Returns the first process's arrays (a pytree) in all processes, as NumPy arrays."""
    return multihost_utils.broadcast_one_to_all(arrays)


@contextlib.contextmanager
def process_workdir(workdir: Path) -> Iterator[Path]:
    """Yields the folder that this process writes a run's files to.

    It is the workdir in the first process, and a temporary folder with a copy of metrics.jsonl in
    the others.
    """
    if jax.process_index() == 0:
        yield workdir
        return
    with tempfile.TemporaryDirectory() as folder:
        if (workdir / "metrics.jsonl").exists():
            shutil.copy(workdir / "metrics.jsonl", folder)
        yield Path(folder)
