"""From scores and labels to probabilities and thresholds that keep a stated promise.

A row is harmful for a threshold t if `score >= t`. Thresholds are on the scores as the model gives
them. A calibrator keeps their order, so no promise depends on it: it says which probability a
score stands for.

The promises. For n safe rows, drawn independently as traffic's safe rows are, let k be the most
false positives for which

    P(Binomial(n, alpha) <= k) <= 1 - confidence.

The threshold lies above the (k+1)-th largest safe score. If its true FPR were more than alpha, at
most k of the n scores would lie in the top share alpha of all safe scores, which has at most this
probability (Tong, Feng and Li, Neyman-Pearson classification algorithms and NP receiver operating
characteristics, Science Advances 4, 2018, Proposition 1). k depends on n alone and is fixed before
a score is seen. To look for a good threshold first, and then to quote the Clopper-Pearson bound of
the rows that chose it, is not the same: the bound is for a threshold that has not seen them. Ties
at the (k+1)-th score are all called safe, which can only lower the FPR: with ties the FPR exceeds
alpha only if at most k scores reach the lowest score that has no more than alpha above it, and at
least alpha of all scores reach that one. Recall is the same promise about the harmful rows' misses.

The promised FPR and recall do not depend on how many rows of traffic are harmful; precision, F1,
cost and the volume of a review band do, and are given for a prevalence.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import binom, binomtest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ssl_guard.errors import BadInput
from ssl_guard.evaluation.metrics import Interval

EDGE = 1e-7  # scores are clipped to [EDGE, 1 - EDGE] before a logit; predictions have 7 decimals
TEMPERATURES = (0.05, 20.0)  # limits; rows whose classes do not overlap would push it to 0


def check(labels: np.ndarray, scores: np.ndarray) -> None:
    """Raises BadInput for labels, int [rows], or scores, float [rows], that fit no threshold."""
    if not np.isin(labels, (0, 1)).all():
        raise BadInput("a calibration row has a label other than 0 or 1: leave it out.")
    usable = (scores >= 0) & (scores <= 1)  # not a number is neither
    if not usable.all():
        raise BadInput(
            f"{int((~usable).sum())} of {len(scores)} calibration scores are not between 0 and 1: "
            "score the rows again."
        )
    harmful = int(labels.sum())
    if not 0 < harmful < len(labels):
        raise BadInput(
            f"the calibration rows are {harmful} harmful and {len(labels) - harmful} safe ones, "
            "but both classes are needed: add rows of the other."
        )
    if scores.min() == scores.max():
        raise BadInput(
            f"all {len(scores)} calibration rows have the score {scores[0]:g}: the model does not "
            "tell them apart, so no threshold can; train it again."
        )


def independent(groups: np.ndarray, labels: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """Positions of one row for every group and label: int [kept rows].

    Near-duplicates do not count as evidence for each other, so a promise that is made of n
    independent rows may count a group once. The sha256 of the ids draws the rows and puts them in
    order, so that the order in which they came changes nothing.
    """
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    first = {(int(groups[i]), int(labels[i])): i for i in reversed(order)}
    return np.array([i for i in order if first[int(groups[i]), int(labels[i])] == i])


# Probabilities: a calibrator is a dict of numbers and lists of numbers, for JSON.


def fit(kind: str, labels: np.ndarray, scores: np.ndarray) -> dict:
    """A calibrator, for `apply`. kind is a name in FITS; labels: int [rows]; scores: float [rows].

    Raises BadInput for what `check` refuses and for scores that Platt finds upside down.
    """
    check(labels, scores)
    if kind not in FITS:
        raise BadInput(f"the calibrator {kind!r} is none of {', '.join(FITS)}.")
    return {"kind": kind, **FITS[kind](labels, scores)}


def apply(calibrator: dict, scores: np.ndarray) -> np.ndarray:
    """Calibrated harmful probabilities, float [rows], which never fall as scores rise."""
    if calibrator["kind"] == "none":
        return np.asarray(scores, float)
    if calibrator["kind"] == "isotonic":
        return np.interp(scores, calibrator["scores"], calibrator["probabilities"])
    slope = calibrator["slope"] if calibrator["kind"] == "platt" else 1 / calibrator["temperature"]
    return expit(slope * _logits(scores) + calibrator.get("intercept", 0.0))


def _logits(scores: np.ndarray) -> np.ndarray:
    """The difference of the two classes' logits, which is the logit of the harmful probability."""
    return logit(np.clip(scores, EDGE, 1 - EDGE))


def _temperature(labels, scores) -> dict:
    """Divides logits by the T of the least negative log likelihood, which is convex in 1 / T (Guo
    et al., On calibration of modern neural networks, 2017, section 4.2)."""
    margins = np.where(labels == 1, 1, -1) * _logits(scores)
    coldest, hottest = TEMPERATURES
    found = minimize_scalar(
        lambda slope: np.logaddexp(0, -slope * margins).mean(),
        bounds=(1 / hottest, 1 / coldest),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return {"temperature": float(1 / found.x)}


def _platt(labels, scores) -> dict:
    """Logistic regression on the logit, without penalty, on Platt's targets (N+ + 1) / (N+ + 2) and
    1 / (N- + 2), which keep the slope finite when the classes do not overlap (Platt, Probabilistic
    outputs for support vector machines, 1999, section 2.2). A target is a row of each label with
    weights that sum to 1."""
    harmful, safe = int((labels == 1).sum()), int((labels == 0).sum())
    target = np.where(labels == 1, (harmful + 1) / (harmful + 2), 1 / (safe + 2))
    head = LogisticRegression(C=np.inf, tol=1e-9, max_iter=1000).fit(
        np.tile(_logits(scores), 2)[:, None],
        np.repeat([1, 0], len(labels)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    slope, intercept = float(head.coef_[0, 0]), float(head.intercept_[0])
    if slope < 0:
        raise BadInput(
            "harmful calibration rows have lower scores than safe ones: the model is worse than "
            "guessing here; train it again, or check which label means harmful."
        )
    return {"slope": slope, "intercept": intercept}


def _isotonic(labels, scores) -> dict:
    """The rising step function of the least squares, linear between its steps (Zadrozny and Elkan,
    Transforming classifier scores into accurate multiclass probability estimates, 2002)."""
    found = IsotonicRegression(out_of_bounds="clip").fit(scores, labels)
    return {
        "scores": found.X_thresholds_.tolist(),
        "probabilities": found.y_thresholds_.tolist(),
    }


FITS = {
    "temperature": _temperature,
    "platt": _platt,
    "isotonic": _isotonic,
    "none": lambda labels, scores: {},
}


def shift(probabilities: np.ndarray, *, share: float, prevalence: float) -> np.ndarray:
    """Probabilities that are right where `share` of rows is harmful, for traffic where `prevalence`
    is: the logit moves by the difference of the priors' logits (Saerens, Latinne and Decaestecker,
    Adjusting the outputs of a classifier to new a priori probabilities, 2002, section 2.2)."""
    return expit(logit(probabilities) + logit(prevalence) - logit(share))


# Thresholds


def errors_allowed(rows: int, rate: float, confidence: float) -> int:
    """The most errors k in `rows` with P(Binomial(rows, rate) <= k) <= 1 - confidence; -1 if even
    none is too many. The same k is the largest whose one-sided Clopper-Pearson bound is `rate`."""
    doubt = (1 - confidence) * (1 + 1e-12)
    k = int(binom.ppf(1 - confidence, rows, rate))
    return k if binom.cdf(k, rows, rate) <= doubt else k - 1


def rows_needed(rate: float, confidence: float) -> int:
    """The fewest rows for which `errors_allowed` is not -1: ln(1 - confidence) / ln(1 - rate)."""
    return int(np.ceil(np.log1p(-confidence) / np.log1p(-rate) * (1 - 1e-12)))


def fpr_threshold(
    labels: np.ndarray, scores: np.ndarray, *, at_most: float, confidence: float
) -> tuple[float, int]:
    """(t, false positives allowed): the lowest t that keeps FPR <= at_most with this confidence.

    labels: int [rows]; scores: float [rows]; rows are independent. t lies halfway to the next
    larger score, so that rounding does not move a verdict. Raises BadInput for too few safe rows.
    """
    check(labels, scores)
    safe = np.sort(scores[labels == 0])[::-1]
    k = errors_allowed(len(safe), at_most, confidence)
    if k < 0:
        raise BadInput(
            f"FPR <= {at_most:g} with {confidence:.4g} confidence needs "
            f"{rows_needed(at_most, confidence)} safe rows that are no near-duplicates of each "
            f"other, and there are {len(safe)}: add rows, or ask for "
            f"FPR <= {_least_rate(len(safe), confidence):.4f}."
        )
    larger = scores[scores > safe[k]]
    halfway = (safe[k] + (larger.min() if larger.size else 1.0)) / 2
    return float(max(halfway, np.nextafter(safe[k], 2))), k


def recall_threshold(
    labels: np.ndarray, scores: np.ndarray, *, at_least: float, confidence: float
) -> tuple[float, int]:
    """(t, misses allowed): the highest t that keeps recall >= at_least with this confidence.

    As `fpr_threshold`; t lies halfway to the next smaller score. Raises BadInput for too few
    harmful rows.
    """
    check(labels, scores)
    harmful = np.sort(scores[labels == 1])
    k = errors_allowed(len(harmful), 1 - at_least, confidence)
    if k < 0:
        raise BadInput(
            f"recall >= {at_least:g} with {confidence:.4g} confidence needs "
            f"{rows_needed(1 - at_least, confidence)} harmful rows that are no near-duplicates of "
            f"each other, and there are {len(harmful)}: add rows, or ask for "
            f"recall >= {1 - _least_rate(len(harmful), confidence):.4f}."
        )
    smaller = scores[scores < harmful[k]]
    return float((harmful[k] + (smaller.max() if smaller.size else 0.0)) / 2), k


def _least_rate(rows: int, confidence: float) -> float:
    """The smallest error rate that so many rows can promise, rounded up to four decimals."""
    return np.ceil(1e4 * -np.expm1(np.log1p(-confidence) / rows)) / 1e4


def best_f1_threshold(labels: np.ndarray, scores: np.ndarray, *, prevalence: float) -> float:
    """The threshold of the best F1 of the harmful class where `prevalence` of rows is harmful.

    At the rows' own share it is `metrics.best_f1_threshold`. It promises nothing.
    """
    edges, recall, fpr = _operating_points(labels, scores)
    hits, alarms = prevalence * recall, (1 - prevalence) * fpr
    return _best(edges, 2 * hits / (hits + alarms + prevalence))


def cheapest_threshold(
    labels: np.ndarray,
    scores: np.ndarray,
    *,
    prevalence: float,
    false_positive: float,
    false_negative: float,
) -> float:
    """The threshold of the least expected cost a row, from the cost of each error. It promises
    nothing, and flags no row at all where that is cheapest."""
    edges, recall, fpr = _operating_points(labels, scores)
    cost = false_positive * (1 - prevalence) * fpr + false_negative * prevalence * (1 - recall)
    return _best(edges, -cost)


def _operating_points(labels, scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every threshold that makes a difference, with its recall and FPR on these rows."""
    check(labels, scores)
    levels = np.unique(scores)
    edges = np.concatenate(
        [levels[:1], (levels[1:] + levels[:-1]) / 2, np.nextafter(levels[-1:], 2)]
    )
    flagged = [
        1 - np.searchsorted(np.sort(scores[labels == label]), edges) / (labels == label).sum()
        for label in (1, 0)
    ]
    return edges, *flagged


def _best(edges: np.ndarray, values: np.ndarray) -> float:
    """The edge of the largest value; of equally good ones the one nearest 0.5."""
    best = np.flatnonzero(values >= values.max() - 1e-12)
    return float(edges[best[np.argmin(np.abs(edges[best] - 0.5))]])


# What a threshold does


def interval(hits: int, rows: int, confidence: float) -> Interval:
    """hits / rows with its two-sided Clopper-Pearson interval."""
    found = binomtest(int(hits), int(rows)).proportion_ci(confidence, method="exact")
    return Interval(float(hits / rows), float(found.low), float(found.high))


def measure(
    labels: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    *,
    prevalence: float,
    confidence: float,
) -> dict:
    """FPR and recall on these rows, and what they make of traffic: {name: {value, low, high}}.

    precision and flagged (the share of rows called harmful) are those expected at the prevalence;
    their intervals are the worst and the best of both rates' Clopper-Pearson intervals, each at
    half the doubt. precision has the value None where no row is flagged.
    """
    verdict = scores >= threshold

    def rate(label, confidence):
        return interval(verdict[labels == label].sum(), (labels == label).sum(), confidence)

    joint = 1 - (1 - confidence) / 2
    recall, fpr = rate(1, joint), rate(0, joint)

    def precision(recall, fpr):
        hits, alarms = prevalence * recall, (1 - prevalence) * fpr
        return float(hits / (hits + alarms)) if hits + alarms else None

    return {
        "fpr": rate(0, confidence)._asdict(),
        "recall": rate(1, confidence)._asdict(),
        "precision": {
            "value": precision(recall.value, fpr.value),
            "low": precision(recall.low, fpr.high),
            "high": precision(recall.high, fpr.low),
        },
        "flagged": _in_traffic(recall, fpr, prevalence)._asdict(),
    }


def review_band(
    labels: np.ndarray,
    scores: np.ndarray,
    *,
    low: float,
    high: float,
    prevalence: float,
    confidence: float,
) -> dict:
    """Rows with low <= score < high, for people to judge: {low, high, volume, harmful_share}.

    volume is their expected share of traffic, {value, low, high}, its interval as in `measure`;
    harmful_share the expected share of harmful ones among them, None for an empty band. With low
    above high one threshold keeps both promises, and the band at `high` is empty.
    """
    if low >= high:
        nothing = Interval(0.0, 0.0, 0.0)._asdict()
        return {"low": high, "high": high, "volume": nothing, "harmful_share": None}
    inside = (scores >= low) & (scores < high)
    joint = 1 - (1 - confidence) / 2
    harmful, safe = (
        interval(inside[labels == label].sum(), (labels == label).sum(), joint) for label in (1, 0)
    )
    volume = _in_traffic(harmful, safe, prevalence)
    share = float(prevalence * harmful.value / volume.value) if volume.value else None
    return {"low": low, "high": high, "volume": volume._asdict(), "harmful_share": share}


def _in_traffic(harmful: Interval, safe: Interval, prevalence: float) -> Interval:
    """A share of harmful rows and one of safe rows, as a share of all."""
    both = zip(harmful, safe, strict=True)
    return Interval(*(float(prevalence * h + (1 - prevalence) * s) for h, s in both))


def policy(
    labels: np.ndarray,
    scores: np.ndarray,
    *,
    calibrator: str = "temperature",
    target_fpr: float = 0.01,
    target_recall: float = 0.9,
    confidence: float = 0.95,
    prevalence: float | None = None,
    costs: tuple[float, float] | None = None,
) -> dict:
    """The operating point as JSON values: calibrator, three thresholds, and a band for review.

    labels: int [rows]; scores: float [rows] in [0, 1]; rows are independent. prevalence: share of
    traffic that is harmful, None for that of these rows. costs: of a false positive and of a false
    negative. Each promise is kept with the confidence by itself.

        strict      misses little: recall >= target_recall
        balanced    best F1 at the prevalence, or the least cost if costs are given; no promise
        permissive  stops little: FPR <= target_fpr
        abstain     scores from strict's threshold up to permissive's go to people

    A threshold's `probability` is what its score stands for at the prevalence.

    Raises BadInput for rows that cannot keep a promise, and for settings out of range.
    """
    check(labels, scores)
    share = float(labels.mean())
    prevalence = share if prevalence is None else prevalence
    settings = {
        "target_fpr": target_fpr,
        "target_recall": target_recall,
        "confidence": confidence,
        "prevalence": prevalence,
    }
    for name, value in settings.items():
        if not 0 < value < 1:
            raise BadInput(f"{name} = {value:g} must be above 0 and below 1.")
    if costs is not None and not min(costs) > 0:
        raise BadInput(f"the costs of errors, {costs[0]:g} and {costs[1]:g}, must be above 0.")

    calibrated = fit(calibrator, labels, scores)
    strict, misses = recall_threshold(labels, scores, at_least=target_recall, confidence=confidence)
    permissive, alarms = fpr_threshold(labels, scores, at_most=target_fpr, confidence=confidence)
    if costs is None:
        balanced = best_f1_threshold(labels, scores, prevalence=prevalence)
        aim = f"best F1 at {prevalence:.4g} harmful"
    else:
        balanced = cheapest_threshold(
            labels, scores, prevalence=prevalence, false_positive=costs[0], false_negative=costs[1]
        )
        aim = f"least cost at {prevalence:.4g} harmful, {costs[0]:g} to {costs[1]:g}"
    promise = f"with {confidence:.4g} confidence"
    thresholds = {
        "strict": (strict, f"recall >= {target_recall:g} {promise}", misses),
        "balanced": (balanced, f"none: {aim}", None),
        "permissive": (permissive, f"FPR <= {target_fpr:g} {promise}", alarms),
    }
    at = {"prevalence": prevalence, "confidence": confidence}
    return {
        "method": "exact binomial tail of an order statistic",
        **settings,
        "rows": len(labels),
        "harmful": int(labels.sum()),
        "calibrator": calibrated,
        "thresholds": {
            name: {
                "threshold": value,
                "probability": float(
                    shift(apply(calibrated, value), share=share, prevalence=prevalence)
                ),
                "promise": text,
                "errors_allowed": allowed,
                "measured": measure(labels, scores, value, **at),
            }
            for name, (value, text, allowed) in thresholds.items()
        },
        "abstain": review_band(labels, scores, low=strict, high=permissive, **at),
    }
