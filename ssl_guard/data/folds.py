"""Divides labelled rows into folds for cross-validation."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ssl_guard.data.duplicates import group_numbers
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput


def key(folds: int, fold: int) -> dict[str, list[int]]:
    """Returns the key of soft labels' manifests that names the rows learned; {} without folds."""
    return {"folds": [folds, fold]} if folds else {}


def assign(examples: Sequence[Example], folds: int, seed: int) -> np.ndarray:
    """Returns the fold of each labelled row, int64 [rows] in [0, folds).

    Near-duplicate prompts share a fold, and folds have similar shares of the classes. The same
    rows, folds and seed give the same folds. Raises BadInput unless every fold has both classes.
    """
    labels = np.array([example.label for example in examples])
    rarest = int(np.bincount(labels, minlength=2).min())
    advice = "lower config.eval.folds, or raise config.data.labelled."
    if folds > rarest:
        raise BadInput(
            f"{folds} folds need as many labelled rows of each class, and the rarer class has "
            f"{rarest}: {advice}"
        )
    groups = group_numbers(example.prompt for example in examples)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    found = np.empty(len(labels), np.int64)
    for number, (_, held) in enumerate(splitter.split(labels, labels, groups)):
        found[held] = number
    lacking = sum(len(set(labels[found == number])) < 2 for number in range(folds))
    if lacking:
        raise BadInput(
            f"{lacking} of {folds} folds of the {len(labels)} labelled rows lack a class, since "
            f"the {groups.max() + 1} groups of near-duplicate prompts stay together: {advice}"
        )
    return found
