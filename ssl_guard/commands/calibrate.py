"""Fits the thresholds of a finished run, with guarantees, and writes RUN/policy.json.

    python -m ssl_guard calibrate --workdir=runs/uda --target_fpr=0.01
    python -m ssl_guard calibrate --workdir=runs/uda --prevalence=0.01 my.jsonl

The rows are the run's calibration rows (config.data.calibration), or those of a file of labelled
rows that the run has not seen. See ssl_guard/evaluation/policy.py.
"""

from pathlib import Path

from absl import flags

from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli

CALIBRATORS = ("temperature", "platt", "isotonic", "none")  # from scores to probabilities


def table(policy: dict) -> str:
    """Formats the profiles, the band for review, and the rows that they were fitted on."""
    from tabulate import tabulate

    from ssl_guard.report import tables

    titles, rows = tables.policy_table({"": policy})
    rows = [row[1:] for row in rows]
    shown = tabulate(rows, titles[1:], tablefmt="github", disable_numparse=True)
    return "\n".join([shown, "", *tables.policy_lines(policy)])


def main(argv: list[str]) -> None:
    workdir = cli.required(WORKDIR, "workdir")
    if len(argv) > 2:
        raise BadInput("usage: python -m ssl_guard calibrate --workdir=RUN [ROWS.jsonl].")
    costs = (COST_FALSE_POSITIVE.value, COST_FALSE_NEGATIVE.value)
    if (costs[0] is None) != (costs[1] is None):
        raise BadInput("give both --cost_false_positive and --cost_false_negative, or neither.")
    from ssl_guard.evaluation.policy import make_policy

    policy = make_policy(
        workdir,
        argv[1] if len(argv) == 2 else None,
        calibrator=CALIBRATOR.value,
        target_fpr=TARGET_FPR.value,
        target_recall=TARGET_RECALL.value,
        confidence=CONFIDENCE.value,
        prevalence=PREVALENCE.value,
        costs=None if costs[0] is None else costs,
    )
    print(table(policy))
    print(f"policy: {Path(workdir, 'policy.json')}")


if __name__ == "__main__":
    WORKDIR = flags.DEFINE_string("workdir", None, "A finished run.")
    TARGET_FPR = flags.DEFINE_float("target_fpr", 0.01, "Largest FPR of `permissive`.")
    TARGET_RECALL = flags.DEFINE_float("target_recall", 0.9, "Least recall of `strict`.")
    CONFIDENCE = flags.DEFINE_float("confidence", 0.95, "Confidence of each guarantee.")
    PREVALENCE = flags.DEFINE_float(
        "prevalence", None, "Harmful share of traffic; that of the calibration rows if not given."
    )
    CALIBRATOR = flags.DEFINE_enum(
        "calibrator", "temperature", CALIBRATORS, "From scores to probabilities."
    )
    COST_FALSE_POSITIVE = flags.DEFINE_float(
        "cost_false_positive", None, "With the other cost: `balanced` is the cheapest threshold."
    )
    COST_FALSE_NEGATIVE = flags.DEFINE_float(
        "cost_false_negative", None, "Given with the other cost."
    )
    cli.run(main, words="[ROWS.jsonl]")
