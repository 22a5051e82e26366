"""Evaluates fully supervised models and baselines on all sources of prompts and responses.

The corpora are written from DIR/prompt_harm, moderation and response_harm.jsonl.gz, with fields id,
source, prompt, response, prompt_harmful, response_harmful and category.
"""

import gzip
import hashlib
import json
from pathlib import Path

from experiments.methods import cells as methods
from experiments.sweep import Cell
from experiments.tables import HERE, evaluations, github, operating_points, percent, reported
from ssl_guard.report import records

DATA = Path("data/evaluation")

FILES = {
    "prompt_harm": ("prompt_harm.jsonl.gz", "moderation.jsonl.gz"),
    "response_harm": ("response_harm.jsonl.gz",),
}
LABEL = {"prompt_harm": "prompt_harmful", "response_harm": "response_harmful"}
MOST = 200  # rows of a source, those with the smallest sha256 of their ids, except for:
MORE = {"openai_mod": 500, "toxicchat": 500, "beavertails_prompts": 500}
WHOLE = ("wildguard_train", "wildguard_test", "saferlhf", "beavertails_test")
# Sources whose `category` is a kind of harm; elsewhere it is a split or a template.
CATEGORIES = (
    "wildguard_test", "openai_mod", "ailuminate", "catqa", "harmbench", "harmfulqa", "davidson",
    "hatexplain", "pyrit", "diasafety",
)  # fmt: skip

PROMPTS = methods.SETTINGS | {
    "data.dir": DATA,
    "data.corpus": DATA / "wildguard_train.jsonl",
    "data.test_corpus": DATA / "wildguard_test.jsonl",
    "data.calibration": 800,
    "train.steps": 250,
    "train.labelled_batch": 16,
    "train.eval_every_steps": 50,
}
RESPONSES = PROMPTS | {
    "data.task": "response_harm",
    "data.corpus": DATA / "saferlhf.jsonl",
    "data.test_corpus": DATA / "beavertails_test.jsonl",
    "train.steps": 150,
}
ALL = {"data.all_labels": True}
# Runs without seeds: (config, settings). Runs of one task and seed share a frozen split.
RUNS = {
    "supervised_full": ("supervised_full", PROMPTS),
    "logistic_regression_full": ("logistic_regression", PROMPTS | ALL),
    "tfidf_logistic_full": ("tfidf_logistic", PROMPTS | ALL),
    "setfit": ("setfit", PROMPTS | {"train.steps": 100, "train.labelled_batch": 8}),
    "responses": ("supervised_full", RESPONSES),
    "responses_tfidf": ("tfidf_logistic", RESPONSES | ALL),
}

SIDE = "test"  # of the run's own split
MODERATION = ("jigsaw", "davidson", "hatexplain")  # posts and comments, not prompts
HARMFUL = (
    "aart", "advbench", "ailuminate", "catqa", "harmbench", "harmfulqa", "wildjailbreak_eval",
)  # fmt: skip
ATTACKS = "leetspeak,spacing,homoglyphs,zero_width,encoded,masking"
TARGET_FPR = 0.05
DEV, PROFILES = "dev_best_f1", ("permissive", "strict")
SEEDS = (0, 1, 2)
PROMPT_SETS = ("openai_mod", "toxicchat", "beavertails_prompts")
# Calls of evaluate for a cell: (corpora, corpora of which only safe rows are read, attacks).
FIRST = (
    ((SIDE,), (), True),
    ((*PROMPT_SETS, "aegis_train", *MODERATION), ("self_instruct",), False),
    (HARMFUL, ("arena_hard", "dolly", "mt_bench"), False),
)
FURTHER = (((SIDE, *PROMPT_SETS), ("self_instruct",), False),)
RIVAL = (((SIDE, *PROMPT_SETS), (), False),)
ON_RESPONSES = (((SIDE, "gptfuzz", "pyrit", "diasafety"), (), False),)
EXAMS = {
    "supervised_full-0": FIRST,
    "supervised_full-1": FURTHER,
    "supervised_full-2": FURTHER,
    "tfidf_logistic_full-0": (FIRST[0], (PROMPT_SETS, (), False)),
    "responses-0": ON_RESPONSES,
    "responses_tfidf-0": ON_RESPONSES,
    "logistic_regression_full-0": RIVAL,
    "setfit-0": RIVAL,
}


def write_corpora(folder: Path) -> None:
    """Writes one file per source."""
    DATA.mkdir(parents=True, exist_ok=True)
    for task, files in FILES.items():
        for file in files:
            sources: dict[str, list[dict]] = {}
            with gzip.open(folder / file, "rt", encoding="utf-8") as lines:
                for row in map(json.loads, lines):
                    sources.setdefault(row["source"], []).append(row)
            for source, rows in sources.items():
                rows = sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).digest())
                kept = rows if source in WHOLE else rows[: MORE.get(source, MOST)]
                text = "".join(json.dumps(line(row, task)) + "\n" for row in kept)
                (DATA / f"{source}.jsonl").write_text(text)


def line(row: dict, task: str) -> dict:
    """Converts a row to a line of a corpus file."""
    found = {"id": row["id"], "prompt": row["prompt"], "label": row[LABEL[task]]}
    if task == "response_harm":
        found["response"] = row["response"]
    if row["source"] in CATEGORIES and row["category"]:
        found["category"] = row["category"].split(";")[0]
    return found


def _cell(name: str) -> Cell:
    """Makes a cell that trains and runs the evaluations of EXAMS, with a policy if supervised."""
    kind, _, seed = name.rpartition("-")
    config, settings = RUNS[kind]
    at, after, policy = "--workdir={workdir}", [], ()
    if kind == "supervised_full":
        after.append(("calibrate", at, f"--target_fpr={TARGET_FPR}"))
        policy = ("--policy={workdir}/policy.json", f"--profile={','.join((DEV, *PROFILES))}")
    for corpora, safe, attacked in EXAMS[name]:
        asked = (f"--corpora={files(corpora)}", f"--over_refusal={files(safe)}")
        attacks = (f"--robustness={ATTACKS}",) if attacked else ()
        after.append(("evaluate", at, *asked, *attacks, *policy))
    return Cell(config, settings | {"seed": seed}, after=after)


def files(names: tuple[str, ...]) -> str:
    """Returns the files of sources, separated by commas."""
    return ",".join(name if name == SIDE else str(DATA / f"{name}.jsonl") for name in names)


CELLS = {name: _cell(name) for name in EXAMS}


def record(cell: str) -> dict:
    """Reads the record of a cell."""
    return records.read(HERE / "evaluation" / cell)


def load(cell: str, policy: str = DEV) -> dict[str, dict]:
    """Reads {corpus: evaluation} of a cell under one threshold policy."""
    return evaluations(record(cell), policy)


METRICS = {
    "f1": "F1 harmful",
    "auprc": "AUPRC",
    "recall_at_1_fpr": "recall at 1% FPR",
    "recall": "recall",
    "fpr": "FPR",
    "ece": "ECE",
}


def sources(cell: str) -> str:
    """Tabulates METRICS of every source at the dev threshold."""
    rows = []
    for corpus, evaluation in sorted(load(cell).items(), key=by_size):
        cohort, seen = evaluation["cohort"], evaluation["contamination"]
        left_out = seen["exact"] + seen["near_duplicates"]
        row = [corpus, cohort["rows"], cohort["harmful"], left_out]
        rows.append(row + [percent(reported(evaluation).get(name)) for name in METRICS])
    titles = ["corpus, % [95%]", "rows", "harmful", "left out", *METRICS.values()]
    return github(rows, titles)


def by_size(item: tuple[str, dict]) -> tuple:
    """Orders corpora: both classes, harmful only, safe only; each from the largest."""
    cohort = item[1]["cohort"]
    share = cohort["harmful"] / cohort["rows"]
    return (0 < share < 1, share) if share in (0, 1) else (-1, 0), -cohort["rows"], item[0]


def rivals(cells: dict[str, str]) -> str:
    """Tabulates F1 and AUPRC of every cell on the corpora of both classes that all cells have."""
    found = [load(cell) for cell in cells]
    rows = []
    for corpus in sorted(set.intersection(*map(set, found))):
        scores = [reported(evaluations[corpus]) for evaluations in found]
        if "f1" in scores[0]:
            cells_of = [percent(score[name]) for score in scores for name in ("f1", "auprc")]
            rows.append([short(corpus), *cells_of])
    titles = [f"{title}: {name}" for title in cells.values() for name in ("F1", "AUPRC")]
    return github(rows, ["corpus, % [95%]", *titles])


def short(corpus: str) -> str:
    """Shortens the name of a test side to its corpus."""
    return corpus.partition("-")[2].removesuffix(".test") or corpus


def obfuscated(cells: list[str]) -> str:
    """Tabulates the drop of recall under every attack."""
    rows = []
    for cell in cells:
        for corpus, evaluation in sorted(load(cell).items()):
            if drops := evaluation["robustness"]:
                recall = reported(evaluation)["recall"]["value"]
                row = [cell.rpartition("-")[0], short(corpus), f"{100 * recall:.1f}"]
                rows.append(row + [drop_of(drops[op]) for op in ATTACKS.split(",")])
    titles = ["method", "corpus", "recall, %", *(f"{op}: drop" for op in ATTACKS.split(","))]
    return github(rows, titles)


def drop_of(found: dict) -> str:
    """Formats a drop in points of recall; a dash if the attack changed no row."""
    return percent(found | {"value": found["drop"]}) if found["rows"] else "-"


def table() -> str:
    """Makes all tables, with their titles, of the cells with records."""
    there = {cell for cell in EXAMS if records.path_of(HERE / "evaluation" / cell).exists()}
    prompts = {
        "supervised_full-0": "supervised_full",
        "logistic_regression_full-0": "frozen encoder + LR, all labels",
        "tfidf_logistic_full-0": "TF-IDF + LR, all labels",
        "setfit-0": "SetFit, 200 labels",
    }
    responses = {"responses-0": "supervised_full", "responses_tfidf-0": "TF-IDF + LR, all labels"}
    seeds = [f"supervised_full-{seed}" for seed in SEEDS if f"supervised_full-{seed}" in there]
    points = operating_points([record(seed) for seed in seeds], PROFILES)
    parts = {f"Operating points, seeds: {len(seeds)}": points}
    for title, cells in {"Prompts": prompts, "Responses": responses}.items():
        found = {cell: name for cell, name in cells.items() if cell in there}
        for cell, name in list(found.items())[:1]:
            parts[f"{title}: {name} on every source"] = sources(cell)
            parts[f"{title}: rivals"] = rivals(found)
    parts["Obfuscated"] = obfuscated([cell for cell in prompts if cell in there])
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts.items())
