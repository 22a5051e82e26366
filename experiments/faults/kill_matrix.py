"""The table of the kill matrix, from the record of its trials.

    make faults                                          # runs what is missing of 200 trials
    python experiments/faults/kill_matrix.py --table     # the table alone

The trials are made by tests/faults/kill_matrix.py, which says what one is.
"""

import json
import sys
from collections import Counter
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


def table() -> str:
    """Kills, terminations and trials by the phase that they came in, as GitHub Markdown."""
    trials = [json.loads(line) for line in RECORD.read_text().splitlines()]
    rows = []
    for phase in PHASES:
        through = [trial for trial in trials if phase in struck(trial)]
        rows.append(
            [
                phase,
                sum(Counter(trial["killed in"])[phase] for trial in trials),
                sum(Counter(trial["terminated in"])[phase] for trial in trials),
                len(through),
                sum(not trial["different"] for trial in through),
            ]
        )
    rows.append(
        [
            "all",
            sum(len(trial["killed in"]) for trial in trials),
            sum(len(trial["terminated in"]) for trial in trials),
            len(trials),
            sum(not trial["different"] for trial in trials),
        ]
    )
    titles = ["phase", "SIGKILL", "SIGTERM", "trials", "of these bit-equal"]
    compared = sum(trial["bytes compared"] for trial in trials)
    return (
        tabulate(rows, titles, tablefmt="github")
        + f"\n\n{compared / 1e6:.0f} MB compared, in trials of "
        + f"{min(t['seconds'] for t in trials):.0f} to {max(t['seconds'] for t in trials):.0f} s."
    )


def struck(trial: dict) -> list[str]:
    """The phases that a trial was killed or terminated in."""
    return trial["killed in"] + trial["terminated in"]


if __name__ == "__main__":
    if sys.argv[1:] != ["--table"]:
        sys.exit(__doc__)
    print(table())
