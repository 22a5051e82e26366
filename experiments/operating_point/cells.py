"""Tests whether guaranteed thresholds hold on rows and corpora that they were not fitted on.

The run is `supervised_full` of experiments/methods with 800 rows of the pool reserved for
calibration. DIR is that of experiments/methods.
"""

from pathlib import Path

from experiments.methods import cells as methods
from experiments.sweep import Cell
from experiments.tables import HERE, operating_points
from ssl_guard.report import records

TARGET_FPR = 0.05
PROFILES = ("permissive", "strict")
SIDE = "test"  # of the run's own split; then other sources of prompts
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
        after=[("calibrate", AT, f"--target_fpr={TARGET_FPR}"), *map(_evaluate, PROFILES)],
    )
}


def write_corpora(folder: Path) -> None:
    """Writes the files of experiments/methods and one for each of the other sources."""
    methods.write_corpora(folder)
    methods.write_sources(folder, (*SOURCES, SAFE_SOURCE))


def table() -> str:
    """Tabulates guarantees and measurements on the calibration rows and on every corpus."""
    return operating_points([records.read(HERE / "operating_point" / CELL)], PROFILES)
