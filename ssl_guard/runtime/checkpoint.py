"""Saves and restores checkpoints of state, data iterator position and metadata with Orbax.

    checkpoints/<step>/                 Orbax's files, and manifest.json with the sha256 of each
    checkpoints/<step>.damaged-<time>/  a damaged checkpoint that a resumed run moved aside

A kill at any time leaves the newest complete checkpoint, and no partial one under its name:

1. Orbax writes into a temporary folder and renames it when it is complete.
2. Every file is flushed to disk, and the manifest is written. A checkpoint without a manifest was
   renamed before a kill, so it is complete: the next start reads it and writes the manifest.
3. Old checkpoints are renamed, then deleted.
"""

import concurrent.futures
import contextlib
import errno
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import sha256_file, write_json

MANIFEST = "manifest.json"
REMOVED = ".removed"  # suffix of a checkpoint that is being deleted
# On a full disk, Orbax's threads would wait five minutes for folders created asynchronously.
SAVING = ocp.options.AsyncOptions(create_directories_asynchronously=False)
# Disk errors. Non-Python libraries raise their own exceptions with the text of strerror.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class Checkpoints:
    """Manages the checkpoints of one run; leaving its context waits for the pending save.

    Keeps the newest `keep_last` steps and the step with the best dev score. on_save_error: after a
    disk error during a save, "stop" raises BadInput; "continue" prints a warning to stderr.
    """

    def __init__(self, folder: str | Path, *, keep_last: int = 2, on_save_error: str = "stop"):
        self._folder = Path(folder).absolute()
        self._keep_last = keep_last
        self._tolerant = on_save_error == "continue"
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._saving: concurrent.futures.Future | None = None
        self._refused: BadInput | None = None  # why the last save failed, if that was tolerated

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    @property
    def steps(self) -> list[int]:
        """The steps on disk, in ascending order."""
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    @property
    def latest(self) -> int | None:
        """The newest step on disk; None without a checkpoint."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """The earliest step with the best dev score; None if no step has a score."""
        scores = {step: self._metadata(step)["selection"] for step in self.steps}
        scored = [(score, -step) for step, score in scores.items() if score is not None]
        return -max(scored)[1] if scored else None

    def save(
        self, step: int, state: Any, *, data: dict, meta: dict, selection: float | None
    ) -> None:
        """Starts an asynchronous save, after any pending one; replaces a checkpoint of this step.

        state: a pytree of arrays; data, meta: JSON values; selection: the dev score that chooses
        the best checkpoint (larger is better), None for a state that was not evaluated.
        """
        self.wait(tolerant=self._tolerant)
        self._refused = None
        metadata = {"data": data, "meta": meta, "selection": selection}
        with self._disk_errors(tolerant=self._tolerant):
            self._folder.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                self._remove(step)
            _barrier("a place for the checkpoint")
            with ocp.Context(async_options=SAVING):
                response = ocp.save_checkpointables_async(
                    self._folder / str(step), {"state": state}, custom_metadata=metadata
                )
            self._saving = self._thread.submit(self._finish, step, response)

    def wait(self, *, tolerant: bool = False) -> None:
        """Waits until the pending save and its manifest are on disk.

        Raises BadInput after a disk error in the last save; tolerant: prints a warning instead.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            with self._disk_errors(tolerant=tolerant):
                saving.result()
        if self._refused is not None and not tolerant:
            refused, self._refused = self._refused, None
            raise refused

    def resume(self, template: Any) -> tuple[Any, dict, dict] | None:
        """Restores (state, data, meta) of the newest readable checkpoint; None without checkpoints.

        Renames damaged checkpoints, with a warning on stderr. template: a tree of
        jax.ShapeDtypeStruct with shardings. Raises BadInput if every checkpoint is damaged.
        """
        if jax.process_index() == 0:
            self._sweep()
        found: tuple[int, tuple] | None = None
        damaged = {}
        for step in reversed(self.steps):
            try:
                if found is None:
                    found = step, self.restore(step, template)
                else:
                    self._check(step)
            except BadInput as error:
                damaged[step] = error
        if found is None and not damaged:
            return None
        if found is None:
            raise BadInput(
                f"{self._folder}: none of the checkpoints (steps {', '.join(map(str, damaged))}) "
                "can be read: restore them from a copy, or start again in a new --workdir."
            )
        _barrier("damaged checkpoints are known")
        if jax.process_index() == 0:
            step, _ = found
            for other, reason in damaged.items():
                name = f"{other}.damaged-{time.strftime('%Y%m%dT%H%M%S')}"
                (self._folder / str(other)).rename(self._folder / name)
                print(f"ssl_guard: {reason} It is renamed to {name}; resuming from step {step}.",
                      file=sys.stderr)  # fmt: skip
            if not (self._folder / str(step) / MANIFEST).exists():
                _write_manifest(self._folder / str(step))
        _barrier("damaged checkpoints are renamed")
        return found[1]

    def restore(self, step: int, template: Any) -> tuple[Any, dict, dict]:
        """Restores (state, data, meta) of a step and checks its manifest.

        template: a tree of jax.ShapeDtypeStruct with shardings. Raises BadInput for a damaged step.
        """
        state, metadata = self._load(step, template), self._metadata(step)
        return state, metadata["data"], metadata["meta"]

    def restore_part(self, step: int, template: dict) -> dict:
        """Restores the fields of a step's state that are in `template`, a dict of fields."""
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:
            return self._load(step, template)

    def _load(self, step: int, template: Any) -> Any:
        self._check(step)
        with self._damage(step):
            return ocp.load_checkpointables(self._folder / str(step), {"state": template})["state"]

    def _metadata(self, step: int) -> dict:
        """Reads the JSON values of a checkpoint: data, meta, selection."""
        with self._damage(step):
            path = self._folder / str(step)
            metadata = ocp.checkpointables_metadata(path).custom_metadata
            return {name: metadata[name] for name in ("data", "meta", "selection")}

    def _check(self, step: int) -> None:
        """Raises BadInput for a checkpoint that differs from its manifest."""
        folder = self._folder / str(step)
        with self._damage(step):
            if not (folder / MANIFEST).exists():
                return
            for name, sha256 in json.loads((folder / MANIFEST).read_text())["files"].items():
                if not (folder / name).is_file() or sha256_file(folder / name) != sha256:
                    raise BadInput(
                        f"{folder}: this checkpoint cannot be read ({name} has changed)."
                    )

    @contextlib.contextmanager
    def _damage(self, step: int):
        """Raises BadInput in place of any exception that a damaged folder causes."""
        try:
            yield
        except BadInput:
            raise
        except Exception as error:
            raise BadInput(
                f"{self._folder}/{step}: this checkpoint cannot be read ({type(error).__name__})."
            ) from error

    def _finish(self, step: int, response) -> None:
        """Finishes a save in a thread: writes the manifest, then removes old checkpoints."""
        response.result()
        if jax.process_index() != 0:
            return
        _write_manifest(self._folder / str(step))
        for old in set(self.steps[: -self._keep_last]) - {self.best}:
            self._remove(old)

    def _remove(self, step: int) -> None:
        folder = self._folder / str(step)
        if folder.exists():
            removed = folder.with_name(f"{step}{REMOVED}")
            shutil.rmtree(removed, ignore_errors=True)
            folder.rename(removed)
            shutil.rmtree(removed)

    def _sweep(self) -> None:
        """Deletes the leftovers of interrupted saves and removals."""
        for pattern in ("*.orbax-checkpoint-tmp*", f"*{REMOVED}"):
            for left in self._folder.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)

    @contextlib.contextmanager
    def _disk_errors(self, *, tolerant: bool):
        """Raises BadInput in place of a disk error, or prints a warning."""
        try:
            yield
        except Exception as error:
            number = getattr(error, "errno", None)
            reasons = [
                os.strerror(n) for n in DISK_ERRORS if n == number or os.strerror(n) in str(error)
            ]
            if not reasons:
                raise
            self._sweep()
            what = f"{self._folder}: {reasons[0].lower()} while writing a checkpoint"
            refused = BadInput(
                f"{what}; older checkpoints are intact: fix the disk and rerun the command."
            )
            if not tolerant:
                raise refused from error
            self._refused = refused
            print(f"ssl_guard: {what}; continuing without it.", file=sys.stderr)


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        files[str(path.relative_to(folder))] = sha256_file(path)
    write_json(folder / MANIFEST, {"files": files})


def _barrier(what: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
