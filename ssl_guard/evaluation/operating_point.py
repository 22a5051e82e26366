"""Operating points: thresholds on scores that keep a stated promise.

A row is harmful for a threshold t if `score >= t`. Thresholds are on uncalibrated scores, so no
promise depends on the calibrator.

For n safe rows, drawn independently from the distribution of traffic's safe rows, let k be the
largest number of false positives for which

    P(Binomial(n, alpha) <= k) <= 1 - confidence.

The threshold lies above the (k+1)-th largest safe score. If its true FPR were more than alpha, at
most k of the n scores would lie in the top share alpha of all safe scores, which has at most this
probability (Tong, Feng and Li, Neyman-Pearson classification algorithms and NP receiver operating
characteristics, Science Advances 4, 2018, Proposition 1). k depends on n alone and is fixed before
a score is seen. Choosing a good threshold first and quoting its Clopper-Pearson bound on the same
rows is not equivalent: that bound holds for a threshold that is independent of the rows. Ties at
the (k+1)-th score are all called safe, which can only lower the FPR: with ties the FPR exceeds
alpha only if at most k scores reach the lowest score that has no more than alpha above it, and at
least alpha of all scores reach that one. Recall is the same promise about the misses of harmful
rows.

The promised FPR and recall do not depend on the share of harmful rows in traffic. Precision, F1,
cost and the volume of a review band do, and are given for a prevalence.
"""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binom, binomtest

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import calibrators, metrics
from ssl_guard.evaluation.metrics import Interval

PROFILES = ("strict", "balanced", "permissive")  # thresholds of a policy.json
GIVEN = "given"  # the threshold policy of a given threshold, or of a scorer's own verdicts
DEV = "dev_best_f1"  # the threshold policy of a run without policy.json


def errors_allowed(rows: int, rate: float, confidence: float) -> int:
    """Computes the largest k with P(Binomial(rows, rate) <= k) <= 1 - confidence; -1 if there is
    none. It is also the largest k whose one-sided Clopper-Pearson bound is at most `rate`."""
    doubt = (1 - confidence) * (1 + 1e-12)
    k = int(binom.ppf(1 - confidence, rows, rate))
    return k if binom.cdf(k, rows, rate) <= doubt else k - 1


def rows_needed(rate: float, confidence: float) -> int:
    """Computes the fewest rows for which `errors_allowed` is not -1: ln(1 - confidence) / ln(1 -
    rate)."""
    return int(np.ceil(np.log1p(-confidence) / np.log1p(-rate) * (1 - 1e-12)))


def fpr_threshold(
    labels: np.ndarray, scores: np.ndarray, *, at_most: float, confidence: float
) -> tuple[float, int]:
    """Returns (t, false positives allowed), t the lowest threshold that keeps the promise on FPR.

    labels: int [rows]; scores: float [rows]; rows are independent. t lies halfway to the next
    larger score, so that rounding does not change a verdict. Raises BadInput for too few safe rows.
    """
    calibrators.check(labels, scores)
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
    """Returns (t, misses allowed), t the highest threshold that keeps the promise on recall.

    As `fpr_threshold`; t lies halfway to the next smaller score. Raises BadInput for too few
    harmful rows.
    """
    calibrators.check(labels, scores)
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
    """Returns the smallest error rate that this many rows can guarantee, rounded up to 1e-4."""
    return np.ceil(1e4 * -np.expm1(np.log1p(-confidence) / rows)) / 1e4


def interval(hits: int, rows: int, confidence: float) -> Interval:
    """Computes hits / rows with its two-sided Clopper-Pearson interval."""
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
    """Measures FPR and recall on rows and their effect on traffic: {name: {value, low, high}}.

    precision and flagged (the share of rows called harmful) are expected values at the
    prevalence; their intervals combine the ends of both Clopper-Pearson intervals, each at half of
    1 - confidence. precision has the value None where no row is flagged.
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
    """Measures the band low <= score < high for human review: {low, high, volume, harmful_share}.

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
    """Combines a share of harmful rows and one of safe rows into a share of traffic."""
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
    """Fits the operating point, as JSON values: calibrator, three thresholds, and a review band.

    labels: int [rows]; scores: float [rows] in [0, 1]; rows are independent. prevalence: share of
    traffic that is harmful, None for that of these rows. costs: of a false positive and of a false
    negative. Each promise is kept with the confidence by itself.

        strict      few misses: recall >= target_recall
        balanced    best F1 at the prevalence, or the least cost if costs are given; no promise
        permissive  few false positives: FPR <= target_fpr
        abstain     scores from the strict to the permissive threshold, for human review

    The `probability` of a threshold is its calibrated score at the prevalence.

    Raises BadInput for rows that cannot keep a promise, and for settings out of range.
    """
    calibrators.check(labels, scores)
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

    calibrated = calibrators.fit(calibrator, labels, scores)
    strict, misses = recall_threshold(labels, scores, at_least=target_recall, confidence=confidence)
    permissive, alarms = fpr_threshold(labels, scores, at_most=target_fpr, confidence=confidence)
    if costs is None:
        balanced = metrics.best_f1_threshold(labels, scores, prevalence=prevalence)
        aim = f"best F1 at {prevalence:.4g} harmful"
    else:
        balanced = metrics.cheapest_threshold(
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
        "costs": costs and list(costs),
        "rows": len(labels),
        "harmful": int(labels.sum()),
        "calibrator": calibrated,
        "thresholds": {
            name: {
                "threshold": value,
                "probability": float(
                    calibrators.shift(
                        calibrators.apply(calibrated, np.asarray(value)),
                        share=share,
                        prevalence=prevalence,
                    )
                ),
                "promise": text,
                "errors_allowed": allowed,
                "measured": measure(labels, scores, value, **at),
            }
            for name, (value, text, allowed) in thresholds.items()
        },
        "abstain": review_band(labels, scores, low=strict, high=permissive, **at),
    }


# Thresholds of a run


def run_thresholds(
    report: dict, policy: str | Path | None, profiles: Sequence[str], given: float | None
) -> dict[str, dict[str, float]]:
    """Returns {threshold policy: {kind of weights: threshold}} of a run.

    The threshold is `given` for all weights, or else those of `profiles` in the policy.json at
    `policy`, or else the best on dev. Raises BadInput for both, and for the policy of another run.
    """
    dev = {kind: scores["threshold"] for kind, scores in report["dev"].items()}
    if policy is not None and given is not None:
        raise BadInput("--policy and --threshold both set the threshold: give one of them.")
    if given is not None:
        if not 0 <= given <= 1:
            raise BadInput(f"--threshold = {given} is not a probability: give one from 0 to 1.")
        return {GIVEN: {kind: given for kind in dev}}
    if policy is None:
        return {DEV: dev}
    found = {DEV: dev} if DEV in profiles else {}
    for profile in profiles:
        if profile != DEV:
            name, threshold = _of_profile(report, policy, profile)
            found[name] = {report["weights"]: threshold}
    return found


def _of_profile(report: dict, policy: str | Path, profile: str) -> tuple[str, float]:
    """Returns (name of the threshold policy, threshold of the weights that the run reports)."""
    try:
        content = json.loads(Path(policy).read_text(encoding="utf-8"))
        known = content["run"].keys() and content["thresholds"].keys()
    except OSError as error:
        raise BadInput(f"--policy: {policy} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(
            f"--policy: {policy} is no policy.json: make one with python -m ssl_guard calibrate."
        ) from error
    if profile not in known:
        profiles = [*known, DEV]
        near = difflib.get_close_matches(profile, profiles, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(profiles)}."
        raise BadInput(f"--profile: {policy} has no threshold for the profile {profile!r}: {hint}")
    try:
        point = content["thresholds"][profile]
        threshold, promises = float(point["threshold"]), point["errors_allowed"] is not None
        name = f"policy:{profile}" + (f", {point['promise']}" if promises else "")
        names = ("split_sha256", "weights", "selected_step", "algorithm")
        theirs = [content["run"][key] for key in names]
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"--policy: {policy} is damaged: make it again with python -m ssl_guard calibrate."
        ) from error
    if theirs != [report["provenance"][names[0]], *(report[key] for key in names[1:])]:
        raise BadInput(f"{policy} was fitted on the scores of another run: fit it on this one.")
    return name, threshold
