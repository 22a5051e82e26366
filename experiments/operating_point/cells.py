"""Whether a threshold keeps its promise on rows and corpora that it was not set on.

The run is the ceiling of experiments/methods, `supervised_full`, with 800 rows of the pool kept
for calibration. DIR is that of experiments/methods.
"""

import gzip
import json
from pathlib import Path

from experiments.methods import cells as methods
from experiments.sweep import Cell
from experiments.tables import HERE, evaluations, github, percent
from ssl_guard.report import records

TARGET_FPR = 0.05
PROFILES = ("permissive", "strict")
SIDE = "test"  # the run's own, then other sources of prompts
SOURCES = ("openai_mod", "beavertails_prompts", "aegis_train")
SAFE_SOURCE = "self_instruct"
CELL = "supervised_full-0"
AT = "--workdir={workdir}"


def _evaluate(profile: str) -> tuple[str, ...]:
    named = ",".join([SIDE, *(f"data/{source}.jsonl" for source in SOURCES)])
    safe = f"--over_refusal=data/{SAFE_SOURCE}.jsonl"
    policy = ("--policy={workdir}/policy.json", f"--profile={profile}")
    return ("evaluate", AT, f"--corpora={named}", safe, *policy)


CELLS = {
    CELL: Cell(
        "supervised_full",
        methods.SETTINGS
        | methods.OWN["supervised_full"]
        | {"data.calibration": 800, "train.eval_every_steps": 50, "seed": 0},
        after=[("calibrate", AT, f"--target-fpr={TARGET_FPR}"), *map(_evaluate, PROFILES)],
    )
}


def write_corpora(folder: Path) -> None:
    """Writes the files of experiments/methods and one for each of the other sources."""
    methods.write_corpora(folder)
    with gzip.open(folder / "prompt_harm.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for source in (*SOURCES, SAFE_SOURCE):
        lines = [
            json.dumps({"id": r["id"], "prompt": r["prompt"], "label": r["prompt_harmful"]}) + "\n"
            for r in rows
            if r["source"] == source
        ]
        Path("data", f"{source}.jsonl").write_text("".join(lines))


def table() -> str:
    """Promise and measurement on the calibration rows and on every corpus, for both profiles."""
    record = records.read(HERE / "operating_point" / CELL)
    policy, rows = record["policy"], []
    for profile in PROFILES:
        point = policy["thresholds"][profile]
        name = f"{profile}: {point['promise']}, score >= {point['threshold']:.4f}"
        found = {"calibration rows": (policy["rows"], policy["harmful"], point["measured"])}
        measured = evaluations(record, f"policy:{profile}")
        for corpus in sorted(measured, key=lambda name: (not name.endswith(".test"), name)):
            cohort = measured[corpus]["cohort"]
            scores = measured[corpus]["scores"][cohort["weights"]]
            found[corpus] = cohort["rows"], cohort["harmful"], scores
        for number, (corpus, (count, harmful, scores)) in enumerate(found.items()):
            shown = [percent(scores.get(key)) for key in ("fpr", "recall", "precision")]
            rows.append(["" if number else name, corpus, count, harmful, *shown])
    titles = ["profile", "corpus", "rows", "harmful", "FPR, %", "recall, %", "precision, %"]
    return github(rows, titles)
