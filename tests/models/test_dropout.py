"""The mask must look like independent coins along every direction: positions, rows, sites, steps.

All draws are fixed, so a bound of 4.5 standard errors never fails by chance.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy.stats import chi2

from ssl_guard.models.dropout import dropout, keep_mask, row_seeds

pytestmark = pytest.mark.usefixtures("optimised")

STEPS, SITES, ROWS = 4, 4, 32
SHAPES = [(48, 64), (4, 24, 32)]  # inside a row: hidden states, attention weights
BOUND = 4.5


@pytest.fixture(scope="module", params=[(0.1, s) for s in SHAPES] + [(0.5, s) for s in SHAPES])
def masks(request):
    """The rate and masks [steps, sites, rows, ...]."""
    rate, shape = request.param
    draw = jax.jit(keep_mask, static_argnums=(0, 1, 3))

    def one(step, site):
        dropout_seeds = row_seeds(jax.random.fold_in(jax.random.key(7), step), jnp.arange(ROWS))
        return draw((ROWS, *shape), rate, dropout_seeds, site)

    return rate, np.array([[one(step, site) for site in range(SITES)] for step in range(STEPS)])


def standard_error(bits, rate):
    """Returns the z score of the share of True against 1 - rate, per slice of axis 0."""
    bits = bits.reshape(len(bits), -1)
    return (bits.mean(1) - (1 - rate)) / np.sqrt(rate * (1 - rate) / bits.shape[1])


@pytest.mark.parametrize("axis", range(5))
def test_keep_rate_is_binomial_along_every_axis(masks, axis):
    rate, bits = masks
    assert abs(standard_error(bits[None], rate)) < BOUND
    z = standard_error(np.moveaxis(bits, axis, 0), rate)
    assert np.abs(z).max() < BOUND
    # The counts must spread as coins do: neither more nor less.
    assert 1e-4 < chi2.cdf((z**2).sum(), len(z)) < 1 - 1e-4


@pytest.mark.parametrize("axis", range(5), ids=["step", "site", "row", "first", "second"])
@pytest.mark.parametrize("lag", [1, 2, 3])
def test_neighbours_are_uncorrelated(masks, axis, lag):
    rate, bits = masks
    x = (bits - (1 - rate)) / np.sqrt(rate * (1 - rate))
    near, far = np.moveaxis(x, axis, 0)[lag:], np.moveaxis(x, axis, 0)[:-lag]
    assert abs((near * far).sum() / np.sqrt(near.size)) < BOUND


def test_patterns_of_four_neighbours_are_as_frequent_as_of_coins(masks):
    rate, bits = masks
    counts = np.bincount(bits.reshape(-1, 4) @ [8, 4, 2, 1], minlength=16)
    kept = np.array([pattern.bit_count() for pattern in range(16)])
    expected = counts.sum() * (1 - rate) ** kept * rate ** (4 - kept)
    assert expected.min() > 30
    assert 1e-4 < chi2.cdf(((counts - expected) ** 2 / expected).sum(), 15) < 1 - 1e-4


def test_no_two_masks_repeat(masks):
    _, bits = masks
    rows = bits.reshape(STEPS * SITES * ROWS, -1)
    assert len({row.tobytes() for row in rows}) == len(rows)


def test_mask_of_a_row_ignores_the_batch_and_the_padded_length():
    rng = jax.random.key(3)
    whole = keep_mask((6, 4, 12, 12), 0.3, row_seeds(rng, jnp.arange(6)), 2)
    part = keep_mask((2, 4, 7, 7), 0.3, row_seeds(rng, jnp.array([5, 2])), 2)
    np.testing.assert_array_equal(part, whole[jnp.array([5, 2]), :, :7, :7])


def test_mask_ignores_the_device_layout():
    devices = jax.devices()
    mesh = jax.make_mesh(
        (len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices
    )
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def draw(rng, x):
        return dropout(x, 0.2, row_seeds(rng, jnp.arange(len(x))), 1)

    x = jnp.ones((8 * len(devices), 5, 6))
    spread = jax.jit(draw, in_shardings=(None, rows), out_shardings=rows)
    np.testing.assert_array_equal(spread(jax.random.key(0), x), draw(jax.random.key(0), x))


@pytest.mark.parametrize("key", [jax.random.key(0, impl="rbg"), jax.random.PRNGKey(0)])
def test_any_kind_of_key_gives_every_row_its_own_seeds(key):
    dropout_seeds = np.asarray(row_seeds(key, jnp.arange(1000)))
    assert dropout_seeds.shape == (1000, 2) and len(np.unique(dropout_seeds)) == 2000


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_value_and_gradient(dtype):
    dropout_seeds = row_seeds(jax.random.key(1), jnp.arange(4))
    x = jnp.arange(1.0, 101, dtype=dtype).reshape(4, 25)
    keep = np.asarray(keep_mask(x.shape, 0.5, dropout_seeds, 0))
    assert 0 < keep.sum() < keep.size
    dropped, gradient = jax.vjp(lambda x: dropout(x, 0.5, dropout_seeds, 0), x)
    assert dropped.dtype == dtype
    np.testing.assert_array_equal(dropped, np.where(keep, 2 * x, 0))
    np.testing.assert_array_equal(gradient(jnp.ones_like(x))[0], 2.0 * keep)


def test_without_seeds_or_rate_nothing_is_dropped():
    x = jnp.ones((2, 3))
    assert dropout(x, 0.5, None, 0) is x
    assert dropout(x, 0.0, row_seeds(jax.random.key(0), jnp.arange(2)), 0) is x
