"""Applies the stages of a recipe and the gates to rows.

Every stage makes the views that no earlier stage made. A view that no stage made is replaced by
another view of its row, or by the unchanged text; both are counted, see stats.py.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssl_guard.augment import recipe, stats
from ssl_guard.augment.gates import Gate, Text
from ssl_guard.augment.ops import Rewrite

PROMPT, RESPONSE = range(2)  # parts of a row
REPEATED, IDENTITY = "repeated", "identity"  # View.op of replaced views


class Row(NamedTuple):
    """A row of the pool. kind: its class for the statistics, of stats.CLASSES."""

    id: str
    text: Text
    kind: str


class View(NamedTuple):
    """View number `copy` of a row.

    op: operations that made the prompt, and after a comma those of the response if they differ.
    """

    id: str
    copy: int
    op: str
    text: Text


def augment(
    rows: Sequence[Row],
    stages: Sequence[recipe.Stage],
    rewrites: Sequence[dict[str, Rewrite]],
    gates: Sequence[Gate],
    *,
    copies: int,
    seed: int,
) -> tuple[list[View], dict]:
    """Returns (views, statistics), with `copies` consecutive views of every row in order.

    rewrites: operations by name, of prompts and of responses. Prompt and response are rewritten
    separately and judged together. A view depends only on seed, copy, and the row's id and text.
    """
    counts: dict = {}
    slots = [(row, copy) for row in rows for copy in range(copies)]
    made: dict[int, View] = {}

    def count_short(short: str) -> None:
        kinds = {row.id: row.kind for i, (row, _) in enumerate(slots) if i not in made}
        for kind in kinds.values():
            stats.add(counts, "rows_short", short, kind)

    for number, stage in enumerate(stages):
        missing = {i: slot for i, slot in enumerate(slots) if i not in made}
        if not missing:
            break
        made |= _attempt(missing, number, stage, rewrites, gates, seed, counts)
        if number == 0:
            count_short("first")
    count_short("all")
    for row in rows:
        stats.add(counts, "rows", row.kind)
    views = []
    for i, (row, copy) in enumerate(slots):
        if (view := made.get(i)) is None:
            others = [i - copy + (copy + step) % copies for step in range(1, copies)]
            other = next((made[j] for j in others if j in made), None)
            op, text = (IDENTITY, row.text) if other is None else (REPEATED, other.text)
            stats.add(counts, "filled", op, row.kind)
            view = View(row.id, copy, op, text)
        views.append(view)
    return views, counts


def _attempt(
    slots: dict[int, tuple[Row, int]],
    number: int,
    stage: recipe.Stage,
    rewrites: Sequence[dict[str, Rewrite]],
    gates: Sequence[Gate],
    seed: int,
    counts: dict,
) -> dict[int, View]:
    """Applies one stage. Returns the views that the operations made and no gate rejected."""
    pieces: dict[int, list] = {i: [None, None] for i in slots}
    ops: dict[int, list[str]] = {i: [] for i in slots}
    unusable: set[int] = set()
    for part in (PROMPT, RESPONSE):
        mine = {i: text for i, (row, _) in slots.items() if (text := row.text[part]) is not None}
        rngs = [make_rng(seed, slots[i][0].id, slots[i][1], part, number) for i in mine]
        made, chains = recipe.apply(stage, rewrites[part], list(mine.values()), rngs)
        for (i, source), text, chain in zip(mine.items(), made, chains, strict=True):
            pieces[i][part] = text
            ops[i].append(chain)
            if not _is_usable(text, source):
                unusable.add(i)
    rejected = {i: "none" for i in slots if i in unusable}
    left = {
        i: View(row.id, copy, ", ".join(dict.fromkeys(ops[i])), Text(*pieces[i]))
        for i, (row, copy) in slots.items()
        if i not in unusable
    }
    measured = {}
    for gate in gates:
        if not left:
            break
        sources = [slots[i][0].text for i in left]
        values = gate.measure(sources, [view.text for view in left.values()])
        measured[gate.name] = dict(zip(left, values, strict=True))
        for i, value in measured[gate.name].items():
            if not gate.low <= value <= gate.high:
                rejected[i] = gate.name
                del left[i]
    for row, _ in slots.values():
        stats.add(counts, "tried", stage.text, row.kind)
    for i, name in rejected.items():
        stats.add(counts, "rejected", stage.text, name, slots[i][0].kind)
        stats.example(counts, name, slots[i][0].id)
    for i in left:
        stats.add(counts, "accepted", stage.text, slots[i][0].kind)
        for chain in ops[i]:
            stats.add(counts, "texts", stage.text, chain)
        for name, of_gate in measured.items():
            stats.add(counts, "measured", name, "sum", by=float(of_gate[i]))
            stats.add(counts, "measured", name, "count")
    return left


def _is_usable(text: str | None, source: str) -> bool:
    """Returns False for None, a blank text of a source that is not blank, and invalid Unicode."""
    if text is None or (not text.strip() and source.strip()):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def make_rng(seed: int, row_id: str, copy: int, part: int, stage: int = 0) -> np.random.Generator:
    """Returns the generator of one text. part: PROMPT or RESPONSE. stage: its index."""
    digest = hashlib.sha256(row_id.encode()).digest()
    entropy = [seed, copy, part, *np.frombuffer(digest, "<u4")]
    return np.random.default_rng([*entropy, stage] if stage else entropy)
