"""Judges the scores of one scorer on the rows of an exam."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_guard.data.records import Records
from ssl_guard.data.schema import HARMFUL, make_corpus
from ssl_guard.data.windows import Windowed
from ssl_guard.evaluation import bootstrap, metrics, robustness
from ssl_guard.evaluation.eval_sets import Exam
from ssl_guard.evaluation.operating_point import GIVEN
from ssl_guard.evaluation.scorer import Scorer
from ssl_guard.runtime import provenance

NO_SCORES = np.empty(0)  # of an attack that changes no row


class Rows(NamedTuple):
    """The rows of an exam as every scorer is judged on them.

    values: {slice: the value of each row, None where it has none}; tokens: int [rows], of the run's
    tokenizer before any cut; windows: int [rows], None for texts scored whole.
    """

    exam: Exam
    values: dict[str, list]
    tokens: np.ndarray
    windows: np.ndarray | None = None


def rows_of(exam: Exam, records: Records, buckets: Sequence[int]) -> Rows:
    """Returns the rows of an exam from its records; buckets: bounds of the slices by length."""
    gathered = records.gather(range(len(records)))
    tokens = np.array([len(row["input_ids"]) + row["cut"] for row in gathered])
    names = [f"up to {bound} tokens" for bound in buckets] + [f"over {buckets[-1]} tokens"]
    values: dict[str, list] = {
        "category": [example.category for example in exam.examples],
        "source": [example.source for example in exam.examples],
        "length": [names[place] for place in np.searchsorted(buckets, tokens)],
    }
    for name, of_id in exam.columns.items():
        values[name] = [of_id.get(example.id) for example in exam.examples]
    return Rows(exam, values, tokens, records.counts if isinstance(records, Windowed) else None)


def evaluate_rows(
    scorer: Scorer,
    rows: Rows,
    scores: Mapping[str, np.ndarray],
    verdicts: np.ndarray | None,
    policies: Mapping[str, Mapping[str, float]],
    *,
    folder: Path,
    attacks: Sequence[str],
    resamples: int,
) -> list[tuple[dict, list[dict]]]:
    """Returns an evaluation and its lines (see records_io.py) for each policy, without times_read.

    scores: float [rows] by kind of weights; verdicts: see `Scorer`; policies: {threshold policy:
    thresholds by kind of weights}. Rows without a score are left out and named in `missing`.
    """
    exam, weights = rows.exam, scorer.weights
    known = np.isfinite(scores[weights])
    kept = np.flatnonzero(known)
    examples = [exam.examples[i] for i in kept]
    labels, groups = np.array([example.label for example in examples]), exam.groups[kept]
    values = {name: [of_row[i] for i in kept] for name, of_row in rows.values.items()}
    harmful = [example for example in examples if example.label == HARMFUL]
    attacked = [robustness.attack(harmful, op) for op in (attacks if harmful else ())]
    after = [
        scorer.score(attack.views) if attack.views else (NO_SCORES, None) for attack in attacked
    ]
    cohort = {
        "corpus": exam.corpus.name,
        "corpus_sha256": exam.corpus.sha256,
        "rows_sha256": make_corpus("", "", examples, "").sha256,
        "rows": len(labels),
        "harmful": len(harmful),
        "task": exam.corpus.task,
        "label_map": exam.label_map,
        "split": None,
        "split_sha256": None,
        "checkpoint_sha256": scorer.sha256,
        "weights": weights,
        "seed": None,
    }
    made = []
    for policy, thresholds in policies.items():

        def judged(scores, verdicts, policy=policy):
            return at_half(scores, verdicts) if policy == GIVEN else scores

        shown = {kind: judged(values, verdicts)[kept] for kind, values in scores.items()}
        evaluation = {
            "cohort": cohort | {"threshold_policy": policy, "threshold": thresholds},
            "scorer": {"name": scorer.name, "workdir": str(folder)},
            "kind": exam.kind,
            "missing": [exam.examples[i].id for i in np.flatnonzero(~known)],
            **_judge(
                labels,
                groups,
                shown,
                thresholds,
                weights=weights,
                values=values,
                attacked=[(a, judged(*found)) for a, found in zip(attacked, after, strict=True)],
                resamples=resamples,
            ),
            "contamination": None,  # its training data are unknown
            "provenance": provenance.collect(),
        }
        made.append((evaluation, _lines(rows, kept, shown)))
    return made


def _lines(rows: Rows, kept: np.ndarray, scores: Mapping[str, np.ndarray]) -> list[dict]:
    """Returns the lines of an evaluation's .jsonl; scores: float [kept rows]."""
    lines = []
    for place, i in enumerate(kept):
        example = rows.exam.examples[i]
        line = {"id": example.id, "group": int(rows.exam.groups[i]), "label": example.label}
        line |= {kind: round(float(of_kind[place]), 7) for kind, of_kind in scores.items()}
        line |= {name: of_row[i] for name, of_row in rows.values.items() if name != "length"}
        line["tokens"] = int(rows.tokens[i])
        if rows.windows is not None:
            line["windows"] = int(rows.windows[i])
        lines.append(line)
    return lines


def at_half(scores: np.ndarray, verdicts: np.ndarray | None) -> np.ndarray:
    """Returns scores for which `score >= 0.5` is the scorer's own verdict: (score + verdict) / 2.

    Rows of one verdict keep their order.
    """
    if verdicts is None:
        return scores
    folded = (scores + verdicts) / 2
    return np.where(verdicts, folded, np.minimum(folded, np.nextafter(0.5, 0)))


def _judge(
    labels: np.ndarray,
    groups: np.ndarray,
    scores: Mapping[str, np.ndarray],
    thresholds: Mapping[str, float],
    *,
    weights: str,
    values: Mapping[str, list],
    attacked: Sequence[tuple[robustness.Attack, np.ndarray]],
    resamples: int,
) -> dict:
    """Returns the parts of an evaluation that follow from scores.

    labels, groups: int [rows]; scores: float [rows], and thresholds, by the name of the weights;
    weights: which of them the slices and the rest are of; values: of `metrics.by_value`, by slice;
    attacked: attacks on the harmful rows, each with the scores of its views.
    """
    mine, threshold, harmful = scores[weights], thresholds[weights], labels == HARMFUL
    curves: dict[str, object] = {"reliability": metrics.reliability(labels, mine)}
    if 0 < harmful.sum() < len(labels):
        curves["precision_recall"] = metrics.precision_recall(labels, mine)
    return {
        "scores": {
            kind: bootstrap.score_intervals(
                labels, scores[kind], limit, groups, resamples=resamples
            )
            for kind, limit in thresholds.items()
        },
        "slices": {
            name: metrics.by_value(labels, mine, threshold, of_row)
            for name, of_row in values.items()
        },
        "robustness": {
            attack.op: robustness.recall_drop(
                attack,
                mine[harmful],
                after,
                groups[harmful],
                threshold=threshold,
                resamples=resamples,
            )
            for attack, after in attacked
        },
        "curves": curves,
    }
