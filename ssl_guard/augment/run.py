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
    for number, stage in enumerate(stages):
        missing = [i for i in range(len(slots)) if i not in made]
        if not missing:
            break
        asked = [slots[i] for i in missing]
        views = _attempt(asked, number, stage, rewrites, gates, seed, counts)
        made |= {i: view for i, view in zip(missing, views, strict=True) if view is not None}
        if number == 0:
            _count_rows(counts, "first", asked, views)
    views = [made.get(i) for i in range(len(slots))]
    _count_rows(counts, "all", slots, views)
    for row in rows:
        stats.add(counts, "rows", row.kind)
    return [_filled(slots, views, i, copies, counts) for i in range(len(slots))], counts


def _attempt(
    slots: Sequence[tuple[Row, int]],
    number: int,
    stage: recipe.Stage,
    rewrites: Sequence[dict[str, Rewrite]],
    gates: Sequence[Gate],
    seed: int,
    counts: dict,
) -> list[View | None]:
    """Applies one stage. A view is None if the operation made none or a gate rejected it."""
    pieces: list[list] = [[None, None] for _ in slots]
    ops: list[list[str]] = [[] for _ in slots]
    usable = [True] * len(slots)
    for part in (PROMPT, RESPONSE):
        mine = {i: text for i, (row, _) in enumerate(slots) if (text := row.text[part]) is not None}
        rngs = [make_rng(seed, slots[i][0].id, slots[i][1], part, number) for i in mine]
        made, chains = recipe.apply(stage, rewrites[part], list(mine.values()), rngs)
        for (i, source), text, chain in zip(mine.items(), made, chains, strict=True):
            pieces[i][part] = text
            ops[i].append(chain)
            usable[i] &= _is_usable(text, source)
    left = {
        i: View(row.id, copy, ", ".join(dict.fromkeys(ops[i])), Text(*pieces[i]))
        for i, (row, copy) in enumerate(slots)
        if usable[i]
    }
    rejected = {i: "none" for i in range(len(slots)) if i not in left}
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
    for row, _ in slots:
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
    return [left.get(i) for i in range(len(slots))]


def _is_usable(text: str | None, source: str) -> bool:
    """Returns False for None, a blank text of a source that is not blank, and invalid Unicode."""
    if text is None or (not text.strip() and source.strip()):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _count_rows(
    counts: dict, short: str, slots: Sequence[tuple[Row, int]], views: Sequence[View | None]
) -> None:
    kinds = {row.id: row.kind for (row, _), view in zip(slots, views, strict=True) if view is None}
    for kind in kinds.values():
        stats.add(counts, "rows_short", short, kind)


def _filled(
    slots: Sequence[tuple[Row, int]],
    views: Sequence[View | None],
    i: int,
    copies: int,
    counts: dict,
) -> View:
    """Returns the view of a slot, or its replacement: the next view of the row, or the text."""
    if (view := views[i]) is not None:
        return view
    row, copy = slots[i]
    others = (views[i - copy + (copy + step) % copies] for step in range(1, copies))
    other = next((view for view in others if view is not None), None)
    op, text = (IDENTITY, row.text) if other is None else (REPEATED, other.text)
    stats.add(counts, "filled", op, row.kind)
    return View(row.id, copy, op, text)


def make_rng(seed: int, row_id: str, copy: int, part: int, stage: int = 0) -> np.random.Generator:
    """Returns the generator of one text. part: PROMPT or RESPONSE. stage: its index."""
    digest = hashlib.sha256(row_id.encode()).digest()
    entropy = [seed, copy, part, *np.frombuffer(digest, "<u4")]
    return np.random.default_rng([*entropy, stage] if stage else entropy)
