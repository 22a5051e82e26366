"""Fits the operating point of a finished run and writes RUN/policy.json.

The thresholds are fitted on the run's calibration rows (config.data.calibration), or on a file of
labelled rows, which are scored here. Rows of the file whose prompts are near-duplicates of any that
the run holds are left out: the model, its step and its test score depend on those. Near-duplicates
among the rows count once. The file has the columns and label values of the run's config. A row is
harmful if its score is at least the threshold.

policy.json holds the values of `operating_point.policy` and

    run          {"algorithm", "seed", "selected_step", "weights", "split_sha256"} of the scorer
    data         name of the rows; data_sha256: of their ids, labels and scores
    rows_read    before near-duplicates were taken out; rows are those that were used
    left_out     rows of the file that are near-duplicates of the run's
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssl_guard.data import duplicates
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import calibrators, operating_point, records_io, scorer
from ssl_guard.evaluation.prepare import DataSpec, read_split
from ssl_guard.runtime import compilation
from ssl_guard.runtime.files import read_jsonl, write_json


class Rows(NamedTuple):
    """Labelled rows with their scores: ids, int groups of near-duplicates, int labels, scores."""

    name: str
    ids: list[str]
    groups: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    left_out: int


def make_policy(workdir: str | Path, file: str | None = None, **settings) -> dict:
    """Fits, writes RUN/policy.json, and returns it; settings: those of `operating_point.policy`.

    Raises BadInput for an unfinished run, for rows that cannot keep a promise, and for a run
    without calibration rows if no file is given.
    """
    workdir = Path(workdir)
    config = scorer.read_config(workdir)
    report = records_io.read_report(workdir)
    policy = _fit(_rows(workdir, config, report, file), config, report, settings)
    write_json(workdir / "policy.json", policy)
    return policy


def refit(
    workdir: Path,
    policy: dict,
    score: Callable[[list[Example]], np.ndarray],
    file: str | None = None,
) -> dict:
    """Fits a policy again, on the same rows and with the same settings, for other scores.

    policy: of the run. score(examples) -> float64 [rows], calibrated. file: the one that the policy
    was fitted on, None for the calibration rows of the run. Raises BadInput for other rows.
    """
    config, report = scorer.read_config(workdir), records_io.read_report(workdir)
    rows = _rows(workdir, config, report, file)
    if _independent(rows)[1] != policy["data_sha256"]:
        raise BadInput(
            f"{workdir / 'policy.json'} was fitted on other rows ({policy['data']}): give the file "
            "that it was fitted on (--rows), or calibrate again."
        )
    found = read_split(config).rows["calibration"] if file is None else _labelled(config, file)
    examples = {example.id: example for example in found}
    rows = rows._replace(scores=score([examples[id] for id in rows.ids]))
    kept = ("target_fpr", "target_recall", "confidence", "prevalence", "costs")
    settings = {name: policy.get(name) for name in kept} | {"calibrator": "none"}
    return _fit(rows, config, report, settings)


def _independent(rows: Rows) -> tuple[np.ndarray, str]:
    """Returns the positions of the rows that count, and the sha256 of ids, labels and scores."""
    kept = calibrators.independent(rows.groups, rows.labels, rows.ids)
    used = [[rows.ids[i], int(rows.labels[i]), float(rows.scores[i])] for i in kept]
    return kept, hashlib.sha256(json.dumps(used).encode()).hexdigest()


def _fit(rows: Rows, config: ConfigDict, report: dict, settings: dict) -> dict:
    kept, sha256 = _independent(rows)
    return {
        "run": {
            "algorithm": config.algorithm,
            "seed": config.seed,
            "selected_step": report["selected_step"],
            "weights": report["weights"],
            "split_sha256": report["provenance"]["split_sha256"],
        },
        "data": rows.name,
        "data_sha256": sha256,
        "rows_read": len(rows.ids) + rows.left_out,
        "left_out": rows.left_out,
        **operating_point.policy(rows.labels[kept], rows.scores[kept], **settings),
    }


def _rows(workdir: Path, config: ConfigDict, report: dict, file: str | None) -> Rows:
    if file is None:
        return _rows_of_the_run(workdir, report)
    return _rows_of_a_file(workdir, config, file)


def _rows_of_the_run(workdir: Path, report: dict) -> Rows:
    lines = read_jsonl(workdir / "calibration.jsonl")
    if not lines:
        raise BadInput(
            f"{workdir} has no calibration rows: give a file of labelled rows that the run has not "
            "seen, or train it with --config.data.calibration=500. Its dev rows chose the step, "
            "and its test rows are for the number that is reported: a threshold fitted on either "
            "would promise more than it keeps."
        )
    return Rows(
        f"{report['data']['split']}, calibration",
        [line["id"] for line in lines],
        np.array([line["group"] for line in lines]),
        np.array([line["label"] for line in lines]),
        np.array([line[report["weights"]] for line in lines]),
        left_out=0,
    )


def _rows_of_a_file(workdir: Path, config: ConfigDict, file: str) -> Rows:
    mine, source = _labelled(config, file), read_split(config)
    held = set(source.split.calibration)
    seen = [example.prompt for example in source.corpus.examples if example.id not in held]
    groups = duplicates.group_numbers([*seen, *(example.prompt for example in mine)])
    taken, groups = set(groups[: len(seen)].tolist()), groups[len(seen) :]
    kept = [i for i in range(len(mine)) if groups[i] not in taken]
    if not kept:
        raise BadInput(
            f"{file}: every labelled row is a near-duplicate of a row of the run, so its threshold "
            "would not hold for new rows: give rows that the run has not seen."
        )
    compilation.configure(dtype=config.model.dtype, compilation_cache=config.compilation_cache)
    run, examples = scorer.load_run(workdir), [mine[i] for i in kept]
    return Rows(
        Path(file).name,
        [example.id for example in examples],
        groups[kept],
        np.array([example.label for example in examples]),
        # as many decimals as the files of scores have
        run.score(examples)[run.report["weights"]].round(7),
        left_out=len(mine) - len(kept),
    )


def _labelled(config: ConfigDict, file: str) -> list[Example]:
    """Returns the rows of a file that have a label, read as the run reads a file."""
    corpus = DataSpec(config).corpora.load(file, "ROWS")
    examples = [example for example in corpus.examples if example.label is not None]
    if not examples:
        raise BadInput(f"{file} has no row with a label: thresholds need harmful and safe rows.")
    return examples
