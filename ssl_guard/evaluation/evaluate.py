"""Evaluates a finished run, and other scorers on the same rows, on any corpus.

Scores every corpus with the selected checkpoint and writes RUN/evaluations/ (see records_io.py), a
file for each threshold policy; other scorers have theirs in RUN/peers/<name>/evaluations/.
Near-duplicates of rows that the run has seen are left out and counted. Every call is recorded in
reads.jsonl, so that a repeated use of a test set is noted.
"""

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_guard.data import pipeline
from ssl_guard.data.assemble import Source
from ssl_guard.data.schema import Example, make_corpus
from ssl_guard.errors import BadInput, given_as
from ssl_guard.evaluation import (
    eval_sets,
    metrics,
    operating_point,
    records_io,
)
from ssl_guard.evaluation.judge import Rows, evaluate_rows, rows_of
from ssl_guard.evaluation.operating_point import DEV, GIVEN
from ssl_guard.evaluation.prepare import read_split
from ssl_guard.evaluation.scorer import Run, Scorer, load_run, pack_groups, read_config
from ssl_guard.runtime import compilation, provenance, sharding
from ssl_guard.runtime.files import read_jsonl

SLICES = ("source", "adversarial")  # columns of a file to slice by where it has them


def evaluate_run(
    workdir: str | Path,
    corpora: Sequence[str],
    *,
    over_refusal: Sequence[str] = (),
    attacks: Sequence[str] = (),
    policy: str | Path | None = None,
    profiles: Sequence[str] = ("balanced",),
    threshold: float | None = None,
    read_as: Mapping[str, Any] | None = None,
    slices: Sequence[str] = SLICES,
    keep_seen: bool = False,
    others: Sequence[Callable[[], Scorer]] = (),
) -> list[dict]:
    """Evaluates a finished run, and other scorers, on corpora and on the safe rows of over_refusal.

    Writes an evaluation for each scorer, corpus and threshold (see records_io.py) and returns them,
    those of the run first. The run's thresholds are the one that was best on dev, the given one, or
    the profiles' of a policy.json of this run, of which DEV is the one of dev. attacks: operations
    of augment/ops.py; others: functions that open a scorer, see `evaluate_other`; the rest: of
    `eval_sets.open_eval_set`. All corpora are read before the first is scored, and each scorer
    scores each row once. A scorer that fails is reported on stderr and left out.

    Raises BadInput for an unfinished run, other data, an unusable corpus or an unusable threshold.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    compilation.configure(dtype=config.model.dtype, compilation_cache=config.compilation_cache)
    source = read_split(config)
    report = records_io.read_report(workdir)
    if source.hashes["split_sha256"] != report["provenance"]["split_sha256"]:
        raise BadInput(
            f"the corpus or the split in config.data.dir = {config.data.dir} is not the one of "
            f"{workdir}: call this in the folder that the run was trained in, with its data."
        )
    how: dict[str, Any] = {
        "read_as": read_as,
        "slices": slices,
        "keep_seen": keep_seen,
    }
    opened = []
    for key, names in {"--corpora": corpora, "--over_refusal": over_refusal}.items():
        for name in names:
            with given_as(key):
                how["over_refusal"] = names is over_refusal
                opened.append(eval_sets.open_eval_set(name, config, source, **how))
    if unknown := sorted(set(slices) - set(SLICES) - {n for one in opened for n in one.columns}):
        raise BadInput(f"no corpus has the column {unknown[0]!r} of --slices: leave it out.")
    policies = operating_point.run_thresholds(report, policy, profiles, threshold)
    run = load_run(workdir)
    judged = {"attacks": attacks, "resamples": config.eval.bootstrap_samples}
    sets, found = [], []
    for eval_set in opened:
        records = run.records(eval_set.examples)
        rows = rows_of(eval_set, records, tuple(config.data.buckets))
        made = _evaluate_run(run, rows, records, source, policies, **judged)
        found += _write(workdir, made, reads=_reads_in_training(workdir, source, eval_set))
        sets.append(rows._replace(windows=None))
    return found + evaluate_others(others, sets, source.rows["dev"], workdir, **judged)


def _evaluate_run(
    run: Run, rows: Rows, records, source: Source, policies: Mapping[str, Mapping], **how
) -> list[tuple[dict, list[dict]]]:
    """Evaluates the run with `evaluate_rows`, with its cost, contamination and provenance.

    policies: as for `evaluate_rows`; weights without a threshold are not scored.
    """
    weights = run.report["weights"]
    timed, cost = _timed_scores(run, records, weights)
    others = {kind for thresholds in policies.values() for kind in thresholds} - {weights}
    scores = {weights: timed} | {kind: run.predict(run.weights[kind], records) for kind in others}

    def score(examples):
        return run.predict(run.weights[weights], run.records(examples)), None

    mine = Scorer(records_io.method_name(run.report), run.checkpoint_sha256, score, weights)
    made = evaluate_rows(mine, rows, scores, None, policies, folder=run.workdir, **how)
    hashes = {k: v for k, v in run.report["provenance"].items() if k.endswith("_sha256")}
    for evaluation, _ in made:
        evaluation["cohort"] |= {
            "split": source.split.name,
            "split_sha256": source.hashes["split_sha256"],
            "seed": run.config.seed,
        }
        evaluation |= {
            "cost": cost,
            "contamination": rows.eval_set.contamination,
            "provenance": provenance.collect(**hashes),
        }
    return made


def evaluate_others(
    others: Sequence[Callable[[], Scorer]],
    sets: Sequence[Rows],
    dev: Sequence[Example],
    workdir: Path,
    **how,
) -> list[dict]:
    """Evaluates each scorer that can be opened; the rest are reported on stderr."""
    names, found = set(), []
    for open_scorer in others:
        try:
            other = open_scorer()
            if other.name in names:
                raise BadInput(f"two scorers are called {other.name}: rename one, or run it alone.")
            names.add(other.name)
            found += evaluate_other(other, sets, dev, workdir, **how)
        except BadInput as error:
            print(f"ssl_guard: a scorer is left out: {error}", file=sys.stderr)
    return found


def evaluate_other(
    other: Scorer,
    sets: Sequence[Rows],
    dev: Sequence[Example],
    workdir: Path,
    *,
    attacks: Sequence[str],
    resamples: int,
) -> list[dict]:
    """Evaluates a scorer on the rows of a run and writes RUN/peers/<name>/evaluations/.

    Its threshold policies are GIVEN, for its own verdicts, and DEV, the best F1 on the run's dev
    rows. Raises BadInput if it scores too few dev rows for a threshold.
    """
    labels = np.array([example.label for example in dev])
    scores, _ = other.score(dev)
    known = np.isfinite(scores)
    if len(set(labels[known])) < 2:
        raise BadInput(
            f"{other.name} has scores of too few dev rows to choose a threshold: see its log."
        )
    best = metrics.best_f1_threshold(labels[known], scores[known])
    policies = {GIVEN: {other.weights: 0.5}, DEV: {other.weights: best}}
    # A model may be called ORGANISATION/NAME.
    folder, found = workdir / "peers" / re.sub(r"[^\w.-]", "_", other.name), []
    for rows in sets:
        began = time.monotonic()
        scores, verdicts = other.score(rows.eval_set.examples)
        cost = {"texts_per_second": round(len(scores) / (time.monotonic() - began), 2)}
        made = evaluate_rows(
            other,
            rows,
            {other.weights: scores},
            verdicts,
            policies,
            folder=folder,
            attacks=attacks,
            resamples=resamples,
        )
        for evaluation, _ in made:
            evaluation["cost"] = cost
        found += _write(folder, made)
    return found


def _write(folder: Path, made: list[tuple[dict, list[dict]]], reads: int = 0) -> list[dict]:
    """Writes the evaluations of one scoring; reads: earlier ones that reads.jsonl does not have."""
    found = [evaluation for evaluation, _ in made]
    policies = "; ".join(evaluation["cohort"]["threshold_policy"] for evaluation in found)
    reads += records_io.record_read(folder, found[0]["cohort"] | {"threshold_policy": policies})
    for evaluation, lines in made:
        evaluation["times_read"] = reads
        records_io.write_evaluation(folder, evaluation, lines)
    return found


def _timed_scores(run: Run, records, weights: str) -> tuple[np.ndarray, dict]:
    """Scores with one kind of weights and measures the cost after compilation."""
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
        pack_groups=pack_groups(run.config, sharding.make_mesh()),
    )
    computed = sum(batch["attention_mask"].size for batch, _ in batches)
    tokens = int(base.lengths.sum())
    return scores, {
        "texts_per_second": round(len(records) / seconds, 2),
        "tokens_per_second": round(tokens / seconds),
        "padding_share": round(1 - tokens / computed, 4),
    }


def _reads_in_training(workdir: Path, source: Source, eval_set: eval_sets.EvalSet) -> int:
    """Counts how often training scored these rows: test once, dev at every evaluation."""
    dev_reads = sum("dev/raw/auprc" in row for row in read_jsonl(workdir / "metrics.jsonl"))
    reads = {"test": 1, "dev": dev_reads}
    sides = {
        make_corpus("", "", [e for e in source.rows[side] if e.label is not None], "").sha256: times
        for side, times in reads.items()
    }
    return sides.get(eval_set.corpus.sha256, 0)
