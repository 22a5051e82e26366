"""Bootstrap intervals of all metrics, p-values, and correction for multiple comparisons.

The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13)
over groups of near-duplicate rows. A resample is a vector of counts, one a row. The rows are sorted
once, and every metric of every resample comes from cumulative sums along that order, so 1,000
resamples of 12,000 rows take seconds. A resample with one class, where no ranking is defined, is
drawn again unless the set itself has one class.
"""

import functools
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ssl_guard.evaluation import metrics
from ssl_guard.evaluation.metrics import Interval

CHUNK = 32  # resamples at a time: what fits the cache
RANKING = ("best_f1", "auprc", "auroc", "ece", "brier", *metrics.RECALL_AT)


def score_intervals(
    labels: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    groups: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Returns `metrics.binary_scores` with 95% intervals: {metric: {value, low, high}}.

    labels: int [rows]; scores: float [rows]; groups: int [rows], of rows that belong together.
    """
    point = metrics.binary_scores(labels, scores, threshold)
    parts = [
        weighted_scores(labels, scores, threshold, weights)
        for weights in resampled(labels, groups, resamples, seed)
    ]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in point}
    return {name: _interval(value, drawn[name])._asdict() for name, value in point.items()}


def mean_interval(
    values: np.ndarray, groups: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Computes the mean of float [rows], a share or a paired difference of shares."""
    drawn = [
        weights @ values / weights.sum(axis=1)
        for weights in resampled(np.ones(len(values), int), groups, resamples, seed)
    ]
    return _interval(float(values.mean()), np.concatenate(drawn))


def mean_over_seeds(drawn: np.ndarray, seed: int = 0) -> np.ndarray:
    """Computes the mean over seeds, which every resample of rows draws anew: float64 [resamples].

    drawn: float [seeds, resamples], a statistic of each seed on resamples that the seeds share. The
    same shape gives the same draws, so means of two arms are paired. One seed stays as it is.
    """
    count, resamples = drawn.shape
    seeds = np.random.default_rng(seed).integers(count, size=(resamples, count))
    return drawn[seeds, np.arange(resamples)[:, None]].mean(axis=1)


def p_value(drawn: np.ndarray) -> float:
    """Computes the two-sided p-value of a difference of 0 from bootstrap differences (Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, section 4.4: never exactly 0)."""
    smaller = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (1 + smaller) / (1 + len(drawn))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts the p-values of m comparisons to control the family-wise error rate (Holm 1979).

    An adjusted value is the maximum of (m - rank) p over the ranks up to its own, ranks from 0.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def resampled(
    labels: np.ndarray, groups: np.ndarray, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields how often each row occurs: int64 [at most CHUNK, rows], `resamples` rows in total."""
    _, group_of_row = np.unique(groups, return_inverse=True)
    count = group_of_row.max() + 1
    harmful = np.bincount(group_of_row, weights=labels == 1)
    safe = np.bincount(group_of_row, weights=labels == 0)
    one_class = not harmful.any() or not safe.any()
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        chunk: list[np.ndarray] = []
        while len(chunk) < min(CHUNK, resamples - start):
            times = np.bincount(rng.integers(count, size=count), minlength=count)
            if one_class or (times @ harmful and times @ safe):
                chunk.append(times)
        yield np.stack(chunk)[:, group_of_row]


def weighted_scores(
    labels: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    weights: np.ndarray,
    ranking: Collection[str] = RANKING,
) -> dict[str, np.ndarray]:
    """Computes `metrics.binary_scores` of every resample: float64 [resamples] each.

    weights: int [resamples, rows], how often each row occurs; if the set has both classes, each
    resample must have both. ranking: the metrics of RANKING to compute, which are slower than the
    rest. In the calibration error, ties keep their order here.
    """
    total, harmful = weights.sum(axis=1), weights[:, labels == 1].sum(axis=1)

    def at(limit: float) -> dict[str, np.ndarray]:
        hits = weights[:, (scores >= limit) & (labels == 1)].sum(axis=1)
        alarms = weights[:, (scores >= limit) & (labels == 0)].sum(axis=1)
        return metrics.rates(hits, alarms, harmful, total - harmful)

    found = metrics.defined(at(threshold), at(0.5), labels)
    if labels.min() == labels.max() or not ranking:
        return found
    order = np.argsort(scores, kind="stable")
    scores, labels, weights = scores[order], labels[order], weights[:, order]
    rows, harmful_rows = weights.cumsum(axis=1), (weights * labels).cumsum(axis=1)
    total, harmful = total[:, None], harmful[:, None]
    # Rows and harmful rows with at least each distinct score; none has more than the highest.
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    called = np.pad(total - rows[:, starts] + weights[:, starts], ((0, 0), (0, 1)))
    hits = harmful - harmful_rows[:, starts] + weights[:, starts] * labels[starts]
    hits = np.pad(hits, ((0, 0), (0, 1)))
    alarms, safe = called - hits, total - harmful
    gained, alarmed = -np.diff(hits, axis=1), -np.diff(alarms, axis=1)

    def recall_at(limit: float) -> np.ndarray:
        allowed = (alarms / safe > limit + 1e-12).sum(axis=1)  # the first with no more: it falls
        return np.take_along_axis(hits, allowed[:, None], axis=1)[:, 0] / harmful[:, 0]

    ranked = {
        "best_f1": lambda: (2 * hits / (called + harmful)).max(axis=1),
        "auprc": lambda: (
            (gained * (hits / np.maximum(called, 1))[:, :-1]).sum(axis=1) / harmful[:, 0]
        ),
        "auroc": lambda: (
            (alarmed * (hits[:, :-1] + hits[:, 1:])).sum(axis=1) / (2 * harmful * safe)[:, 0]
        ),
        "ece": lambda: _calibration_errors(scores, labels, weights, rows, harmful_rows),
        "brier": lambda: weights @ np.square(scores - labels) / total[:, 0],
    } | {
        name: functools.partial(recall_at, limit) for name, limit in metrics.RECALL_AT.items()
    }  # fmt: skip
    return found | {name: ranked[name]() for name in ranked if name in ranking}


def _calibration_errors(scores, labels, weights, rows, harmful_rows) -> np.ndarray:
    """Computes `metrics.expected_calibration_error` of every resample; rows sorted by score."""
    score_sums = (weights * scores).cumsum(axis=1)
    errors = []
    for n, y, s in zip(rows, harmful_rows, score_sums, strict=True):
        bins = min(metrics.BINS, int(n[-1]))
        sizes = n[-1] // bins + (np.arange(bins) < n[-1] % bins)
        ends = sizes.cumsum()
        last = np.searchsorted(n, ends)  # the row in which a bin ends, some copies of it too many
        over = n[last] - ends
        harmful = np.diff(y[last] - over * labels[last], prepend=0)
        score = np.diff(s[last] - over * scores[last], prepend=0)
        errors.append(np.abs(harmful - score).sum() / n[-1])
    return np.array(errors)


def _interval(value: float, drawn: np.ndarray) -> Interval:
    """Returns the percentile interval, extended to the value.

    Resampling biases some metrics upwards, the calibration error of few rows above all, so that
    all resamples may be above the value.
    """
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(min(low, value)), float(max(high, value)))
