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
