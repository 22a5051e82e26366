"""Ensemble of logistic regressions whose scores are smoothed over a graph of the pool.

For each kind of features in `scores` a logistic regression is fitted on the labelled rows, and its
scores become quantiles of its scores of the nodes. Their mean is smoothed over the graph (graph.py)
of the kinds in `features`, and Platt scaling on dev makes it a probability. The kinds are

    tfidf, lsa   text features whose vocabulary is that of the nodes
    encoder      the pretrained encoder's pooled states, see baselines.py

The nodes are the labelled and the unlabelled rows; dev, test and other rows are never among them.
With nodes = "labelled" no unlabelled text is used: the control. Its scores become quantiles of
those of dev, since a head separates the rows that it was fitted on.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse
from ml_collections import ConfigDict
from scipy.special import expit

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import baselines, calibrators, graph
from ssl_guard.evaluation.nearest import EXACT_ROWS
from ssl_guard.runtime.files import atomic_write

FILE = "graph.npz"  # of the run folder
NODES = {"pool": ("labelled", "unlabelled"), "labelled": ("labelled",)}
KINDS = (*baselines.TEXT_FEATURES, "encoder")
NOT_CALIBRATED = {"platt": np.array([1.0, 0.0])}  # Platt scaling that changes no score
DENSE = ("lsa", "encoder")  # kinds that a graph can join


class Settings(NamedTuple):
    """The group config.graph, see configs/graph.py, and config.data.exact_neighbours."""

    scores: tuple[str, ...]
    features: tuple[str, ...]
    nodes: str
    neighbours: int
    alpha: float
    rounds: int
    C: float
    exact_rows: int = EXACT_ROWS

    @classmethod
    def of(cls, config: ConfigDict) -> "Settings":
        """Returns the settings of a run."""
        return cls(**config.graph, exact_rows=config.data.exact_neighbours)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of features in use."""
        return tuple(dict.fromkeys(self.scores + self.features * (self.alpha > 0)))

    def check(self) -> None:
        """Raises BadInput for values that no model can have."""
        for key, known in {"scores": KINDS, "features": DENSE}.items():
            values = getattr(self, key)
            if not values or not set(values) <= set(known):
                raise BadInput(f"config.graph.{key} = {values}: name one or more of {known}.")
        if self.nodes not in NODES:
            raise BadInput(f"config.graph.nodes = {self.nodes!r} must be one of {tuple(NODES)}.")
        if self.neighbours < 1 or self.rounds < 0 or not 0 <= self.alpha < 1 or self.C <= 0:
            raise BadInput(
                f"config.graph needs neighbours ({self.neighbours}) of at least 1, rounds "
                f"({self.rounds}) of at least 0, alpha ({self.alpha}) in [0, 1) and C ({self.C}) "
                "above 0."
            )


def fit(
    features: Callable[[str], Mapping], labels: Mapping[str, np.ndarray], settings: Settings
) -> dict[str, np.ndarray]:
    """Fits the model and returns its arrays, which `predict` takes.

    features(split) -> {kind: [rows, n], dense or sparse}, for dev and those of NODES; labels: int
    [rows] of "labelled" and "dev". The labels of other rows are not read.

    Raises BadInput for a dev set on which the model is worse than guessing.
    """
    model = fit_scores(features, labels["labelled"], settings)
    return calibrated(model, labels["dev"], scores(model, features("dev"), settings))


def fit_scores(
    features: Callable[[str], Mapping], labels: np.ndarray, settings: Settings
) -> dict[str, np.ndarray]:
    """Fits the model but for its calibration, for `scores`; labels: int [labelled rows].

    The features of dev are read only for nodes = "labelled".
    """
    splits = [features(split) for split in NODES[settings.nodes]]
    model: dict[str, np.ndarray] = {}
    nodes = {
        kind: (scipy.sparse.vstack if kind == "tfidf" else np.vstack)([s[kind] for s in splits])
        for kind in settings.kinds
    }
    reference_rows = nodes if settings.nodes == "pool" else features("dev")
    for kind in settings.scores:
        head = baselines.logistic(splits[0][kind], labels, settings.C)
        reference = reference_rows[kind]
        model |= {f"{kind}/coef": head.coef_[0], f"{kind}/intercept": head.intercept_}
        model[f"{kind}/reference"] = np.sort(_probabilities(model, kind, reference))
    if settings.alpha:
        joined = graph.join([nodes[kind] for kind in settings.features])
        found = graph.neighbours(joined, settings.neighbours, exact_rows=settings.exact_rows)
        own = _ensemble(model, nodes, settings)
        smoothed = graph.smooth(own, found, alpha=settings.alpha, rounds=settings.rounds)
        model |= {"nodes/features": joined, "nodes/scores": smoothed}
    return model


def calibrated(model: dict, labels: np.ndarray, found: np.ndarray) -> dict[str, np.ndarray]:
    """Adds Platt scaling to a model. labels: int [rows]; found: `scores` of rows of no fit.

    Raises BadInput for scores that are worse than guessing.
    """
    platt = calibrators.fit("platt", labels, found)
    return model | {"platt": np.array([platt["slope"], platt["intercept"]])}


def predict(model: Mapping[str, np.ndarray], features: Mapping, settings: Settings) -> np.ndarray:
    """Predicts harmful probabilities, float64 [rows]; features: {kind: [rows, n]}."""
    return apply_platt(model, scores(model, features, settings))


def apply_platt(model: Mapping[str, np.ndarray], found: np.ndarray) -> np.ndarray:
    """Calibrates `scores`: harmful probabilities, float64 [rows]."""
    slope, intercept = model["platt"]
    return calibrators.apply({"kind": "platt", "slope": slope, "intercept": intercept}, found)


def save(folder: Path, model: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays of a fitted model to FILE in the folder."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **model)
    atomic_write(folder / FILE, file.getvalue())


def load(folder: Path) -> dict[str, np.ndarray]:
    """Loads the arrays of a fitted model. Raises BadInput if the folder has none."""
    if not (folder / FILE).exists():
        raise BadInput(f"{folder} has no {FILE}, so nothing can be scored: train it again.")
    with np.load(folder / FILE, allow_pickle=False) as arrays:
        return dict(arrays)


def scores(model, features, settings: Settings) -> np.ndarray:
    """Reads the ensemble's scores on the graph, float64 [rows] in [0, 1], before calibration."""
    own = _ensemble(model, features, settings)
    if not settings.alpha:
        return own
    rows = graph.join([features[kind] for kind in settings.features])
    nodes, k = model["nodes/features"], settings.neighbours
    found = graph.neighbours(nodes, k, rows, exact_rows=settings.exact_rows)
    return graph.read(own, found, model["nodes/scores"], alpha=settings.alpha)


def _ensemble(model, features, settings: Settings) -> np.ndarray:
    """Averages the quantiles of the heads."""
    return np.mean(
        [
            graph.quantile(_probabilities(model, kind, features[kind]), model[f"{kind}/reference"])
            for kind in settings.scores
        ],
        axis=0,
    )


def _probabilities(model, kind: str, features) -> np.ndarray:
    """Predicts the harmful probability of one head, as `baselines.harmful` does."""
    return expit(features @ model[f"{kind}/coef"] + model[f"{kind}/intercept"])
