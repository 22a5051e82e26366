"""Opens the augmentation sets of a run, and makes the run's own set if it is missing."""

import functools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_guard.augment.job import Job, Judges
from ssl_guard.augment.make import make_set
from ssl_guard.augment.text_set import TextSet, open_set
from ssl_guard.data.assemble import Source
from ssl_guard.data.encode import Row
from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli


class SetsSpec(NamedTuple):
    """The sets that a run is trained on, and the recipe of its own set.

    root: the folder of the sets of all splits. names, weights: of the sets to mix. own: the name of
    the run's own set. ops, arguments, copies, seed, gates: see `Job`. model_gates: arguments
    of model_gates.build.
    """

    root: Path
    names: tuple[str, ...]
    weights: tuple[float, ...]
    own: str
    ops: tuple[str, ...]
    arguments: dict[str, dict]
    copies: int
    seed: int
    gates: dict
    model_gates: dict


def own_job(spec: SetsSpec, source: Source, *, judges: Judges | None = None) -> Job:
    """Plans the run's own set. judges: opens the gates of spec.model_gates."""
    return Job(
        spec.root / source.split.name / spec.own,
        rows=len(source.rows["unlabelled"]),
        ops=spec.ops,
        arguments=spec.arguments,
        copies=spec.copies,
        seed=spec.seed,
        gates=spec.gates,
        judged=spec.model_gates,
        judges=judges,
        pool=source.hashes,
    )


def open_or_make(spec: SetsSpec, source: Source, *, overwrite: bool = False) -> dict[str, TextSet]:
    """Opens the sets of spec.names, by name; makes the run's own one if it is missing.

    The recipes of other sets are unknown, so only their pool is checked. Raises BadInput for a
    missing or different set; with overwrite, the own one is made again if it differs.
    """
    own, found = own_job(spec, source), {}
    for name in spec.names:
        if name == spec.own:
            found[name] = _own_set(own, source, overwrite)
        else:
            again = (
                "make it with: python -m ssl_guard augment --config=CONFIG, of a config whose "
                f"config.augment.name is {name!r} (see configs/augment/) and whose config.data and "
                "config.seed are the same"
            )
            found[name] = open_set(own.folder.with_name(name), pool=source.hashes, again=again)
    return found


def open_existing(spec: SetsSpec, source: Source) -> dict[str, TextSet]:
    """Opens the sets of spec.names that exist, by name."""
    folder = spec.root / source.split.name
    again = f"make it with: {cli.again('augment')}"
    return {
        name: open_set(folder / name, pool=source.hashes, again=again)
        for name in spec.names
        if (folder / name / "manifest.json").exists()
    }


def without(views: Iterable[Row], removed: np.ndarray) -> Iterator[Row]:
    """Yields the views, and the original row for each removed one; removed: bool [views]."""
    for (example, copy, *text), gone in zip(views, removed, strict=True):
        yield example, copy, *((example.prompt, example.response) if gone else text)


def _own_set(job: Job, source: Source, overwrite: bool) -> TextSet:
    pool = source.rows["unlabelled"]
    again = f"make it again with: {cli.again('prepare')} --overwrite"
    opened = functools.partial(
        open_set, job.folder, pool=source.hashes, made_from=job.made_from, again=again
    )
    exists = (job.folder / "manifest.json").exists()
    if exists:
        try:
            return opened()
        except BadInput:
            if not overwrite:
                raise
    gates = job.made_from["gates"]
    if gates["similarity"] or gates["classifier"]:
        raise BadInput(
            f"the set {job.folder.name!r} is judged by a model (config.augment.gates), so it has "
            f"to be made by itself: {cli.again('augment')}{' --overwrite' if exists else ''}"
        )
    fit_on, progress = source.rows["labelled"] + pool, sys.stderr.isatty()
    make_set(job, pool, fit_on=fit_on, overwrite=overwrite, progress=progress)
    return opened()
