"""Moves a classifier of WildGuard's prompts to other traffic, of which only the texts are known.

Every further source is halved by groups of near-duplicates: the texts of one half join the pool,
the other half is tested. The corpora are written from DIR/prompt_harm.jsonl.gz, with fields id,
group, source, prompt and prompt_harmful. A teacher reads states of ladder/llm_features.py.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from experiments.ladder import cells as ladder
from experiments.methods import cells as methods
from experiments.sweep import Cell, product, taught
from experiments.tables import github, runs_of
from ssl_guard.report import results
from ssl_guard.runtime.files import write_jsonl

DATA = Path("data/transfer")
SEEDS = (0, 1, 2)
OWN = "wildguard"
# {traffic: its sources, most rows of the pool, most rows of the test}
TRAFFIC = {
    "toxicchat": (("toxicchat",), 700, 1500),
    "openai_mod": (("openai_mod",), 500, 800),
    "benign": (("arena_hard", "dolly", "mt_bench", "self_instruct"), 500, 800),
}
FURTHER = ("beavertails_prompts", "aegis_train")  # sources of the arm `several`
RECALL = 0.8  # on the harmful rows of WildGuard's test; thresholds differ between models
POOL = methods.SETTINGS | ladder.TRAINED | {
    "data.dir": DATA,
    "data.corpus": DATA / "wildguard.jsonl",
    "data.test_corpus": DATA / "test.jsonl",
    "data.unlabelled_corpus": DATA / "traffic.jsonl",
    "data.labelled": 1800,
    "model.dtype": "float32",
    "train.labelled_batch": 16,
    "train.unlabelled_batch": 16,
}  # fmt: skip
SUPERVISED = {"train.labelled_batch": 32}  # as many rows in a step as students see
# {arm: (config, settings)}. Of the pool's texts 13% are harmful.
ARMS: dict[str, tuple[str, dict]] = {
    "source": ("supervised", SUPERVISED),
    "encoder": ("logistic_regression", {}),
    "student": ("self_training", {}),
    "student_prior": ("self_training", {"teach.prior": 0.1}),
    "oracle": ("self_training", {"train.oracle": True}),
    "several": (
        "supervised",
        SUPERVISED
        | {"data.corpus": DATA / "several.jsonl", "data.labelled": 4000}
        | {"data.label_sampling": "random", "data.unlabelled_corpus": ""},
    ),
}
STUDENTS = ("student", "student_prior")
STATES = f"states:{DATA}/llm_0.5b.npz"


def write_corpora(folder: Path) -> None:
    """Writes the labelled corpora, the texts of the traffic, and the rows to encode."""
    DATA.mkdir(parents=True, exist_ok=True)
    sources: dict[str, list[dict]] = {}
    with gzip.open(folder / "prompt_harm.jsonl.gz", "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            sources.setdefault(row["source"], []).append(row)
    labelled = _sorted(sources["wildguard_train"])[:2300]
    pool, test = [], list(sources["wildguard_test"])
    for names, most_pool, most_test in TRAFFIC.values():
        rows = _sorted(row for name in names for row in sources[name])
        pool += [row for row in rows if _half(row) == 0][:most_pool]
        test += [row for row in rows if _half(row) == 1][:most_test]
    several = labelled + pool + [row for name in FURTHER for row in sources[name]]
    for name, rows in {
        "wildguard": labelled,
        "traffic": pool,
        "test": test,
        "several": several,
        "states_in": labelled + pool,
    }.items():
        kept = [
            {"id": row["id"], "prompt": row["prompt"], "label": row["prompt_harmful"]}
            for row in rows
        ]
        write_jsonl(DATA / f"{name}.jsonl", kept)


def _sorted(rows: Iterable[dict]) -> list[dict]:
    return sorted(rows, key=lambda row: _digest(row["id"]))


def _half(row: dict) -> int:
    return _digest(str(row["group"]))[0] % 2


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _cell(arm: str, seed: int) -> Cell:
    """Plans a cell; those of students first train their teachers, if these are not finished."""
    config, own = ARMS[arm]
    plain = Cell(config, POOL | own | {"seed": seed})
    if arm not in STUDENTS:
        return plain
    names = ("source", "encoder")
    teachers: dict[str, Cell | None] = {f"runs/transfer/{n}-{seed}": _cell(n, seed) for n in names}
    return taught(plain, f"runs/transfer/{arm}-{seed}-soft_labels", teachers | {STATES: None})


CELLS = {f"{one['arm']}-{one['seed']}": _cell(**one) for one in product(seed=SEEDS, arm=ARMS)}


def traffic_of(row_id: str) -> str:
    """Returns the traffic of a test row from its id, <p>-<source>-<hash>."""
    source = row_id.split("-")[1]
    return next((name for name, (names, *_) in TRAFFIC.items() if source in names), OWN)


def measure(run: dict) -> dict[str, float]:
    """Computes AUPRC and false positive rates on every traffic from a run of `results.load`."""
    test = results.own_test(run)
    truth, scores = test.truth, test.probabilities
    traffic = np.array([traffic_of(row["id"]) for row in test.rows])
    threshold = run["report"]["dev"][run["report"]["weights"]]["threshold"]
    at_recall = np.quantile(scores[(traffic == OWN) & (truth == 1)], 1 - RECALL)
    found = {}
    for name in (OWN, *TRAFFIC):
        here = traffic == name
        safe, harmful = scores[here & (truth == 0)], scores[here & (truth == 1)]
        if len(harmful):
            found[f"{name}: AUPRC"] = average_precision_score(truth[here], scores[here])
            found[f"{name}: recall"] = np.mean(harmful >= threshold)
        found[f"{name}: FPR"] = np.mean(safe >= threshold)
        found[f"{name}: FPR at {RECALL:.0%} of {OWN}'s"] = np.mean(safe >= at_recall)
    return found


def table() -> str:
    """Tabulates means and deviations over seeds of every arm with records."""
    runs = {arm: runs_of("transfer", [f"{arm}-{seed}" for seed in SEEDS]) for arm in ARMS}
    found = {arm: [measure(run) for run in mine] for arm, mine in runs.items() if mine}
    if not found:
        return ""
    names = next(iter(found.values()))[0]
    rows = [
        [name, *(_spread([100 * one[name] for one in mine]) for mine in found.values())]
        for name in names
    ]
    seeds = [f"{arm} ({len(mine)})" for arm, mine in found.items()]
    return github(rows, ["%, mean over (seeds)", *seeds])


def _spread(values: list[float]) -> str:
    mean = f"{np.mean(values):.1f}"
    return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean
