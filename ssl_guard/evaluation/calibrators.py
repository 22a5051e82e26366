"""Calibrators: from scores to probabilities.

A calibrator is a dict of numbers and lists of numbers, for JSON. It keeps the order of the scores.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ssl_guard.errors import BadInput

EDGE = 1e-7  # scores are clipped to [EDGE, 1 - EDGE] before the logit; they have 7 decimals
TEMPERATURES = (0.05, 20.0)  # limits; the optimum is 0 if the classes do not overlap


def check(labels: np.ndarray, scores: np.ndarray) -> None:
    """Raises BadInput for labels, int [rows], and scores, float [rows], that allow no threshold."""
    if not np.isin(labels, (0, 1)).all():
        raise BadInput("a calibration row has a label other than 0 or 1: leave it out.")
    usable = (scores >= 0) & (scores <= 1)  # False for NaN
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
    """Selects one row for each group and label: positions, int [kept rows].

    Near-duplicates are not independent, so a binomial promise counts a group once. The sha256 of
    the ids selects and orders the rows, so the order of the input does not matter.
    """
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    first = {(int(groups[i]), int(labels[i])): i for i in reversed(order)}
    return np.array([i for i in order if first[int(groups[i]), int(labels[i])] == i])


def fit(kind: str, labels: np.ndarray, scores: np.ndarray) -> dict:
    """Fits a calibrator for `apply`.

    kind: a name in FITS; labels: int [rows]; scores: float [rows]. Raises BadInput for rows that
    `check` refuses and for a negative slope of Platt scaling.
    """
    check(labels, scores)
    if kind not in FITS:
        raise BadInput(f"the calibrator {kind!r} is none of {', '.join(FITS)}.")
    return {"kind": kind, **FITS[kind](labels, scores)}


def apply(calibrator: dict, scores: np.ndarray) -> np.ndarray:
    """Computes calibrated harmful probabilities, float [rows], monotone in the scores."""
    if calibrator["kind"] == "none":
        return np.asarray(scores, float)
    if calibrator["kind"] == "isotonic":
        return np.interp(scores, calibrator["scores"], calibrator["probabilities"])
    slope = calibrator["slope"] if calibrator["kind"] == "platt" else 1 / calibrator["temperature"]
    return expit(slope * _logits(scores) + calibrator.get("intercept", 0.0))


def _logits(scores: np.ndarray) -> np.ndarray:
    """Returns the logit of the harmful probability, the difference of the two logits."""
    return logit(np.clip(scores, EDGE, 1 - EDGE))


def _temperature(labels, scores) -> dict:
    """Fits T, by which logits are divided, by maximum likelihood; the loss is convex in 1 / T (Guo
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
    """Fits a logistic regression on the logit, without penalty.

    Platt's targets (N+ + 1) / (N+ + 2) and 1 / (N- + 2) keep the slope finite when the classes do
    not overlap (Platt, Probabilistic outputs for support vector machines, 1999, section 2.2). A
    target is a row of each label with weights that sum to 1.
    """
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
    """Fits isotonic regression, linear between its steps (Zadrozny and Elkan,
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
    """Adapts probabilities from rows of which `share` is harmful to traffic with `prevalence`: adds
    the difference of the logits of the priors (Saerens, Latinne and Decaestecker, Adjusting the
    outputs of a classifier to new a priori probabilities, 2002, section 2.2)."""
    return expit(logit(probabilities) + logit(prevalence) - logit(share))
