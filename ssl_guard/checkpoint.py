"""Checkpoints of {state, position of the data iterator, meta}: the only importer of Orbax.

Orbax writes into a temporary folder and renames it when all is on disk, so an interrupted save is
never taken for a whole one. The newest checkpoint and the best by the dev score are kept.
"""

import contextlib
import errno
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from ssl_guard.errors import BadInput


class Checkpoints:
    """The checkpoints of one run; a context manager whose exit waits for the save under way."""

    def __init__(self, folder: str | Path):
        policies = ocp.training.preservation_policies
        self._folder = Path(folder).absolute()
        self._checkpointer = ocp.training.Checkpointer(
            self._folder,
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(1),
                    policies.BestN(get_metric_fn=lambda metrics: metrics["selection"], n=1),
                ]
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        try:
            self.wait()
        finally:
            self._checkpointer.close()

    @property
    def latest(self) -> int | None:
        """The newest step on disk, None if there is no checkpoint."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    @property
    def best(self) -> int | None:
        """The step with the best dev score; the earliest one on a tie."""
        kept = [(c.metrics["selection"], -c.step) for c in self._checkpointer.checkpoints]
        return -max(kept)[1] if kept else None

    def save(self, step: int, state: Any, *, data: dict, meta: dict, selection: float) -> None:
        """Starts to save; a save still under way is finished first.

        state: a pytree of arrays; data, meta: JSON values; selection: the dev score by which the
        best checkpoint is kept (larger is better).
        """
        self.wait()
        tree = {"state": state, "data": data, "meta": meta}
        with self._disk_errors():
            self._checkpointer.save_checkpointables_async(
                step, tree, metrics={"selection": float(selection)}
            )

    def wait(self) -> None:
        """Returns when the save under way is whole on disk; raises BadInput if the disk is full."""
        with self._disk_errors():
            self._checkpointer.wait()

    def restore(self, step: int, template: Any) -> tuple[Any, dict, dict]:
        """(state, data, meta) of a step. template: jax.ShapeDtypeStructs with shardings."""
        tree = self._load(step, {"state": template, "data": None, "meta": None})
        return tree["state"], tree["data"], tree["meta"]

    def restore_part(self, step: int, template: dict) -> dict:
        """Those fields of a step's state that the template, a dict of fields, has."""
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:
            return self._load(step, {"state": template})["state"]

    def _load(self, step: int, template: dict) -> dict:
        try:
            return self._checkpointer.load_checkpointables(step, template)
        except Exception as error:  # Orbax raises many types for a damaged folder
            raise BadInput(
                f"{self._folder}/{step}: this checkpoint cannot be read "
                f"({type(error).__name__}); delete that folder to go on from an older one, or "
                "start in a new --workdir."
            ) from error

    @contextlib.contextmanager
    def _disk_errors(self):
        """Turns "no space left", of whichever library, into one sentence."""
        try:
            yield
        except Exception as error:
            full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
            if not full:
                raise
            raise BadInput(
                f"{self._folder}: no space left on the disk while writing a checkpoint; the older "
                "checkpoints are whole: free some space and run the same command again."
            ) from error


def template_of(shapes: Any, placement: jax.sharding.Sharding) -> Any:
    """Shapes and dtypes of a state with the placement to restore it to."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement), shapes
    )
