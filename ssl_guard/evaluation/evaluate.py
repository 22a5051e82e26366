"""Evaluates scores: at the end of a training run, and of any corpus later.

Scores every corpus with the selected checkpoint and writes RUN/evaluations/ (see records_io.py), a
file for each threshold policy. Near-duplicates of rows that the run has seen are left out and
counted. Every call is recorded in reads.jsonl, so that a repeated use of a test set is noted.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tabulate import tabulate

from ssl_guard.data import pipeline
from ssl_guard.data.assemble import Source
from ssl_guard.data.records import Records
from ssl_guard.data.schema import HARMFUL, TASKS, make_corpus
from ssl_guard.data.windows import Windowed
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import (
    bootstrap,
    eval_sets,
    inference,
    metrics,
    records_io,
    robustness,
    scorer,
)
from ssl_guard.prepare import Prepared, read_split
from ssl_guard.runtime import compilation, provenance, sharding
from ssl_guard.runtime.files import read_jsonl, write_json, write_jsonl

PROFILES = ("strict", "balanced", "permissive")  # of a policy.json, see threshold.py
DEV = "dev_best_f1"  # the threshold policy of a run without one
NO_SCORES = np.empty(0)  # of an attack that changes no row
SLICES = ("source", "adversarial")  # columns of a file to slice by where it has them
SHOWN = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "fpr": "FPR",
    "auprc": "AUPRC",
    "recall_at_1_fpr": "recall at 1% FPR",
    "ece": "ECE",
}


def test_report(
    labels: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    groups: np.ndarray,
    *,
    resamples: int,
) -> dict[str, dict[str, float]]:
    """{metric: {value, low, high}} with 95% bootstrap intervals over prompt groups."""
    intervals = bootstrap.score_intervals(labels, scores, threshold, groups, resamples=resamples)
    return {name: interval._asdict() for name, interval in intervals.items()}


def write_report(
    workdir: Path,
    config: ConfigDict,
    prepared: Prepared,
    dev: dict[str, dict[str, float]],
    scores: dict[str, np.ndarray],
    *,
    steps: int,
    selected_step: int,
    checkpoint_sha256: str,
    observatory: dict | None = None,
) -> dict:
    """Writes predictions.jsonl and report.json, the last file of a run, and returns the report.

    dev: metrics.dev_scores of the raw and, if kept, the averaged weights, by "raw" and "ema";
    scores: float64 [test rows] of each, which are judged at their own dev threshold;
    checkpoint_sha256: of the weights that scored, see `scorer.tree_sha256`; observatory: what
    `monitor.account` found, nothing for a baseline without steps.
    """
    labels, groups = inference.labels_of(prepared.test), prepared.test_groups
    test = {
        kind: test_report(
            labels, values, dev[kind]["threshold"], groups, resamples=config.eval.bootstrap_samples
        )
        for kind, values in scores.items()
    }
    tasks = pipeline.tasks_of(prepared.test)
    by_task = {
        name: {
            kind: test_report(
                labels[rows],
                values[rows],
                dev[kind]["threshold"],
                groups[rows],
                resamples=config.eval.bootstrap_samples,
            )
            for kind, values in scores.items()
        }
        for number, name in enumerate(TASKS)
        if len(set(labels[rows := np.flatnonzero(tasks == number)])) == 2 and len(set(tasks)) > 1
    }
    write_predictions(workdir / "predictions.jsonl", prepared.test, groups, **scores)
    report = {
        "weights": "ema" if "ema" in test else "raw",
        "dev": dev,
        "test": test,
        "test_by_task": by_task,
        "algorithm": config.algorithm,
        "seed": config.seed,
        "selected_step": selected_step,
        "checkpoint_sha256": checkpoint_sha256,
        "steps": steps,
        "data": prepared.summary,
        "contamination": prepared.contamination,
        "training": _training_summary(workdir),
        "observatory": observatory or {},
        "provenance": provenance.collect(**prepared.hashes),
    }
    write_json(workdir / "report.json", report)
    return report


def _training_summary(workdir: Path) -> dict:
    """Cost of all steps of the run, over however many starts it took."""
    rows = read_jsonl(workdir / "metrics.jsonl")
    cost = {"seconds": round(sum(row["time/seconds"] for row in rows), 1)}
    speed = [row["time/tokens_per_second"] for row in rows if "time/tokens_per_second" in row]
    padding = [row["data/padding_share"] for row in rows if "data/padding_share" in row]
    if speed:  # a run with steps
        cost |= {
            "tokens_per_second": round(float(np.median(speed))),
            "padding_share": round(float(np.mean(padding)), 4),
        }
    return cost


def write_predictions(path: Path, records: Records, groups: np.ndarray, **scores: np.ndarray):
    """One JSON line a row: id, group, label, the named scores and, if long texts are scored in
    windows, how many; never the text."""
    rows = records.gather(range(len(records)))
    lines = []
    for i, row in enumerate(rows):
        values = {name: round(float(value[i]), 7) for name, value in scores.items()}
        line = {"id": row["id"], "group": int(groups[i]), "label": int(row["label"]), **values}
        line |= {"windows": row["windows"]} if "windows" in row else {}
        lines.append(line)
    write_jsonl(path, lines)


def evaluate_run(
    workdir: str | Path,
    corpora: Sequence[str],
    *,
    over_refusal: Sequence[str] = (),
    attacks: Sequence[str] = (),
    policy: str | Path | None = None,
    profiles: Sequence[str] = ("balanced",),
    threshold: float | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, int] | None = None,
    slices: Sequence[str] = SLICES,
    keep_seen: bool = False,
) -> list[dict]:
    """Evaluates a finished run on corpora and on the safe rows of the over_refusal ones.

    Writes an evaluation for each and for each threshold, see evaluations.py, and returns them. The
    thresholds are the one that was best on dev, the given one, or the profiles' of a policy.json of
    this run, of which DEV is the one of dev. attacks: operations of augment/ops.py; the rest: of
    `exams.open_exam`. All corpora are read before the first is scored, and each is scored once.
    Raises BadInput for anything that the user can put right.
    """
    workdir = Path(workdir)
    config = scorer.read_config(workdir)
    compilation.configure(dtype=config.model.dtype, compilation_cache=config.compilation_cache)
    source = read_split(config)
    report = json.loads((workdir / "report.json").read_text())
    if source.hashes["split_sha256"] != report["provenance"]["split_sha256"]:
        raise BadInput(
            f"the corpus or the split in config.data.dir = {config.data.dir} is not the one of "
            f"{workdir}: call this in the folder that the run was trained in, with its data."
        )
    how = {"columns": columns, "labels": labels, "slices": slices, "keep_seen": keep_seen}
    opened = [eval_sets.open_exam(name, config, source, **how) for name in corpora]
    opened += [
        eval_sets.open_exam(name, config, source, over_refusal=True, **how) for name in over_refusal
    ]
    if unknown := sorted(set(slices) - set(SLICES) - {n for exam in opened for n in exam.columns}):
        raise BadInput(f"no corpus has the column {unknown[0]!r} of --slices: leave it out.")
    policies = _thresholds(report, policy, profiles, threshold)
    run = scorer.load_run(workdir)
    found = []
    for exam in opened:
        made, rows = evaluate_exam(run, exam, source, policies, attacks=attacks)
        read_as = made[0]["cohort"] | {"threshold_policy": "; ".join(policies)}
        before = _reads_in_training(workdir, source, exam)
        times = before + records_io.record_read(workdir, read_as)
        for evaluation in made:
            evaluation["times_read"] = times
            records_io.write_evaluation(workdir, evaluation, rows)
        found += made
    return found


def evaluate_exam(
    run: scorer.Scorer,
    exam: eval_sets.Exam,
    source: Source,
    policies: Mapping[str, Mapping[str, float]],
    *,
    attacks: Sequence[str] = (),
) -> tuple[list[dict], list[dict]]:
    """The evaluations, one a policy, without times_read, and their rows; see evaluations.py.

    policies: {threshold policy: thresholds by the name of the weights}; others are not scored.
    """
    config, weights = run.config, run.report["weights"]
    labels = np.array([example.label for example in exam.examples])
    records = run.records(exam.examples)
    scores, cost = _timed_scores(run, records, weights)
    others = {kind for thresholds in policies.values() for kind in thresholds} - {weights}
    scores = {weights: scores} | {kind: run.predict(run.weights[kind], records) for kind in others}
    values = _slice_values(exam, records, tuple(config.data.buckets))
    harmful = [example for example in exam.examples if example.label == HARMFUL]
    attacked = [robustness.attack(harmful, op) for op in (attacks if harmful else ())]
    views = [attack.views for attack in attacked]
    after = [run.predict(run.weights[weights], run.records(v)) if v else NO_SCORES for v in views]
    shared = {
        "corpus": exam.corpus.name,
        "corpus_sha256": exam.corpus.sha256,
        "rows_sha256": make_corpus("", "", exam.examples, "").sha256,
        "rows": len(labels),
        "harmful": len(harmful),
        "task": exam.corpus.task,
        "label_map": exam.label_map,
        "split": source.split.name,
        "split_sha256": source.hashes["split_sha256"],
        "checkpoint_sha256": run.checkpoint_sha256,
        "weights": weights,
        "seed": config.seed,
    }
    found = [
        {
            "cohort": shared | {"threshold_policy": policy, "threshold": thresholds},
            "scorer": {"name": config.algorithm, "workdir": str(run.workdir)},
            "kind": exam.kind,
            **judge(
                labels,
                exam.groups,
                scores,
                thresholds,
                weights=weights,
                values=values,
                attacked=list(zip(attacked, after, strict=True)),
                resamples=config.eval.bootstrap_samples,
            ),
            "cost": cost,
            "contamination": exam.contamination,
            "provenance": provenance.collect(
                **{k: v for k, v in run.report["provenance"].items() if k.endswith("_sha256")}
            ),
        }
        for policy, thresholds in policies.items()
    ]
    return found, _rows(exam, records, scores, values)


def judge(
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
    """The parts of an evaluation that follow from scores: scores, slices, robustness, curves.

    labels, groups: int [rows]; scores: float [rows], and thresholds, by the name of the weights;
    weights: which of them the slices and the rest are of; values: of `metrics.by_value`, by slice;
    attacked: attacks on the harmful rows, each with the scores of its views.
    """
    mine, threshold, harmful = scores[weights], thresholds[weights], labels == HARMFUL
    curves = {"reliability": metrics.reliability(labels, mine)}
    if 0 < harmful.sum() < len(labels):
        curves["precision_recall"] = metrics.precision_recall(labels, mine)
    return {
        "scores": {
            kind: test_report(labels, scores[kind], limit, groups, resamples=resamples)
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


def _thresholds(
    report: dict, policy: str | Path | None, profiles: Sequence[str], given: float | None
) -> dict[str, dict[str, float]]:
    """{threshold policy: the threshold of every kind of weights that has one}."""
    dev = {kind: scores["threshold"] for kind, scores in report["dev"].items()}
    if policy is not None and given is not None:
        raise BadInput("--policy and --threshold both set the threshold: give one of them.")
    if given is not None:
        if not 0 <= given <= 1:
            raise BadInput(f"--threshold = {given} is no probability: give one from 0 to 1.")
        return {"given": {kind: given for kind in dev}}
    if policy is None:
        return {DEV: dev}
    found = {DEV: dev} if DEV in profiles else {}
    for profile in profiles:
        if profile != DEV:
            name, threshold = _of_profile(report, policy, profile)
            found[name] = {report["weights"]: threshold}
    return found


def _of_profile(report: dict, policy: str | Path, profile: str) -> tuple[str, float]:
    """The threshold policy's name, and the threshold of the weights that the run reports."""
    try:
        content = json.loads(Path(policy).read_text())
        point = content["thresholds"][profile]
        threshold, promises = float(point["threshold"]), point["errors_allowed"] is not None
        name = f"policy:{profile}" + (f", {point['promise']}" if promises else "")
        names = ("split_sha256", "weights", "selected_step", "algorithm")
        theirs = [content["run"][key] for key in names]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"{policy} has no threshold for the profile {profile!r}: make it with "
            f"ssl_guard calibrate, and choose from {', '.join((*PROFILES, DEV))}."
        ) from error
    if theirs != [report["provenance"][names[0]], *(report[key] for key in names[1:])]:
        raise BadInput(f"{policy} was fitted on the scores of another run: fit it on this one.")
    return name, threshold


def _timed_scores(run: scorer.Scorer, records, weights: str) -> tuple[np.ndarray, dict]:
    """The scores of one kind of weights, and what they cost once the programs are compiled."""
    base, buckets = getattr(records, "windows", records), tuple(run.config.data.buckets)
    _, firsts = np.unique(np.searchsorted(buckets, base.lengths), return_index=True)
    for first in firsts:  # one batch of every padded length; packed batches have other shapes
        run.predict(run.weights[weights], base.subset([first]))
    began = time.perf_counter()
    scores = run.predict(run.weights[weights], records)
    seconds = time.perf_counter() - began
    batches = pipeline.eval_batches(
        base,
        batch_size=run.config.eval.batch,
        buckets=buckets,
        pad_id=run.tokenizer.pad_id,
        pack_groups=scorer.pack_groups(run.config, sharding.make_mesh()),
    )
    computed = sum(batch["attention_mask"].size for batch, _ in batches)
    tokens = int(base.lengths.sum())
    return scores, {
        "texts_per_second": round(len(records) / seconds, 2),
        "tokens_per_second": round(tokens / seconds),
        "padding_share": round(1 - tokens / computed, 4),
    }


def _slice_values(exam, records, buckets: tuple[int, ...]) -> dict[str, list]:
    """{slice: the value of every row, None where it has none}."""
    found = {
        "category": [example.category for example in exam.examples],
        "source": [example.source for example in exam.examples],
        "length": length_names(_token_counts(records), buckets),
    }
    for name, values in exam.columns.items():
        found[name] = [values.get(example.id) for example in exam.examples]
    return found


def length_names(tokens: np.ndarray, buckets: Sequence[int]) -> list[str]:
    """The slice of every length, int [rows], in tokens."""
    names = [f"up to {bound} tokens" for bound in buckets] + [f"over {buckets[-1]} tokens"]
    return [names[place] for place in np.searchsorted(buckets, tokens)]


def _token_counts(records) -> np.ndarray:
    """int [rows]: tokens of every text before any cut, special tokens included."""
    rows = records.gather(range(len(records)))
    return np.array([len(row["input_ids"]) + row["cut"] for row in rows])


def _rows(exam, records, scores: dict[str, np.ndarray], values: dict[str, list]) -> list[dict]:
    """The lines of the evaluation's .jsonl, see evaluations.py."""
    tokens = _token_counts(records)
    lines = []
    for i, example in enumerate(exam.examples):
        line = {"id": example.id, "group": int(exam.groups[i]), "label": example.label}
        line |= {kind: round(float(of_kind[i]), 7) for kind, of_kind in scores.items()}
        line |= {name: of_row[i] for name, of_row in values.items() if name != "length"}
        line["tokens"] = int(tokens[i])
        if isinstance(records, Windowed):
            line["windows"] = int(records.counts[i])
        lines.append(line)
    return lines


def _reads_in_training(workdir: Path, source: Source, exam: eval_sets.Exam) -> int:
    """How often training has scored these rows: test once, dev at every evaluation."""
    dev_reads = sum("dev/raw/auprc" in row for row in read_jsonl(workdir / "metrics.jsonl"))
    reads = {"test": 1, "dev": dev_reads}
    sides = {
        make_corpus("", "", [e for e in source.rows[side] if e.label is not None], "").sha256: times
        for side, times in reads.items()
    }
    return sides.get(exam.corpus.sha256, 0)


def table(found: Sequence[dict]) -> str:
    """Corpora against the main numbers, %, as GitHub Markdown; a dash where there is none."""
    rows = []
    for evaluation in found:
        cohort = evaluation["cohort"]
        scores = evaluation["scores"][cohort["weights"]]
        kind = "" if evaluation["kind"] != "over_refusal" else " (over-refusal)"
        row = [cohort["corpus"] + kind, cohort["threshold_policy"].partition(",")[0]]
        row += [cohort["rows"], cohort["harmful"]]
        row += [_cell(scores.get(name)) for name in SHOWN]
        rows.append([*row, evaluation["times_read"]])
    titles = ["corpus, % [95% interval]", "threshold", "rows", "harmful", *SHOWN.values()]
    titles += ["times read"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def notes(found: Sequence[dict]) -> list[str]:
    """What a reader of the table must know: rows left out, sets read before, drops of recall."""
    lines = []
    for evaluation in found:
        name, seen = evaluation["cohort"]["corpus"], evaluation["contamination"]
        if count := seen["exact"] + seen["near_duplicates"]:
            done = "left out" if seen["removed"] else "KEPT"
            lines.append(
                f"{name}: {count} rows are near-duplicates of rows that the run has seen, "
                f"{seen['exact']} of them equal: {done}"
            )
        if evaluation["times_read"] > 1:
            lines.append(
                f"{name}: read {evaluation['times_read']} times by this run: if its numbers chose "
                "anything, they are no test any more"
            )
        for op, drop in evaluation["robustness"].items():
            if drop["rows"]:
                cell = _cell({"value": drop["drop"], "low": drop["low"], "high": drop["high"]})
                lines.append(f"{name}: recall drops by {cell} points under {op}")
    return lines


def _cell(interval: dict | None) -> str:
    if interval is None:
        return "-"
    value, low, high = (f"{100 * interval[key]:.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
