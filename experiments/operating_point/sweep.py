"""Trains one run with a calibration side, sets its operating point, measures it, prints the table.

    python experiments/operating_point/sweep.py --corpora=DIR     # what is missing, the table
    python experiments/operating_point/sweep.py --table           # the table alone

DIR is that of experiments/methods. The run is its ceiling, `supervised_full`, with 800 rows of the
pool kept for calibration.
"""

import argparse
import gzip
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

HERE = Path(__file__).parent
RECORDS = HERE / "records"
WORKDIR = Path("runs/operating_point")
TARGET_FPR = 0.05
PROFILES = ("permissive", "strict")
SIDE = "test"  # the run's own, then other sources of prompts
SOURCES = ("openai_mod", "beavertails_prompts", "aegis_train")
SAFE_SOURCE = "self_instruct"
methods = runpy.run_path(str(HERE.parent / "methods" / "sweep.py"))


def run_all(corpora: Path) -> None:
    """Trains, calibrates, evaluates with either threshold, and keeps the records."""
    if (RECORDS / "policy.json").exists():
        return
    methods["write_corpora"](corpora)
    write_sources(corpora)
    settings = methods["SETTINGS"] | methods["OWN"]["supervised_full"]
    settings |= {"data.calibration": 800, "train.eval_every_steps": 50, "seed": 0}
    overrides = [f"--config.{key}={value}" for key, value in settings.items()]
    config = "--config=configs/supervised_full.py"
    at = f"--workdir={WORKDIR}"
    program("main", config, at, *overrides)
    program("threshold", at, f"--target-fpr={TARGET_FPR}")
    for profile in PROFILES:
        named = ",".join([SIDE, *(f"data/{source}.jsonl" for source in SOURCES)])
        policy = [f"--policy={WORKDIR}/policy.json", f"--profile={profile}"]
        safe = f"--over_refusal=data/{SAFE_SOURCE}.jsonl"
        program("evaluate", at, f"--corpora={named}", safe, *policy)
        (RECORDS / profile).mkdir(parents=True, exist_ok=True)
        ending = f".policy-{profile}"
        for path in (WORKDIR / "evaluations").glob(f"*{ending}.json"):
            shutil.copy(path, RECORDS / profile / path.name.replace(ending, ""))
    for name in ("config.json", "report.json", "policy.json"):
        shutil.copy(WORKDIR / name, RECORDS / name)


def program(module: str, *arguments: str) -> None:
    """Runs one of the package's programs."""
    subprocess.run([sys.executable, "-m", f"ssl_guard.{module}", *arguments], check=True)


def write_sources(folder: Path) -> None:
    """A file for each of the other sources."""
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
    policy = json.loads((RECORDS / "policy.json").read_text())
    rows = []
    for profile in PROFILES:
        point = policy["thresholds"][profile]
        name = f"{profile}: {point['promise']}, score >= {point['threshold']:.4f}"
        calibration = (policy["rows"], policy["harmful"], point["measured"])
        found = {"calibration rows": calibration}
        paths = (RECORDS / profile).glob("*.json")
        for path in sorted(paths, key=lambda path: (not path.stem.endswith(".test"), path.stem)):
            evaluation = json.loads(path.read_text())
            cohort = evaluation["cohort"]
            scores = evaluation["scores"][cohort["weights"]]
            found[cohort["corpus"]] = cohort["rows"], cohort["harmful"], scores
        for number, (corpus, (count, harmful, scores)) in enumerate(found.items()):
            shown = [percent(scores.get(key)) for key in ("fpr", "recall", "precision")]
            rows.append(["" if number else name, corpus, count, harmful, *shown])
    titles = ["profile", "corpus", "rows", "harmful", "FPR, %", "recall, %", "precision, %"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def percent(score: dict | None) -> str:
    """A score with its interval, a dash if the corpus has no such number."""
    if score is None:
        return "-"
    value, low, high = (100 * score[key] for key in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpora", type=Path, help="folder of prompt_harm.jsonl.gz")
    parser.add_argument("--table", action="store_true", help="the table alone")
    arguments = parser.parse_args()
    if not arguments.table:
        run_all(arguments.corpora)
    print(table())
