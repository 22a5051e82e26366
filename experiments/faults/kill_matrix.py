"""Prints the table of the kill matrix from the record of its trials.

    make faults                                          # runs the missing ones of 200 trials
    python experiments/faults/kill_matrix.py --table     # prints the table

tests/faults/kill_matrix.py runs the trials and defines them.
"""

import json
import sys
from pathlib import Path

from tabulate import tabulate

RECORD = Path(__file__).with_name("trials.jsonl")
PHASES = (  # in the order of a run
    "start",
    "preparation",
    "augmentation",
    "first compile",
    "restore",
    "step",
    "evaluation",
    "save",
    "report",
)
SIGNALS = ("killed in", "terminated in")


def table() -> str:
    """Counts kills, terminations and trials by phase, as GitHub Markdown."""
    trials = [json.loads(line) for line in RECORD.read_text().splitlines()]
    rows = []
    for phase in PHASES:
        hit = [trial for trial in trials if any(phase in trial[key] for key in SIGNALS)]
        counts = (sum(trial[key].count(phase) for trial in trials) for key in SIGNALS)
        rows.append([phase, *counts, len(hit), sum(not trial["different"] for trial in hit)])
    counts = (sum(len(trial[key]) for trial in trials) for key in SIGNALS)
    rows.append(["all", *counts, len(trials), sum(not trial["different"] for trial in trials)])
    titles = ["phase", "SIGKILL", "SIGTERM", "trials", "of these bit-equal"]
    compared = sum(trial["bytes compared"] for trial in trials)
    return (
        tabulate(rows, titles, tablefmt="github")
        + f"\n\n{compared / 1e6:.0f} MB compared, in trials of "
        + f"{min(t['seconds'] for t in trials):.0f} to {max(t['seconds'] for t in trials):.0f} s."
    )


if __name__ == "__main__":
    if sys.argv[1:] != ["--table"]:
        sys.exit(__doc__)
    print(table())
