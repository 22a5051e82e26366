import itertools

import numpy as np
import pytest

from ssl_guard.data import bucketing


def computed(table, needs, cost):
    return sum(bucketing.first_that_holds(table, need) @ cost for need in needs)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
def test_no_table_of_one_view_pads_less(count):
    needs = np.random.default_rng(count).integers(1, 12, (30, 1))
    table = bucketing.choose(needs, np.array([3]), count)
    assert len(table) <= count and table[-1] == needs.max()
    values = np.unique(needs)
    best = min(
        computed(np.array([*chosen, needs.max()])[:, None], needs, [3])
        for chosen in itertools.combinations(values[:-1], min(count, len(values)) - 1)
    )
    assert computed(table, needs, [3]) == best


def test_a_table_of_several_views_rises_and_holds_every_step():
    rng = np.random.default_rng(0)
    base, cost = rng.geometric(0.05, (300, 1)), np.array([16, 32, 32])
    needs = base + rng.integers(0, 9, (300, 3))
    tokens = []
    for count in (1, 2, 4, 8, 16):
        table = bucketing.choose(needs, cost, count)
        assert len(table) == count and table.dtype == np.int64
        assert (np.diff(table, axis=0) >= 0).all() and (np.diff(table @ cost) > 0).all()
        np.testing.assert_array_equal(table[-1], needs.max(axis=0))
        held = [bucketing.first_that_holds(table, need) for need in needs]
        assert (needs <= held).all()
        tokens.append(computed(table, needs, cost))
    assert tokens == sorted(tokens, reverse=True)
    assert tokens[-1] < 1.25 * (needs @ cost).sum() < 0.5 * tokens[0]


def test_the_first_row_that_holds_all_views_is_taken():
    table = np.array([[8, 16], [16, 16], [32, 64]])
    for need, row in (((8, 16), 0), ((9, 1), 1), ((1, 17), 2), ((32, 64), 2)):
        np.testing.assert_array_equal(bucketing.first_that_holds(table, np.array(need)), table[row])
