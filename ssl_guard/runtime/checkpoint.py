"""Checkpoints of {state, position of the data iterator, meta}: the only importer of Orbax.

    checkpoints/<step>/                 Orbax's files, and manifest.json with the sha256 of each
    checkpoints/<step>.damaged-<time>/  what a resumed run has set aside

Orbax writes into a temporary folder and renames it when all is there. The manifest follows, when
every file has been flushed to the disk. A kill between the two leaves a checkpoint without one: the
rename says that it is whole, so the next start reads it and writes the manifest. Old checkpoints go
last, and are renamed before they are deleted. So a kill at any instant leaves the newest whole
checkpoint to be found, and nothing half that looks like one.
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
REMOVED = ".removed"  # ends the name of a checkpoint that is being deleted
# Folders at once: on a disk that refuses them Orbax's threads would wait five minutes for them.
SAVING = ocp.options.AsyncOptions(create_directories_asynchronously=False)
# What a disk may answer; libraries that are not Python put the words into a message of their own.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class Checkpoints:
    """The checkpoints of one run; a context manager whose exit waits for the save under way.

    The newest `keep_last` are kept, and the one with the best dev score. on_save_error: "stop"
    raises BadInput when the disk refuses a save, "continue" says so on stderr and goes on without
    that checkpoint. Steps alone decide what is kept: no clock is read.
    """

    def __init__(self, folder: str | Path, *, keep_last: int = 2, on_save_error: str = "stop"):
        self._folder = Path(folder).absolute()
        self._keep_last = keep_last
        self._goes_on = on_save_error == "continue"
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._saving: concurrent.futures.Future | None = None
        self._refused: BadInput | None = None  # why the last save failed, while the run goes on

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    @property
    def steps(self) -> list[int]:
        """The steps on disk, rising."""
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    @property
    def latest(self) -> int | None:
        """The newest step on disk, None if there is no checkpoint."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """The step with the best dev score, the earliest one on a tie; None if none has a score."""
        scores = {step: self._noted(step)["selection"] for step in self.steps}
        scored = [(score, -step) for step, score in scores.items() if score is not None]
        return -max(scored)[1] if scored else None

    def save(
        self, step: int, state: Any, *, data: dict, meta: dict, selection: float | None
    ) -> None:
        """Starts to save; a save still under way is finished first. A checkpoint of this step that
        is there is replaced.

        state: a pytree of arrays; data, meta: JSON values; selection: the dev score by which the
        best checkpoint is kept (larger is better), None for a state that was not evaluated.
        """
        self.wait(goes_on=self._goes_on)
        self._refused = None
        noted = {"data": data, "meta": meta, "selection": selection}
        with self._disk_errors(goes_on=self._goes_on):
            self._folder.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                self._remove(step)
            _agree("a place for the checkpoint")
            with ocp.Context(async_options=SAVING):
                response = ocp.save_checkpointables_async(
                    self._folder / str(step), {"state": state}, custom_metadata=noted
                )
            self._saving = self._thread.submit(self._finish, step, response)

    def wait(self, *, goes_on: bool = False) -> None:
        """Returns when the save under way is whole on disk, with its manifest.

        Raises BadInput if the disk refused the last save; goes_on: says so on stderr instead.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            with self._disk_errors(goes_on=goes_on):
                saving.result()
        if self._refused is not None and not goes_on:
            refused, self._refused = self._refused, None
            raise refused

    def resume(self, template: Any) -> tuple[Any, dict, dict] | None:
        """(state, data, meta) of the newest checkpoint that is whole; None if there is none at all.

        Damaged ones are set aside, with a line on stderr. template: jax.ShapeDtypeStructs with
        shardings. Raises BadInput if there are checkpoints and none can be read.
        """
        if jax.process_index() == 0:
            self._sweep()
        found, damaged = None, {}
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
                f"{self._folder}: no checkpoint of steps {', '.join(map(str, damaged))} can be "
                "read, and the run would begin again: bring them back from a copy, or start in a "
                "new --workdir."
            )
        _agree("which checkpoints are whole")
        if jax.process_index() == 0:
            step, _ = found
            for other, error in damaged.items():
                name = f"{other}.damaged-{time.strftime('%Y%m%dT%H%M%S')}"
                (self._folder / str(other)).rename(self._folder / name)
                print(f"ssl_guard: {error} Set aside as {name}; going on from step {step}.",
                      file=sys.stderr)  # fmt: skip
            if not (self._folder / str(step) / MANIFEST).exists():
                _write_manifest(self._folder / str(step))
        _agree("damaged checkpoints are set aside")
        return found[1]

    def restore(self, step: int, template: Any) -> tuple[Any, dict, dict]:
        """(state, data, meta) of a step, checked against its manifest.

        template: jax.ShapeDtypeStructs with shardings. Raises BadInput for one that is damaged.
        """
        state, noted = self._load(step, template), self._noted(step)
        return state, noted["data"], noted["meta"]

    def restore_part(self, step: int, template: dict) -> dict:
        """Those fields of a step's state that the template, a dict of fields, has."""
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:
            return self._load(step, template)

    def _load(self, step: int, template: Any) -> Any:
        self._check(step)
        with self._damage(step):
            return ocp.load_checkpointables(self._folder / str(step), {"state": template})["state"]

    def _noted(self, step: int) -> dict:
        """The JSON values of a checkpoint: data, meta, selection."""
        with self._damage(step):
            path = self._folder / str(step)
            noted = ocp.checkpointables_metadata(path).custom_metadata
            return {name: noted[name] for name in ("data", "meta", "selection")}

    def _check(self, step: int) -> None:
        """Raises BadInput for a checkpoint that is not what its manifest says."""
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
        """Turns whatever a damaged folder raises, in whichever library, into one sentence."""
        try:
            yield
        except BadInput:
            raise
        except Exception as error:
            raise BadInput(
                f"{self._folder}/{step}: this checkpoint cannot be read ({type(error).__name__})."
            ) from error

    def _finish(self, step: int, response) -> None:
        """The end of a save, in a thread: Orbax's files, the manifest, then the old checkpoints."""
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
        """Deletes what a killed or failed save or removal has left."""
        for left in (
            *self._folder.glob("*.orbax-checkpoint-tmp*"),
            *self._folder.glob(f"*{REMOVED}"),
        ):
            shutil.rmtree(left, ignore_errors=True)

    @contextlib.contextmanager
    def _disk_errors(self, *, goes_on: bool):
        """Turns what a disk says, through whichever library, into one sentence."""
        try:
            yield
        except Exception as error:
            number = getattr(error, "errno", None)
            said = [
                os.strerror(n) for n in DISK_ERRORS if n == number or os.strerror(n) in str(error)
            ]
            if not said:
                raise
            self._sweep()
            what = f"{self._folder}: {said[0].lower()} while writing a checkpoint"
            refused = BadInput(
                f"{what}; the older checkpoints are whole: mend the disk and run the same command "
                "again."
            )
            if not goes_on:
                raise refused from error
            self._refused = refused
            print(f"ssl_guard: {what}; going on without it.", file=sys.stderr)


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        files[str(path.relative_to(folder))] = sha256_file(path)
    write_json(folder / MANIFEST, {"files": files})


def _agree(what: str) -> None:
    """Several processes wait for one another."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
