"""Mixup: partners, shares, and rows that must not be used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inside import LABELLED, UNLABELLED, key
from scipy import stats

from ssl_guard.algorithms import NO_COLLECTIVES, Collectives
from ssl_guard.algorithms.mixup import draw_mixture, larger_share, mix, sharpen

VIEWS = ("labelled", "weak", "strong")
ROWS = LABELLED + 2 * UNLABELLED


def batch_of(labelled_weight, weight):
    row = {view: {"row": jnp.arange(len(weight))} for view in ("weak", "strong")}
    labelled = {"row": jnp.arange(len(labelled_weight)), "weight": jnp.array(labelled_weight)}
    return row | {"labelled": labelled, "weight": jnp.array(weight)}


def test_partners_permute_the_rows_of_all_views():
    batch = batch_of([1.0] * 10, [1.0] * 20)
    mixture = draw_mixture(key(0), batch, VIEWS, 2.0, NO_COLLECTIVES)
    np.testing.assert_array_equal(mixture.row, np.arange(50))
    assert sorted(mixture.partner.tolist()) == list(range(50))
    assert (mixture.share >= 0.5).all() and len(set(mixture.share.tolist())) == 50
    other = draw_mixture(key(1), batch, VIEWS, 2.0, NO_COLLECTIVES)
    assert (mixture.partner != other.partner).any() and (mixture.share != other.share).all()
    x = np.random.default_rng(0).normal(size=(50, 2, 3)).astype(np.float32)
    share, partner = np.asarray(mixture.share)[:, None, None], np.asarray(mixture.partner)
    expected = share * x + (1 - share) * x[partner]
    np.testing.assert_allclose(mix(jnp.asarray(x), mixture, NO_COLLECTIVES), expected, rtol=1e-5)
    assert mix(jnp.asarray(x, "bfloat16"), mixture, NO_COLLECTIVES).dtype == "bfloat16"


@pytest.mark.parametrize("alpha", [0.5, 0.75, 1.0, 16.0])
def test_shares_are_the_larger_part_of_a_beta(alpha):
    """Kolmogorov-Smirnov against P(max(b, 1 - b) <= s) = F(s) - F(1 - s), and both ends."""
    share = np.asarray(larger_share(key(0), alpha, 20000))
    beta = stats.beta(alpha, alpha)
    assert stats.kstest(share, lambda s: beta.cdf(s) - beta.cdf(1 - s)).pvalue > 1e-3
    assert 0.5 <= share.min() < 0.501 and share.max() <= 1
    assert 1 - share.max() < 100 * beta.ppf(1e-4 / 2) + 1e-6


def test_a_row_that_must_not_be_used_enters_no_other_row():
    labelled, weight = [1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]
    weights = np.array(labelled + 2 * weight)
    for step in range(5):
        mixture = draw_mixture(key(step), batch_of(labelled, weight), VIEWS, 2.0, NO_COLLECTIVES)
        unusable = weights[np.asarray(mixture.partner)] == 0
        np.testing.assert_array_equal(np.asarray(mixture.share) == 1, unusable)


def test_every_device_mixes_its_rows_as_one_device_would():
    """vmap with an axis name stands for two devices, each with half the rows of every view."""
    batch = batch_of([1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    x = np.random.default_rng(1).normal(size=(16, 2, 3)).astype(np.float32)

    def mixed(batch, x, across):
        return mix(x, draw_mixture(key(0), batch, VIEWS, 2.0, across), across)

    whole = np.asarray(mixed(batch, jnp.asarray(x), NO_COLLECTIVES))
    two = Collectives(None, lambda x: jax.lax.all_gather(x, "devices", tiled=True))
    halves = np.array([[0, 1, 4, 5, 6, 10, 11, 12], [2, 3, 7, 8, 9, 13, 14, 15]])
    batch = jax.tree.map(lambda x: x.reshape(2, -1), batch)
    run = jax.vmap(lambda batch, x: mixed(batch, x, two), axis_name="devices")
    np.testing.assert_allclose(run(batch, x[halves]), whole[halves], rtol=1e-6)
    assert (whole != x).any(axis=(1, 2)).sum() > 8


def test_sharpen():
    probs = np.array([[0.6, 0.3, 0.1], [1.0, 0.0, 0.0], [1 / 3] * 3], np.float32)
    squares = probs**2 / (probs**2).sum(-1, keepdims=True)
    np.testing.assert_allclose(sharpen(jnp.asarray(probs), 0.5), squares, rtol=1e-5)
    np.testing.assert_allclose(sharpen(jnp.asarray(probs), 1.0), probs, rtol=1e-5)
    assert np.isfinite(sharpen(jnp.full((1, 1000), 1e-3), 0.01)).all()
