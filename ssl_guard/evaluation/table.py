"""Formats numbers with intervals, and the table of evaluations."""

from collections.abc import Sequence

from tabulate import tabulate

SHOWN = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "fpr": "FPR",
    "auprc": "AUPRC",
    "recall_at_1_fpr": "recall at 1% FPR",
    "ece": "ECE",
}


def cell(score: dict | None, sign: str = "") -> str:
    """Formats a number in percent with its interval, or its spread over seeds; a dash for None."""
    if score is None:
        return "-"
    value = "-" if score["value"] is None else f"{100 * score['value']:{sign}.1f}"
    if "spread" in score:
        return f"{value} ± {100 * score['spread']:.1f}"
    return f"{value} [{100 * score['low']:{sign}.1f}, {100 * score['high']:{sign}.1f}]"


def table(found: Sequence[dict]) -> str:
    """Formats evaluations as a GitHub Markdown table of the main metrics in percent."""
    rows = []
    for evaluation in found:
        cohort = evaluation["cohort"]
        scores = evaluation["scores"][cohort["weights"]]
        kind = "" if evaluation["kind"] != "over_refusal" else " (over-refusal)"
        row = [evaluation["scorer"]["name"], cohort["corpus"] + kind]
        row += [cohort["threshold_policy"].partition(",")[0]]
        row += [cohort["rows"], cohort["harmful"]]
        row += [cell(scores.get(name)) for name in SHOWN]
        rows.append([*row, evaluation["times_read"]])
    titles = ["scorer", "corpus, % [95% interval]", "threshold", "rows", "harmful", *SHOWN.values()]
    titles += ["times read"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def notes(found: Sequence[dict]) -> list[str]:
    """Lists rows that were left out or failed, sets that were read before, and drops of recall."""
    lines = []
    for evaluation in found:
        scorer, seen = evaluation["scorer"]["name"], evaluation["contamination"]
        name = f"{scorer}, {evaluation['cohort']['corpus']}"
        if seen and (count := seen["exact"] + seen["near_duplicates"]):
            done = "left out" if seen["removed"] else "KEPT"
            lines.append(
                f"{name}: {count} rows are near-duplicates of rows that the run has seen, "
                f"{seen['exact']} of them equal: {done}"
            )
        if missing := evaluation["missing"]:
            lines.append(f"{name}: {len(missing)} rows failed: not comparable with other scorers")
        if evaluation["times_read"] > 1 and not name.endswith(".dev"):
            lines.append(
                f"{name}: scored {evaluation['times_read']} times by this run; if an earlier score "
                "guided a choice, this one is not an unbiased test score"
            )
        for op, drop in evaluation["robustness"].items():
            if drop["rows"]:
                points = cell(drop | {"value": drop["drop"]})
                lines.append(f"{name}: recall drops by {points} points under {op}")
    return lines
