"""The processes of one run on several hosts: how they find each other, take turns, and write."""

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
    """Joins the other processes; call it before anything else of JAX.

    On TPU pods, under SLURM, on GKE and under Open MPI the cluster says who they are; elsewhere the
    three arguments do, and without them this process is alone. Raises BadInput for some of the
    three and for processes that do not come.
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
    # Otherwise JAX knows no cluster here.


def first_process_first(make: Callable[[], Any]) -> Any:
    """make() of the first process, then of the others, who find on the disk what it wrote."""
    if jax.process_index() == 0:
        made = make()
        multihost_utils.sync_global_devices("made")
        return made
    multihost_utils.sync_global_devices("made")
    return make()


@contextlib.contextmanager
def process_workdir(workdir: Path) -> Iterator[Path]:
    """Where this process writes the files of a run: the workdir for the first one, for each other
    one a folder that begins with the run's metrics so far and goes at the end."""
    if jax.process_index() == 0:
        yield workdir
        return
    with tempfile.TemporaryDirectory() as folder:
        if (workdir / "metrics.jsonl").exists():
            shutil.copy(workdir / "metrics.jsonl", folder)
        yield Path(folder)
