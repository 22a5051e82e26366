"""Finds training rows that are near-duplicates of test rows."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_guard.data.duplicates import Known, Shingles, near_duplicate_groups
from ssl_guard.data.schema import Example, normalised
from ssl_guard.errors import BadInput

PRETRAINING = "pretraining.npz"  # in a model folder: Shingles of the prompts it was pre-trained on


class Overlap(NamedTuple):
    """Comparison of prompts with seen ones, each array [prompts].

    exact: bool, equal to a seen prompt up to case and white space. near: bool, equal or a
    near-duplicate. groups: int, the number of the prompt's group of near-duplicates.
    """

    exact: np.ndarray
    near: np.ndarray
    groups: np.ndarray


def overlap(prompts: Sequence[str], seen: Sequence[str]) -> Overlap:
    """Compares prompts by the groups of `duplicates.near_duplicate_groups`, as a split does."""
    known = {normalised(prompt) for prompt in seen}
    exact = np.array([normalised(prompt) in known for prompt in prompts], bool)
    near, groups = np.zeros(len(prompts), bool), np.zeros(len(prompts), int)
    for number, members in enumerate(near_duplicate_groups([*prompts, *seen])):
        mine = [position for position in members if position < len(prompts)]
        groups[mine], near[mine] = number, len(mine) < len(members)
    return Overlap(exact, near, groups)


def pretraining(model_folder: Path) -> Shingles | None:
    """Returns the prompts that train/masked_lm.py trained a model on; None if unknown."""
    path = model_folder / PRETRAINING
    return Shingles.load(path) if path.exists() else None


def near(examples: Sequence[Example], tests: Sequence[Example]) -> np.ndarray:
    """Finds the examples whose prompt is near one of the tests, bool [examples]."""
    known = Known(Shingles.of(example.prompt for example in tests))
    return known.near(Shingles.of(example.prompt for example in examples))


def near_test(
    rows: Mapping[str, Sequence[Example]],
    left_out: Sequence[Example],
    augmented: Mapping[str, Iterable[tuple]],
    model_folder: Path,
    other_tests: Sequence[Example] = (),
) -> dict[str, np.ndarray]:
    """Finds the prompts of every pool that are near a test prompt: {pool: bool [prompts]}.

    rows: examples by side; left_out: examples on no side; augmented: views, (example, copy,
    prompt, response), by set; other_tests: further test rows. The pools are the sides but "test",
    "left_out", "augmented/<set>", and "pretraining", the prompts that the model was pre-trained on,
    if known. Raises BadInput if one of the last is near a test prompt, since it cannot be removed
    from the model.
    """
    examples = {side: rows[side] for side in rows if side != "test"} | {"left_out": left_out}
    pools = {name: Shingles.of(e.prompt for e in part) for name, part in examples.items()}
    for name, views in augmented.items():
        pools[f"augmented/{name}"] = Shingles.of(prompt for _, _, prompt, _ in views)
    read = pretraining(model_folder)
    if read is not None:
        pools["pretraining"] = read
    known = Known(Shingles.of(example.prompt for example in (*rows["test"], *other_tests)))
    near = {name: known.near(pool) for name, pool in pools.items()}
    if read is not None and near["pretraining"].any():
        raise BadInput(
            f"{model_folder} was pre-trained on {int(near['pretraining'].sum())} prompts that "
            "are near test prompts of this run: pre-train it with this run's config.data and "
            "config.seed, or use another model."
        )
    return near


def counts(near: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Counts, for the report, the prompts of every pool, those near a test prompt, and those
    removed: rows left out of the split, and augmented views replaced by their row."""
    found = {name: {"rows": len(n), "near_test": int(n.sum())} for name, n in near.items()}
    for name, pool in found.items():
        removed = name == "left_out" or name.startswith("augmented/")
        pool["removed"] = pool["near_test"] if removed else 0
    return found


def note(contamination: Mapping[str, Mapping[str, int]]) -> str:
    """Formats `counts` as one line."""
    found = [
        f"{pool['near_test']} of {pool['rows']} in {name}"
        + ("" if pool["removed"] == pool["near_test"] else " (STILL USED)")
        for name, pool in contamination.items()
        if pool["near_test"]
    ]
    if not found:
        return "no prompt that the run may learn from is near a test prompt"
    return f"near a test prompt and removed: {', '.join(found)}"
