"""Loads results of runs and external scorers, and groups those that may share a table.

Results share a table only if their cohorts agree: the same rows and labels, task, label map and
threshold policy.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_guard.errors import BadInput
from ssl_guard.evaluation.records_io import method_name, no_run, read_evaluations, read_report
from ssl_guard.report import records
from ssl_guard.runtime.files import read_jsonl

# Keys that must agree for two numbers to share a column: {key: its name in errors}.
COHORT = {
    "corpus": "corpus name",
    "corpus_sha256": "corpus hash",
    "rows_sha256": "split (the test rows)",
    "task": "task",
    "label_map": "label map",
    "threshold_policy": "threshold policy",
}


class Result(NamedTuple):
    """One scorer, a run or an external classifier, on one labelled set.

    method: the algorithm or the classifier; labels: number of labels it learned from, None if
    unknown; run: from `load`, None for an external classifier; evaluation: as in
    evaluation/records_io.py; the test of a run has only cohort, scorer and scores; rows: its
    lines, sorted by id.
    """

    method: str
    labels: int | None
    run: dict | None
    evaluation: dict
    rows: list[dict]

    @property
    def cohort(self) -> dict:
        return self.evaluation["cohort"]

    @property
    def scores(self) -> dict:
        """{metric: {value, low, high}} of the reported weights."""
        return self.evaluation["scores"][self.cohort["weights"]]

    @property
    def truth(self) -> np.ndarray:
        """Labels, int [rows]."""
        return np.array([row["label"] for row in self.rows])

    @property
    def probabilities(self) -> np.ndarray:
        """Harmful probabilities of the reported weights, float [rows]."""
        return np.array([row[self.cohort["weights"]] for row in self.rows])


def is_run(path: str | Path) -> bool:
    """Returns whether `load` finds a finished run at the path."""
    return Path(path, "report.json").exists() or records.path_of(path).exists()


def load(path: str | Path) -> dict:
    """Loads a finished run: report, metrics rows, test predictions, and policy.json or None.

    path: a run folder, or a record of `records` with or without .json. Raises BadInput for an
    unfinished or incomplete run.
    """
    workdir = Path(str(path).removesuffix(".json"))
    if not is_run(path):
        raise no_run(path)
    try:
        if (workdir / "report.json").exists():
            return {"workdir": workdir, **_of_folder(workdir)}
        record = records.read(path)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"the run in {workdir} is incomplete ({type(error).__name__}): copy its files again."
        ) from error
    if not record["predictions"]:
        raise BadInput(f"{path} has no predictions: copy its .parquet file beside it.")
    return {"workdir": workdir, **record}


def _of_folder(workdir: Path) -> dict:
    if (workdir / "encoder").is_dir():
        raise BadInput(f"{workdir} pre-trained an encoder and has no test scores: leave it out.")
    report, policy = read_report(workdir), workdir / "policy.json"
    lines = (workdir / "predictions.jsonl").read_text().splitlines()
    return {
        "report": report,
        "metrics": read_jsonl(workdir / "metrics.jsonl"),
        "predictions": [json.loads(line) for line in lines],
        "policy": json.loads(policy.read_text()) if policy.exists() else None,
    }


def results_of(workdir: str | Path) -> list[Result]:
    """Loads the test of a run, its evaluations and those in RUN/peers/.

    A folder of an external scorer has evaluations alone, a record only the test. Raises BadInput
    for a folder with neither.
    """
    evaluations = read_evaluations(workdir)
    run = load(workdir) if not evaluations or is_run(workdir) else None
    found = [own_test(run)] if run else []
    for evaluation in evaluations:
        name = method_name(run["report"]) if run else evaluation["scorer"]["name"]
        evaluation["scorer"]["workdir"] = str(workdir)  # the folder may have moved
        found.append(_result(name, run, evaluation, evaluation["rows"]))
    for folder in sorted(Path(workdir).glob("peers/*/evaluations")):
        found += results_of(folder.parent)
    return found


def own_test(run: dict) -> Result:
    """Converts the test of a run from `load` into a result."""
    report = run["report"]
    data, hashes = report["data"], report["provenance"]
    cohort = {
        "corpus": data["corpus"],
        "corpus_sha256": hashes["corpus_sha256"],
        "rows": len(run["predictions"]),
        "harmful": sum(row["label"] for row in run["predictions"]),
        "task": data["task"],
        "label_map": None,
        "split": data["split"],
        "split_sha256": hashes["split_sha256"],
        "threshold_policy": "dev_best_f1",
        "threshold": {kind: dev["threshold"] for kind, dev in report["dev"].items()},
        "checkpoint_sha256": None,
        "weights": report["weights"],
        "seed": report["seed"],
    }
    scorer = {"name": method_name(report), "workdir": str(run["workdir"])}
    evaluation = {"cohort": cohort, "scorer": scorer, "scores": report["test"]}
    return _result(method_name(report), run, evaluation, run["predictions"])


def _result(method: str, run: dict | None, evaluation: dict, rows: list[dict]) -> Result:
    rows = sorted(rows, key=lambda row: str(row["id"]))
    read_rows = json.dumps([[row["id"], row["label"]] for row in rows])
    sha256 = hashlib.sha256(read_rows.encode()).hexdigest()
    labels = None
    if run:
        data = run["report"]["data"]
        labels = data.get("labels_used") or data["rows"]["labelled"]
        # The name of the config that trains on the labels of all rows.
        method += "_full" if labels > data["rows"]["labelled"] else ""
    evaluation = evaluation | {"cohort": evaluation["cohort"] | {"rows_sha256": sha256}}
    return Result(method, labels, run, evaluation, rows)


def named_apart(results: list[Result]) -> list[Result]:
    """Renames a method that has several runs of one seed, since these differ in more than the seed.

    Its runs get the name of their arm, the folder's without the seed at its end: student for
    student-5. Where an arm has several runs of one seed too, they get the path of their folder.
    """
    for name_of in (_arm, _folder):
        places: dict[tuple, set[str]] = {}
        for result in results:
            places.setdefault(_place(result), set()).add(_folder(result))
        mixed = {method for (method, *_), folders in places.items() if len(folders) > 1}
        results = [
            result._replace(method=name_of(result)) if result.method in mixed else result
            for result in results
        ]
    return results


def _arm(result: Result) -> str:
    name = Path(_folder(result)).name.removesuffix(f"-{result.cohort['seed']}")
    return method_name(result.run["report"], name) if result.run else name


def _folder(result: Result) -> str:
    return result.evaluation["scorer"]["workdir"]


def _place(result: Result) -> tuple:
    return result.method, result.labels, result.cohort["seed"], cohort_key(result)


def cohort_key(result: Result) -> tuple:
    """Returns the values that must be equal for results to share a table."""
    return tuple(json.dumps(result.cohort[key], sort_keys=True) for key in COHORT)


def by_cohort(results: list[Result]) -> list[list[Result]]:
    """Groups results by cohort, in the order of first appearance."""
    parts: dict[tuple, list[Result]] = {}
    for result in results:
        parts.setdefault(cohort_key(result), []).append(result)
    return list(parts.values())


def check_cohort(results: list[Result]) -> None:
    """Raises BadInput, with the differing keys, unless all results are of one cohort."""
    first = results[0]
    for other in results[1:]:
        pairs = zip(COHORT.values(), cohort_key(first), cohort_key(other), strict=True)
        if differing := [title for title, mine, theirs in pairs if mine != theirs]:
            mine, theirs = _folder(first), _folder(other)
            raise BadInput(
                f"{mine} and {theirs} differ in {', '.join(differing)}: results of different "
                "cohorts cannot share a table; make one for each."
            )


def by_method(results: list[Result]) -> dict[tuple[str, int | None], list[Result]]:
    """Groups results into {(method, labels): results, one per seed}, in the order given."""
    methods: dict[tuple, list[Result]] = {}
    for result in results:
        methods.setdefault((result.method, result.labels), []).append(result)
    return methods


def baseline_of(results: list[Result]) -> str:
    """Returns the default baseline: the second of two methods, else `supervised`, else the last."""
    names = list(dict.fromkeys(result.method for result in results))
    return "supervised" if len(names) > 2 and "supervised" in names else names[-1]
