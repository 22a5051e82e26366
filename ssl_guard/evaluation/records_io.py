"""Reads and writes evaluations, and counts how often a run has read a test set.

RUN/evaluations/<name>.json has the numbers and <name>.jsonl one line a row; reads.jsonl has one
line for every time that a set was scored. <name> is the corpus's and the threshold policy's, with
the first 8 digits of the corpus's sha256 behind it where another corpus has the name already.

    cohort        the data and the scorer; numbers of different cohorts are not comparable
        corpus, corpus_sha256   name, and sha256 of its rows that have a label
        rows_sha256             of the rows that were scored: without those left out below
        rows, harmful           how many were scored
        task, label_map         schema.TASKS; {label value: 0 or 1} by which a file was read, null
                                for a corpus's own labels
        split, split_sha256     of the run, that trained it; null for another scorer
        threshold_policy        "dev_best_f1", "policy:<profile>", with the promise behind it if
                                the profile makes one, or "given"
        threshold               {"raw": t, "ema": t}: harmful is a score of at least t
        checkpoint_sha256       of the weights that scored
        weights                 "ema" or "raw": which of them `slices` and the rest are of
        seed                    of the run; null for another scorer
    scorer        {"name": algorithm or classifier, "workdir"}
    missing       ids of rows that the scorer failed on; they are in no number here
    kind          "test", "over_refusal" (the safe rows of alarming prompts) or a side of the run
    scores        {"raw": {metric: {"value", "low", "high"}}, "ema": ...}: 95% bootstrap intervals
                  over groups of near-duplicate prompts. A metric that needs both classes is
                  missing, not zero, for a corpus of one.
    slices        {"category": {value: {"rows", "harmful", metric: number}}, "source", "length" in
                  the run's tokens, and every other column that was asked for, "adversarial" say}
    robustness    {operation: {"arguments", "rows", "recall", "drop", "low", "high"}}: recall of
                  harmful rows that were obfuscated, and how much less than on the same rows as they
                  are; without numbers if the operation changes no row
    curves        {"precision_recall": {"recall": [...], "precision": [...], "threshold": [...]},
                  "reliability": [{"score", "harmful_share", "rows"}]}, of equal-mass bins; without
                  precision_recall for a corpus of one class
    cost          {"texts_per_second", "tokens_per_second", "padding_share"}
    contamination {"exact", "near_duplicates", "removed"}: rows whose prompt is, but for case and
                  white space, or nearly, one that the run has seen; null if it is not known
    times_read    how often the run has scored these rows, this time and training included
    provenance    of provenance.collect

A line of <name>.jsonl: id, group (int, of near-duplicate prompts), label, raw and, if kept, ema
(harmful probabilities), category and source (or null), tokens (before any cut), windows if long
texts were scored in windows, and the columns of `slices`; never a text.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import read_json, read_jsonl, write_json, write_jsonl

FIELDS = (
    "cohort",
    "scorer",
    "kind",
    "scores",
    "slices",
    "robustness",
    "curves",
    "cost",
    "contamination",
    "times_read",
    "provenance",
)


def no_run(path: str | Path) -> BadInput:
    """Returns the error of a folder without report.json: none, an interrupted run, or several."""
    path = Path(path)
    runs = sorted(found.parent.name for found in path.glob("*/report.json"))
    if not path.exists():
        what = f"there is no run {path}: check the path"
    elif (path / "config.json").exists():
        what = f"the run in {path} has not finished: its own command again resumes it"
    elif runs:
        what = f"{path} holds the runs {', '.join(runs)}: name one, such as {path / runs[-1]}"
    else:
        what = f"{path} holds no run: train one with --workdir={path}"
    return BadInput(f"{what} (no report.json).")


def read_report(workdir: str | Path) -> dict:
    """Reads the report of a finished run. Raises BadInput for another folder."""
    path = Path(workdir, "report.json")
    if not path.exists():
        raise no_run(workdir)
    return read_json(path, "delete it, and the run's own command makes it again")


def write_evaluation(workdir: str | Path, evaluation: dict, rows: Sequence[dict]) -> Path:
    """Writes the two files described above, the rows first, and returns the path of the JSON."""
    if missing := [field for field in FIELDS if field not in evaluation]:
        raise ValueError(f"an evaluation needs {', '.join(missing)}")
    path = _path(Path(workdir) / "evaluations", evaluation["cohort"])
    write_jsonl(path.with_suffix(".jsonl"), rows)
    write_json(path, evaluation)
    return path


def _path(folder: Path, cohort: dict) -> Path:
    """Returns <name>.json, or <name>-<sha256>.json if <name>.json is of another corpus."""
    policy = cohort["threshold_policy"].partition(",")[0].replace(":", "-")
    if policy == "given":
        policy += f"-{cohort['threshold'][cohort['weights']]:g}"
    path = folder / f"{cohort['corpus']}.{policy}.json"
    if path.exists():
        theirs = json.loads(path.read_text())["cohort"]["corpus_sha256"]
        if theirs != cohort["corpus_sha256"]:
            return path.with_stem(f"{path.stem}-{cohort['corpus_sha256'][:8]}")
    return path


def read_evaluations(workdir: str | Path) -> list[dict]:
    """Reads the evaluations of a run, sorted by name, each with its lines as "rows".

    Raises BadInput for a file that is not a whole evaluation.
    """
    found = []
    for path in sorted(Path(workdir, "evaluations").glob("*.json")):
        try:
            evaluation = json.loads(path.read_text())
            missing = [field for field in FIELDS if field not in evaluation]
        except (OSError, ValueError):
            missing = list(FIELDS)
        if missing or not path.with_suffix(".jsonl").exists():
            raise BadInput(
                f"{path} is not a whole evaluation: delete it and run ssl_guard evaluate again."
            )
        found.append(evaluation | {"rows": read_jsonl(path.with_suffix(".jsonl"))})
    return found


def method_name(report: dict, name: str = "") -> str:
    """Returns the algorithm of a run's report, or another name of it; an oracle is marked."""
    return (name or report["algorithm"]) + (" (oracle)" if report.get("oracle") else "")


def record_read(workdir: str | Path, cohort: dict) -> int:
    """Records a read of a set in RUN/evaluations/reads.jsonl and returns the number of its reads.

    Sets are equal if their labelled rows are, regardless of the file.
    """
    path = Path(workdir, "evaluations", "reads.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = ("corpus", "corpus_sha256", "rows", "threshold_policy", "checkpoint_sha256")
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    with path.open("a") as file:
        file.write(json.dumps(line | {key: cohort[key] for key in keys}) + "\n")
    return sum(line["corpus_sha256"] == cohort["corpus_sha256"] for line in read_jsonl(path))
