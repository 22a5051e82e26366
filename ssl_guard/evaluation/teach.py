"""Writes soft labels of a run's unlabelled pool with a set of teachers (teachers.py).

The teachers' ranks in the pool (or their probabilities after Platt scaling on dev) are averaged and
smoothed over the pool's nearest neighbours (graph.py), where the labelled rows are nodes with their
label as score. Platt scaling on dev makes the result a probability, the soft label. It is right for
a pool with dev's harmful share; config.teach.prior is the share of a pool of other traffic.

Teachers with different features err on different rows, and so do neighbours; their mean is a better
teacher than any of them (co-training, Blum and Mitchell, 1998; self-training with ensembles).
Hidden labels of the pool are never read, and teachers that were trained on them are refused.

With config.eval.folds no dev row is read. FOLDER/fold-<k> has the soft labels of teachers that did
not learn the labelled rows of this fold, for the student's run of the fold. The out-of-fold scores
of all labelled rows together fit one Platt scaling for these folders and for FOLDER.

The nearest neighbours come from all pairs of rows, approximately above config.data.exact_neighbours
(nearest.py). One process does it all.
"""

import functools
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import spearmanr

from ssl_guard.data import folds, soft_labels
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import calibrators, graph, inference, metrics, scorer
from ssl_guard.evaluation.prepare import Prepared, of_folds, prepare
from ssl_guard.evaluation.scorer import Scorer
from ssl_guard.evaluation.teachers import open_teacher
from ssl_guard.runtime.files import check_folder

SMOOTHING_ROUNDS = 10  # the rest changes a score by less than alpha ** 10


class Part(NamedTuple):
    """Soft labels to make: their folder, the data that the teachers were trained on, and these."""

    folder: Path
    data: Prepared
    teachers: list[Scorer]
    made_from: dict


class Scores(NamedTuple):
    """Scores of a part's pool and of its dev rows, float64 [rows].

    teachers: (on the pool, on dev) of each; pool, dev: their mean, smoothed, before Platt scaling;
    labels: int [dev rows].
    """

    teachers: list[tuple[np.ndarray, np.ndarray]]
    pool: np.ndarray
    dev: np.ndarray
    labels: np.ndarray


class Settings(NamedTuple):
    """The keys of config.teach that soft labels depend on, see config/defaults.py."""

    C: float
    combine: str
    features: tuple[str, ...]
    neighbours: int
    alpha: float
    share: float
    prior: float


def teach(config: ConfigDict, teachers: Sequence[str], folder: str | Path) -> dict:
    """Writes the soft labels of the config's pool to a folder and returns their manifest.

    teachers: see above. Soft labels of the same teachers, model and settings are not made again;
    other ones in the folder are replaced. Raises BadInput for a teacher of another split, trained
    on hidden labels, or without different scores for the rows, and if the soft labels are worse
    than guessing on dev.
    """
    folder = Path(folder)
    _check(config, teachers, folder)
    settings = Settings(**{key: config.teach[key] for key in Settings._fields})
    parts = _parts(config, teachers, folder, settings)
    there = [soft_labels.read_manifest(part.folder) for part in parts]
    if [manifest and manifest["made_from"] for manifest in there] == [p.made_from for p in parts]:
        assert there[-1] is not None
        return there[-1]
    scores = [_scored(config, part, teachers, settings) for part in parts]
    # Parts whose dev rows no teacher learned: all folds, or the only part
    apart = scores[: config.eval.folds or 1]
    labels = np.concatenate([one.labels for one in apart])
    on_dev = np.concatenate([one.dev for one in apart])
    platt = calibrators.fit("platt", labels, on_dev)
    quality = [
        {"name": name, "dev": metrics.dev_scores(labels, np.concatenate(own))}
        for name, *own in zip(
            teachers, *([dev for _, dev in one.teachers] for one in apart), strict=True
        )
    ]
    for part, mine in zip(parts, scores, strict=True):
        harmful, dev_harmful = (calibrators.apply(platt, one) for one in (mine.pool, on_dev))
        if settings.prior:
            harmful, dev_harmful = to_prior(harmful, dev_harmful, settings.prior)
        low, high = cut_offs(harmful, settings.share)
        weight = (harmful <= low) | (harmful >= high)
        manifest = soft_labels.write(
            part.folder,
            [example.id for example in part.data.texts["unlabelled"]],
            harmful,
            weight,
            made_from=part.made_from,
            results={
                "teachers": quality,
                "dev": metrics.dev_scores(labels, dev_harmful),
                "dev_precision": precision(labels, dev_harmful, low, high),
                "agreement": agreement([pool for pool, _ in mine.teachers]),
                "used": int(weight.sum()),
                "harmful_share": float(harmful.mean()),
            },
        )
    return manifest


def _parts(
    config: ConfigDict, teachers: Sequence[str], folder: Path, settings: Settings
) -> list[Part]:
    """Reads the data and opens the teachers: of each fold, if any, and of all labelled rows."""
    prepared = prepare(config, views=("weak",))
    data = {-1: prepared}
    if config.eval.folds:
        # Teachers of all labelled rows know these, so their scores as dev rows are not used.
        texts = prepared.texts | {"dev": prepared.texts["labelled"]}
        whole = prepared._replace(dev=prepared.labelled, texts=texts)
        data = dict(enumerate(of_folds(config, prepared))) | {-1: whole}
    parts = []
    for fold, one in data.items():
        opened = [open_teacher(name, one, settings.C, fold=fold) for name in teachers]
        made_from = (
            one.hashes
            | folds.key(config.eval.folds, fold)
            | {
                "model": config.model.to_dict(),  # its features
                "teachers": [[teacher.name, teacher.sha256] for teacher in opened],
                "settings": settings._asdict(),
            }
        )
        nodes = one.texts["labelled"] + one.texts["unlabelled"]
        if len(nodes) > config.data.exact_neighbours:
            made_from["neighbours"] = "approximate"
        to = folder / f"fold-{fold}" if fold >= 0 else folder
        parts.append(Part(to, one, opened, json.loads(json.dumps(made_from))))
    return parts


def _scored(config: ConfigDict, part: Part, names: Sequence[str], settings: Settings) -> Scores:
    """Scores the pool and dev with each teacher and with their smoothed mean."""
    data = part.data
    assert data.dev is not None
    pool, dev, labels = data.texts["unlabelled"], data.texts["dev"], inference.labels_of(data.dev)
    own = [_scores(name, one, pool, dev) for name, one in zip(names, part.teachers, strict=True)]
    on_pool, on_dev = combine(names, own, labels, settings.combine)
    if settings.features and settings.alpha:
        on_pool, on_dev = _smoothed(config, data, on_pool, on_dev, settings)
    return Scores(own, on_pool, on_dev, labels)


def _check(config: ConfigDict, teachers: Sequence[str], folder: Path) -> None:
    """Raises BadInput for what can be seen to be wrong before any data is read."""
    if not teachers:
        raise BadInput(
            "no teacher is given: name finished runs, hf:FOLDER, scores:FILE or states:FILE."
        )
    if config.data.soft_labels:
        raise BadInput(
            "config.data.soft_labels is for the student: unset it, and name the folder in --to."
        )
    check_folder(folder, "--to")
    if jax.process_count() > 1:
        raise BadInput("soft labels are made by one process: start it alone.")


def _scores(
    name: str, teacher: Scorer, pool: Sequence, dev: Sequence
) -> tuple[np.ndarray, np.ndarray]:
    """Scores the pool and dev. Raises BadInput for a teacher that does not tell rows apart."""
    found, _ = teacher.score([*pool, *dev])
    on_pool, on_dev = found[: len(pool)], found[len(pool) :]
    if np.ptp(on_pool) == 0 or np.ptp(on_dev) == 0:
        raise BadInput(
            f"the teacher {name} gives all rows of the pool or of dev the same score: leave it out."
        )
    return on_pool, on_dev


def combine(
    names: Sequence[str],
    scores: Sequence[tuple[np.ndarray, np.ndarray]],
    labels: np.ndarray,
    how: str,
) -> list[np.ndarray]:
    """Averages teachers: scores of the pool and of dev, float64 [rows] in [0, 1].

    names, scores: of each teacher, the scores of the pool and of dev; labels: int [dev]; how:
    "rank" averages the shares of the pool below each score, "probability" the scores after Platt
    scaling on dev. Raises BadInput for a teacher that cannot be scaled: worse than guessing.
    """

    def common(name, pool, dev):
        if how == "rank":
            reference = np.sort(pool)
            return [graph.quantile(part, reference) for part in (pool, dev)]
        try:
            platt = calibrators.fit("platt", labels, dev)
        except BadInput as error:
            raise BadInput(f"the teacher {name} gives no probability: {error}") from error
        return [calibrators.apply(platt, part) for part in (pool, dev)]

    found = [common(name, *mine) for name, mine in zip(names, scores, strict=True)]
    return [np.mean(parts, axis=0) for parts in zip(*found, strict=True)]


def _smoothed(config, prepared: Prepared, pool, dev, settings: Settings) -> list[np.ndarray]:
    """Smooths the scores of the pool, and reads those of dev, on the graph of all training rows."""
    features = scorer.fixed_features(config, prepared, settings.features)

    def joined(split):
        found = features(prepared.texts[split], getattr(prepared, split))
        return graph.join([found[kind] for kind in settings.features])

    nodes = np.vstack([joined("labelled"), joined("unlabelled")])
    own = np.concatenate([inference.labels_of(prepared.labelled), pool])
    find = functools.partial(graph.neighbours, exact_rows=config.data.exact_neighbours)
    neighbours = find(nodes, settings.neighbours)
    smoothed = graph.smooth(own, neighbours, alpha=settings.alpha, rounds=SMOOTHING_ROUNDS)
    near = find(nodes, settings.neighbours, joined("dev"))
    return [smoothed[-len(pool) :], graph.read(dev, near, smoothed, alpha=settings.alpha)]


def to_prior(harmful: np.ndarray, dev: np.ndarray, prior: float) -> list[np.ndarray]:
    """Moves the log-odds of the pool and of dev by one constant: the pool's mean becomes the prior.

    harmful: float [pool]; dev: float [dev]; prior: harmful share of the pool, in (0, 1). This is
    Bayes' rule for another prior (Saerens et al., Adjusting the outputs of a classifier to new a
    priori probabilities, 2002, equation 4), with the constant that the pool itself asks for.
    """
    tiny = np.finfo(np.float64).eps
    odds, dev_odds = (logit(np.clip(part, tiny, 1 - tiny)) for part in (harmful, dev))
    most = abs(odds).max() + abs(logit(prior))  # far enough for any pool
    offset = brentq(lambda offset: expit(odds + offset).mean() - prior, -most, most)
    return [expit(part + offset) for part in (odds, dev_odds)]


def cut_offs(harmful: np.ndarray, share: float) -> tuple[float, float]:
    """Returns the probabilities up to and from which rows of the pool are used.

    harmful: float [pool]; share: of the pool that is used, in (0, 1]. The classes have the shares
    of their mean probabilities, so confidence in one class does not crowd out the other.
    """
    prior = harmful.mean()
    return tuple(np.quantile(harmful, [share * (1 - prior), 1 - share * prior]))


def precision(labels: np.ndarray, harmful: np.ndarray, low: float, high: float) -> dict:
    """Computes the share of right pseudo-labels of each class on dev, None for no row.

    labels: int [rows]; harmful: float [rows]; low, high: see `cut_offs`.
    """
    chosen = {"safe": labels[harmful <= low] == 0, "harmful": labels[harmful >= high] == 1}
    return {name: float(right.mean()) if len(right) else None for name, right in chosen.items()}


def agreement(scores: Sequence[np.ndarray]) -> float | None:
    """Computes the mean Spearman correlation of pairs of teachers; None for a single one."""
    pairs = [spearmanr(a, b).statistic for a, b in itertools.combinations(scores, 2)]
    return float(np.mean(pairs)) if pairs else None
