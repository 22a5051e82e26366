"""Folds of the labelled rows: whole groups, classes in equal shares, and rows that do not suffice."""

import numpy as np
import pytest

from ssl_guard.data import folds
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput


def rows(copies=1, harmful=10, safe=20):
    """Prompts that share no three words; each has `copies` near-duplicates of its class."""
    return [
        Example(
            id=f"{label}-{i}-{copy}",
            prompt=f"a{label}{i} b{label}{i} c{label}{i} d{label}{i}{'!' * copy}",
            response="yes",
            label=label,
        )
        for label, count in ((1, harmful), (0, safe))
        for i in range(count)
        for copy in range(copies)
    ]


def test_each_row_has_one_fold_with_the_class_shares_of_all():
    examples = rows()
    found = folds.assign(examples, 5, seed=0)
    labels = np.array([example.label for example in examples])
    for fold in range(5):
        assert np.bincount(labels[found == fold]).tolist() == [4, 2]


def test_near_duplicates_share_a_fold():
    examples = rows(copies=3)
    found = folds.assign(examples, 5, seed=0).reshape(-1, 3)
    assert (found == found[:, :1]).all() and len(set(found.flat)) == 5


def test_the_seed_alone_decides():
    drawn = [folds.assign(rows(), 3, seed).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "examples, count, words",
    [
        (rows(harmful=3), 4, "the rarer class has 3: lower config.eval.folds"),
        (rows(harmful=0), 2, "the rarer class has 0"),
        (rows(copies=4, harmful=1), 3, "folds of the 84 labelled rows lack a class"),
    ],
)
def test_too_few_rows_of_a_class(examples, count, words):
    with pytest.raises(BadInput, match=words):
        folds.assign(examples, count, seed=0)
