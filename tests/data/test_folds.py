"""Folds of labelled rows, against a count of their rows and groups."""

import numpy as np
import pytest

from ssl_guard.data import folds
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput


def rows(prompts, labels):
    return [
        Example(str(i), prompt, None, label, None, "made", "MIT")
        for i, (prompt, label) in enumerate(zip(prompts, labels, strict=True))
    ]


def distinct(count):
    """Prompts without a common run of words."""
    return [f"a{i} b{i} c{i} d{i} e{i}" for i in range(count)]


def test_folds_have_the_shares_of_the_classes():
    labels = np.array([1] * 10 + [0] * 30)
    found = folds.assign(rows(distinct(40), labels), 5, 0)
    for number in range(5):
        assert np.bincount(labels[found == number]).tolist() == [6, 2]
    np.testing.assert_array_equal(folds.assign(rows(distinct(40), labels), 5, 0), found)
    assert (folds.assign(rows(distinct(40), labels), 5, 1) != found).any()


def test_near_duplicates_share_a_fold():
    prompts = [prompt for one in distinct(12) for prompt in (one, f"{one.upper()}!", one)]
    labels = [i % 2 for i in range(12) for _ in range(3)]
    for seed in range(5):
        found = folds.assign(rows(prompts, labels), 3, seed).reshape(12, 3)
        assert (found == found[:, :1]).all()
        assert np.bincount(found[:, 0]).tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    "prompts, labels, words",
    [
        (distinct(20), [1] * 4 + [0] * 16, "the rarer class has 4: lower config.eval.folds"),
        (distinct(8), [1] * 8, "the rarer class has 0"),
        (["a b c d"] * 6 + distinct(6), [1] * 6 + [0] * 6, "4 of 5 folds of the 12 labelled rows"),
    ],
)
def test_too_few_rows_for_the_folds(prompts, labels, words):
    with pytest.raises(BadInput, match=words):
        folds.assign(rows(prompts, labels), 5, 0)


def test_the_key_of_soft_labels():
    assert folds.key(0, -1) == {} and folds.key(5, 2) == {"folds": [5, 2]} != folds.key(5, -1)
