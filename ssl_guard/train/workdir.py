"""Opens the folder of a run: for its report if the run is finished, else for writing."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from ssl_guard import config as config_module
from ssl_guard.data import soft_labels
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import records_io
from ssl_guard.evaluation.prepare import Prepared
from ssl_guard.runtime import lock, processes, provenance
from ssl_guard.runtime.checkpoint import Checkpoints
from ssl_guard.runtime.files import read_json, write_json


def finished(workdir: Path) -> dict | None:
    """Returns the report of a finished run, None for any other workdir."""
    return records_io.read_report(workdir) if (workdir / "report.json").exists() else None


def refuse_other_soft_labels(workdir: Path, folder: Path) -> None:
    """Raises BadInput for the workdir of a run that began with other soft labels than those in
    the folder now."""
    path, manifest = workdir / "provenance.json", soft_labels.read_manifest(folder)
    if manifest is None or not path.exists():
        return
    start = read_json(path, "choose another --workdir, or delete this one")["starts"][-1]
    if start["shards_sha256"].get("soft_labels") != manifest["sha256"]:
        raise BadInput(
            f"{workdir} learns other soft labels than those in {folder}, which were made again: "
            "choose another --workdir, or delete this one."
        )


@contextlib.contextmanager
def opened(
    workdir: Path, config: ConfigDict, prepared: Prepared
) -> Iterator[tuple[Path, Checkpoints]]:
    """Locks a workdir, records config and start, and yields (files, checkpoints).

    files: the folder that this process writes to; the first process writes to the workdir.
    Raises BadInput if another process holds the workdir.
    """
    with (
        lock.held(workdir),
        processes.process_workdir(workdir) as files,
        Checkpoints(
            workdir / "checkpoints",
            keep_last=config.train.keep_last,
            on_save_error=config.train.on_save_error,
        ) as checkpoints,
    ):
        write_json(files / "config.json", config_module.as_json(config))
        provenance.record_start(
            files, checkpoints.latest or 0, shards_sha256=prepared.shards_sha256, **prepared.hashes
        )
        yield files, checkpoints
