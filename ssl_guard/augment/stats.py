"""What became of the views of a set: counts by stage, operation, gate and class, and a warning.

An account is a JSON object whose leaves are counts, sums, or lists of ids, so the accounts of two
parts add up leaf by leaf:

    rows {class}                       rows of the pool
    tried, accepted {stage: {class}}   views that a stage was asked for, and that passed the gates
    rejected {stage: {gate: {class}}}  by the first gate that did; "none": the operation had no view
    texts {stage: {operations}}        prompts and responses in accepted views, by what made them
    filled {how: {class}}              views that no stage could make: "repeated", another view of
                                       the row again, or "identity", the text as it is
    rows_short {first: ..., all: {class}}  rows that lost a view of the first, or of every stage
    measured {gate: {"sum", "count"}}  of the gate's measure over accepted views
    examples {gate: ids}               of rows that it rejected a view of, the first few

class is "harmful" or "safe" where the row's label is known, which nothing but this account looks
at, the class that a frozen classifier gives the row, or "unknown".
"""

from scipy.stats import fisher_exact
from tabulate import tabulate

EXAMPLES = 5  # ids kept for each gate
CLASSES = ("harmful", "safe", "unknown")

# A difference between the classes is reported if it is both: more than chance, and large.
P_VALUE, DIFFERENCE = 0.01, 0.05


def add(account: dict, *path: str, by: float = 1) -> None:
    """Adds to the number at this path."""
    *nodes, leaf = path
    for name in nodes:
        account = account.setdefault(name, {})
    account[leaf] = account.get(leaf, 0) + by


def example(account: dict, gate: str, row_id: str) -> None:
    """Notes a row that the gate rejected a view of, unless there are enough."""
    ids = account.setdefault("examples", {}).setdefault(gate, [])
    if len(ids) < EXAMPLES and row_id not in ids:
        ids.append(row_id)


def merge(a: dict, b: dict) -> dict:
    """The account of two parts, a before b."""
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
    """Sum of all counts under a path; 0 where there is nothing."""
    node = account
    for name in path:
        node = node.get(name, {})
    if not isinstance(node, dict):
        return node
    return sum(total(node, name) for name in node)


def warnings(account: dict) -> list[str]:
    """A sentence for each way in which one class lost clearly more rows than the other.

    Rows are compared, not views: views of a row are not independent. By Fisher's exact test of rows
    that were short of a view, and the difference of the two shares.
    """
    found = []
    for short, what in (
        ("first", "lost a view of the first stage"),
        ("all", "have a view that no stage could make"),
    ):
        rows = [total(account, "rows", name) for name in ("harmful", "safe")]
        lost = [total(account, "rows_short", short, name) for name in ("harmful", "safe")]
        alike = account.get("rows_short", {})
        if 0 in rows or (short == "first" and alike.get("first") == alike.get("all")):
            continue
        shares = [a / b for a, b in zip(lost, rows, strict=True)]
        kept = [a - b for a, b in zip(rows, lost, strict=True)]
        if abs(shares[0] - shares[1]) < DIFFERENCE or fisher_exact([lost, kept]).pvalue >= P_VALUE:
            continue
        found.append(
            f"warning: {shares[0]:.0%} of the harmful and {shares[1]:.0%} of the safe rows {what} "
            f"({lost[0]} of {rows[0]}, {lost[1]} of {rows[1]}): the set is not made alike for both "
            "classes, which biases what is learned from it."
        )
    return found


def table(account: dict) -> str:
    """The account as text: stages and gates, operations, classes, means, examples, warnings."""
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
