"""What a test has in common with what a model has seen: the contamination of a test set."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssl_guard.data.duplicates import Known, Shingles, near_duplicate_groups
from ssl_guard.data.schema import normalised


class Overlap(NamedTuple):
    """Of every prompt: bool, is it exactly, but for case and white space, one that was seen; bool,
    is it exactly or nearly one; int, the number of its group of near-duplicates."""

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


def near_test(test: Sequence[str], pools: Mapping[str, Shingles]) -> dict[str, np.ndarray]:
    """{pool: bool [its prompts], is it a near-duplicate of a prompt of the test?}"""
    known = Known(Shingles.of(test))
    return {name: known.near(shingles) for name, shingles in pools.items()}


def note(contamination: Mapping[str, Mapping[str, int]]) -> str:
    """The report's "contamination" in a line: what was near the test, and that it is not used."""
    found = [
        f"{pool['near_test']} of {pool['rows']} in {name}"
        + ("" if pool["removed"] == pool["near_test"] else " (STILL USED)")
        for name, pool in contamination.items()
        if pool["near_test"]
    ]
    return f"near a test prompt and removed: {', '.join(found) or 'nothing'}"
