"""Reads from the baseline's budget curve how many labels an equal score takes."""

from collections.abc import Mapping

import numpy as np
from sklearn.isotonic import isotonic_regression

from ssl_guard.evaluation import bootstrap


def labels_needed(value: float, labels: np.ndarray, means: np.ndarray) -> float:
    """Returns the smallest number of labels at which a monotone curve reaches a value.

    labels: rising, int [budgets]; means: the baseline's mean at each, float [budgets], of which the
    isotonic regression is interpolated linearly in the logarithm of the labels. 0 if the first
    budget reaches the value already, infinity if none does.
    """
    fitted = isotonic_regression(means)
    after = int(np.searchsorted(fitted, value))
    if after in (0, len(labels)):
        return float(after and np.inf)
    low, high = fitted[after - 1], fitted[after]
    ends = np.log(labels[after - 1 : after + 1])
    return float(np.exp(ends[0] + (value - low) / (high - low) * (ends[1] - ends[0])))


def worth(
    mine: Mapping[int, np.ndarray], curve: Mapping[int, Mapping[int, np.ndarray]]
) -> dict | None:
    """Computes the labels with which the baseline reaches the mean of a method, with an interval.

    mine: {seed: float [1 + resamples]}, a metric on test, then on resamples of its rows; curve:
    {labels: the same of the baseline}. Returns value, low and high (`labels_needed`; 95%, of a
    bootstrap over seeds and test rows), least and most (labels of the curve's ends), and seeds, of
    all arms here. None for a curve of one budget, and without a seed in common.
    """
    seeds = sorted(set(mine).intersection(*curve.values()))
    if not seeds or len(curve) < 2:
        return None
    labels = np.array(sorted(curve))
    arms = [mine, *(curve[number] for number in labels)]
    values = np.array([[arm[seed] for seed in seeds] for arm in arms])  # [arms, seeds, resamples]
    drawn = np.array([bootstrap.mean_over_seeds(arm[:, 1:]) for arm in values])
    own, *means = np.column_stack([values[:, :, 0].mean(axis=1), drawn])
    needed = [labels_needed(v, labels, m) for v, m in zip(own, np.transpose(means), strict=True)]
    # Of infinities no mean can be taken, so the quantiles are values of the resamples.
    low, high = np.quantile(needed[1:], [0.025, 0.975], method="inverted_cdf")
    return {
        "value": needed[0],
        "low": float(low),
        "high": float(high),
        "least": int(labels[0]),
        "most": int(labels[-1]),
        "seeds": len(seeds),
    }
