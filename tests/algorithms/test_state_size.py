"""The bytes per example that the docstrings promise are those of the real state."""

import jax
import pytest

from ssl_guard import algorithms

CLASSES, WIDTH = 3, 5
# Bytes per pool example and head number H, as in the docstring of the method's file.
PER_EXAMPLE = {
    "flexmatch": ({}, lambda H: 4 * H),
    "marginmatch": ({"threshold": "fixed"}, lambda H: 4 * H * (CLASSES + 1) + 4),
    "marginmatch agreement": (
        {"threshold": "agreement"},
        lambda H: 4 * H * (CLASSES + 1) + 4 + 4 * H,
    ),
    "marginmatch virtual": (
        {"threshold": "virtual"},
        lambda H: 4 * H * (CLASSES + 1) + 4 + 4 * H + 8,
    ),
    "multimatch": ({}, lambda H: 4 * (H * CLASSES + H + 1)),
}
CASES = PER_EXAMPLE | {
    name: ({}, lambda H: 0) for name in algorithms.ALGORITHMS if name not in PER_EXAMPLE
}


def nbytes(name, hyper_parameters, heads, pool, labelled=7):
    """Of the state's shapes, nothing is allocated."""
    algorithm = algorithms.build(name.split()[0], **hyper_parameters)
    sizes = {} if algorithm.forward is None else {"labelled_size": labelled, "width": WIDTH}
    state = jax.eval_shape(lambda: algorithm.init_state(pool, CLASSES, heads, **sizes))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_bytes_per_pool_example(name, heads):
    hyper_parameters, expected = CASES[name]
    grown = nbytes(name, hyper_parameters, heads, 1010) - nbytes(name, hyper_parameters, heads, 10)
    assert grown == 1000 * expected(heads)


def test_bytes_per_labelled_row():
    grown = nbytes("simmatch", {}, 1, 10, labelled=107) - nbytes("simmatch", {}, 1, 10)
    assert grown == 100 * (4 * WIDTH + 4)
