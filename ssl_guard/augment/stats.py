"""Acceptance statistics of an augmentation set, with a warning if the classes differ.

The statistics are a JSON object whose leaves are counts, sums, or lists of ids, so two parts of a
set add up leaf by leaf:

    rows {class}                       rows of the pool
    tried, accepted {stage: {class}}   views requested from a stage, and those that passed the gates
    rejected {stage: {gate: {class}}}  by the first gate that rejects; "none": no view was made
    texts {stage: {operations}}        prompts and responses in accepted views, by operations
    filled {how: {class}}              views that no stage made: "repeated", another view of the
                                       row, or "identity", the unchanged text
    rows_short {first: ..., all: {class}}  rows that lost a view in the first, or in every stage
    measured {gate: {"sum", "count"}}  of the gate's measure over accepted views
    examples {gate: ids}               first ids of rows with a rejected view

class is "harmful" or "safe" by the row's label if it is known (only these statistics use it), else
by the prediction of a frozen classifier, else "unknown".
"""

from scipy.stats import fisher_exact
from tabulate import tabulate

EXAMPLES = 5  # ids kept for each gate
CLASSES = ("harmful", "safe", "unknown")

# A difference between the classes is reported if it is both significant and large.
P_VALUE, DIFFERENCE = 0.01, 0.05


def add(account: dict, *path: str, by: float = 1) -> None:
    """Adds `by` to the number at this path."""
    *nodes, leaf = path
    for name in nodes:
        account = account.setdefault(name, {})
    account[leaf] = account.get(leaf, 0) + by


def example(account: dict, gate: str, row_id: str) -> None:
    """Keeps the id of a row whose view the gate rejected, up to EXAMPLES."""
    ids = account.setdefault("examples", {}).setdefault(gate, [])
    if len(ids) < EXAMPLES and row_id not in ids:
        ids.append(row_id)


def merge(a: dict, b: dict) -> dict:
    """Returns the statistics of two parts, a before b."""
    merged = dict(a)
    for key, value in b.items():
        if key not in a:
            merged[key] = value
        elif isinstance(value, dict):
            merged[key] = merge(a[key], value)
        elif isinstance(value, list):
            merged[key] = (a[key] + value)[:EXAMPLES]
        else:
            merged[key] = a[key] + value
    return merged


def total(account: dict, *path: str) -> int:
    """Returns the sum of all counts under a path, 0 if there are none."""
    node = account
    for name in path:
        node = node.get(name, {})
    if not isinstance(node, dict):
        return node
    return sum(total(node, name) for name in node)


def warnings(account: dict) -> list[str]:
    """Returns a sentence for each kind of loss that affects one class clearly more than the other.

    Compares shares of rows, since views of a row are not independent: Fisher's exact test, and the
    size of the difference.
    """
    found = []
    for short, what in (
        ("first", "lost a view of the first stage"),
        ("all", "have a view that no stage made"),
    ):
        rows = [total(account, "rows", name) for name in ("harmful", "safe")]
        lost = [total(account, "rows_short", short, name) for name in ("harmful", "safe")]
        found_short = account.get("rows_short", {})
        if 0 in rows or (short == "first" and found_short.get("first") == found_short.get("all")):
            continue
        shares = [a / b for a, b in zip(lost, rows, strict=True)]
        kept = [a - b for a, b in zip(rows, lost, strict=True)]
        if abs(shares[0] - shares[1]) < DIFFERENCE or fisher_exact([lost, kept]).pvalue >= P_VALUE:
            continue
        found.append(
            f"warning: {shares[0]:.0%} of the harmful and {shares[1]:.0%} of the safe rows {what} "
            f"({lost[0]} of {rows[0]}, {lost[1]} of {rows[1]}): the set treats the classes "
            "differently, which biases training."
        )
    return found


def table(account: dict) -> str:
    """Formats the statistics: stages and gates, operations, classes, means, examples, warnings."""
    stages = list(account.get("tried", {}))
    gates = list(dict.fromkeys(g for s in account.get("rejected", {}).values() for g in s))
    rows = [
        [stage, total(account, "tried", stage), total(account, "accepted", stage)]
        + [total(account, "rejected", stage, gate) for gate in gates]
        for stage in stages
    ]
    parts = [tabulate(rows, ["stage", "tried", "accepted", *gates], tablefmt="github")]
    if any("|" in stage for stage in stages):
        texts = [[s, op, n] for s in stages for op, n in account["texts"].get(s, {}).items()]
        parts.append(tabulate(texts, ["stage", "made by", "texts"], tablefmt="github"))
    rows = []
    for name in CLASSES:
        if not total(account, "rows", name):
            continue
        views = total(account, "tried", stages[0], name)
        counts = [total(account, "accepted", stage, name) for stage in stages]
        counts = [counts[0], sum(counts[1:])]
        counts += [total(account, "filled", how, name) for how in ("repeated", "identity")]
        rows.append(
            [name, total(account, "rows", name), views]
            + [f"{count} ({count / views:.1%})" for count in counts]
        )
    titles = ["class", "rows", "views", "first stage", "later stages", "repeated", "identity"]
    parts.append(tabulate(rows, titles, tablefmt="github"))
    lines = [
        f"mean {gate} of accepted views: {value['sum'] / value['count']:.3f}"
        for gate, value in account.get("measured", {}).items()
    ]
    lines += [
        f"rejected by {gate}, for example: {', '.join(ids)}"
        for gate, ids in account.get("examples", {}).items()
    ]
    lines += warnings(account)
    return "\n\n".join([*parts, "\n".join(lines)]).rstrip()
