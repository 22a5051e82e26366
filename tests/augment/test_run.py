"""Compares stages, gates and statistics with counts by hand."""

import math

import numpy as np
import pytest

from ssl_guard.augment import recipe, stats
from ssl_guard.augment.gates import Gate, Text
from ssl_guard.augment.ops import each
from ssl_guard.augment.run import Row, augment, make_rng

ROWS = [
    Row(f"row {i}", Text(f"prompt {i}", f"answer {i}" if i % 3 else None), kind)
    for i, kind in enumerate(["harmful", "safe", "unknown"] * 4)
]


def marks(name):
    return each(lambda text, rng: f"{text}>{name}{rng.integers(1000)}")


def fails_on(*parts):
    return each(lambda text, rng: None if any(part in text for part in parts) else f"{text}>f")


def run(ops, rewrites, gates=(), rows=ROWS, copies=2, seed=0):
    stages = recipe.parse(ops, rewrites)
    return augment(rows, stages, [rewrites] * 2, gates, copies=copies, seed=seed)


def long_texts(name, limit):
    """Returns a gate that accepts prompts of at most `limit` characters."""
    return Gate(
        name, lambda sources, views: np.array([float(len(v.prompt)) for v in views]), 0, limit
    )


def test_all_copies_of_every_row_in_order():
    views, counts = run(("m",), {"m": marks("m")}, copies=3)
    assert [(view.id, view.copy) for view in views] == [(r.id, c) for r in ROWS for c in range(3)]
    for view, row in zip(views[::3], ROWS, strict=True):
        assert view.op == "m" and view.text.prompt.startswith(f"{row.text.prompt}>m")
        assert (view.text.response is None) == (row.text.response is None)
    assert stats.total(counts, "accepted", "m") == 36
    assert "rejected" not in counts and "filled" not in counts


def test_a_view_does_not_depend_on_the_other_rows():
    """Views do not depend on chunk size or order, and so not on shards or workers."""
    recipe_of = (("f|m", "m|n"), {"f": fails_on("1"), "m": marks("m"), "n": marks("n")})
    gates = [long_texts("long", 13)]
    together, counts = run(*recipe_of, gates)
    alone = [run(*recipe_of, gates, rows=[row]) for row in ROWS]
    assert [view for views, _ in alone for view in views] == together
    backwards = [view for row in reversed(ROWS) for view in run(*recipe_of, gates, rows=[row])[0]]
    assert sorted(backwards) == sorted(together)
    merged = {}
    for _, part in alone:
        merged = stats.merge(merged, part)
    assert merged == counts


def test_fallbacks_in_order():
    rewrites = {"f": fails_on("prompt 1", "answer 2"), "g": fails_on("prompt 11"), "m": marks("m")}
    views, counts = run(("f", "g", "m"), rewrites, copies=1)
    ops = {view.id: view.op for view in views}
    # "prompt 1" is in rows 1, 10 and 11; "answer 2" in row 2.
    expected = {"row 1": "g", "row 2": "g", "row 10": "g", "row 11": "m"}
    assert ops == {row.id: expected.get(row.id, "f") for row in ROWS}
    assert views[2].text.prompt == "prompt 2>f", "a later stage begins with the original text"
    assert [stats.total(counts, "tried", stage) for stage in "fgm"] == [12, 4, 1]
    assert [stats.total(counts, "accepted", stage) for stage in "fgm"] == [8, 3, 1]
    assert counts["rejected"]["f"]["none"] == {"safe": 2, "unknown": 2}
    assert counts["rejected"]["g"]["none"] == {"unknown": 1}
    assert counts["examples"]["none"] == ["row 1", "row 2", "row 10", "row 11"]
    assert counts["rows_short"] == {"first": {"safe": 2, "unknown": 2}}


def test_a_stage_has_randomness_of_its_own():
    rewrites = {"f": each(lambda text, rng: None), "m": marks("m")}
    first, _ = run(("m",), rewrites)
    later, _ = run(("f", "m"), rewrites)
    assert sum(a.text == b.text for a, b in zip(first, later, strict=True)) < 3
    assert make_rng(0, "a", 0, 0).random() != make_rng(0, "a", 0, 0, 1).random()


def test_the_first_gate_that_rejects_counts():
    # Lengths of the views' prompts: 10 for rows 0 to 9, 11 for rows 10 and 11.
    rewrites = {"f": fails_on("answer 1")}  # rows 1, 10 and 11, the first two of which have one
    gates = [long_texts("a", 10), long_texts("b", 9)]
    views, counts = run(("f",), rewrites, gates, copies=1)
    gone = counts["rejected"]["f"]
    assert gone["none"] == {"safe": 2, "unknown": 1}
    assert gone.get("a") is None  # rows 10 and 11 went before
    assert sum(gone["b"].values()) == 9
    assert counts["filled"] == {"identity": {"harmful": 4, "safe": 4, "unknown": 4}}
    assert all(view.op == "identity" for view in views)
    assert all(view.text == row.text for view, row in zip(views, ROWS, strict=True))
    assert counts["examples"]["b"] == ["row 0", "row 2", "row 3", "row 4", "row 5"]
    assert "measured" not in counts, "only accepted views are measured"


def test_measures_are_those_of_accepted_views():
    _, counts = run(("f",), {"f": fails_on()}, [long_texts("long", 10)], copies=1)
    assert counts["measured"] == {"long": {"sum": 100.0, "count": 10}}
    assert counts["rejected"]["f"]["long"] == {"safe": 1, "unknown": 1}  # rows 10 and 11


def test_a_lost_view_is_the_next_one_of_its_row_or_the_text_itself():

    def first_copies_fail(texts, rngs):
        return [None if i % 3 != 2 else f"{text}>{i}" for i, text in enumerate(texts)]

    rows = [Row("a", Text("one", None), "safe"), Row("b", Text("two", None), "harmful")]
    views, counts = run(("f",), {"f": first_copies_fail}, rows=rows, copies=3)
    assert [(view.op, view.text.prompt) for view in views] == [
        ("repeated", "one>2"),
        ("repeated", "one>2"),
        ("f", "one>2"),
        ("repeated", "two>5"),
        ("repeated", "two>5"),
        ("f", "two>5"),
    ]
    assert counts["filled"] == {"repeated": {"safe": 2, "harmful": 2}}
    assert counts["rows_short"]["all"] == {"safe": 1, "harmful": 1}


def test_the_next_copy_stands_in_first():
    def first_fails(texts, rngs):
        return [None if i == 0 else f"{text}>{i}" for i, text in enumerate(texts)]

    views, _ = run(("f",), {"f": first_fails}, rows=[Row("a", Text("one", None), "safe")], copies=4)
    assert [view.text.prompt for view in views] == ["one>1", "one>1", "one>2", "one>3"]


@pytest.mark.parametrize("bad", [None, "", " \n", "half \ud800 a pair"])
def test_what_is_no_text_is_rejected_as_none(bad):
    views, counts = run(("x",), {"x": each(lambda text, rng: bad)}, copies=1)
    assert stats.total(counts, "rejected", "x", "none") == len(ROWS)
    assert {view.op for view in views} == {"identity"}


def test_an_empty_text_may_stay_empty():
    rows = [Row("a", Text("", "answer"), "safe")]
    views, _ = run(("x",), {"x": each(lambda text, rng: text)}, rows=rows, copies=1)
    assert (views[0].op, views[0].text) == ("x", Text("", "answer"))


def test_operations_of_both_parts_are_told():
    rewrites = {"m": marks("m"), "n": marks("n")}
    views, counts = run(("m|n",), rewrites, copies=20)
    ops = {view.op for view in views}
    assert ops == {"m", "n", "m, n", "n, m"}
    for view in views:
        names = view.op.split(", ")
        assert f">{names[0]}" in view.text.prompt
        assert view.text.response is None or f">{names[-1]}" in view.text.response
    assert stats.total(counts, "texts", "m|n") == 20 * (12 + 8)


def many(harmful, safe):
    kinds = ["harmful"] * harmful + ["safe"] * safe
    return [Row(f"r{i}", Text(f"{kind} {i}", None), kind) for i, kind in enumerate(kinds)]


def test_a_model_that_refuses_one_class_raises_the_warning():
    _, counts = run(("f",), {"f": fails_on("harmful 1")}, rows=many(100, 100))
    (line,) = stats.warnings(counts)  # r1, r10 to r19
    assert line.startswith("warning: 11% of the harmful and 0% of the safe rows have a view that")
    assert "(11 of 100, 0 of 100)" in line
    assert line in stats.table(counts)
    _, counts = run(("f", "m"), {"f": fails_on("harmful 1"), "m": marks("m")}, rows=many(100, 100))
    (line,) = stats.warnings(counts)
    assert "lost a view of the first stage" in line


@pytest.mark.parametrize(
    "part, rows",
    [
        ("1", many(100, 100)),  # in 19 of the one and 100 of the other
        ("7", many(100, 100)),  # in 19 of both
        ("7", many(1000, 0)),  # nothing to compare with
        ("harmful 1", many(10, 10)),  # 1 of 10: not more than chance
        ("harmful 1", many(20, 400)),  # 11 of 20
    ],
)
def test_a_difference_must_be_large_and_more_than_chance(part, rows):
    _, counts = run(("f",), {"f": fails_on(part)}, rows=rows, copies=1)
    lost = [sum(part in r.text.prompt for r in rows if r.kind == k) for k in ("harmful", "safe")]
    assert [stats.total(counts, "rows_short", "all", k) for k in ("harmful", "safe")] == lost
    there = [sum(r.kind == k for r in rows) for k in ("harmful", "safe")]
    large = 0 not in there and abs(lost[0] / there[0] - lost[1] / there[1]) >= 0.05
    chance = 0 in there or p_value(lost, there) >= 0.01
    assert len(stats.warnings(counts)) == int(large and not chance)


def p_value(lost, there):
    """Computes Fisher's exact test from the hypergeometric distribution."""
    total, gone = sum(there), sum(lost)
    ways = [math.comb(there[0], k) * math.comb(there[1], gone - k) for k in range(gone + 1)]
    return sum(w for w in ways if w <= ways[lost[0]]) / math.comb(total, gone)


def test_the_table_counts_every_view_once():
    rewrites = {"f": fails_on("prompt 1"), "m": fails_on("prompt 11")}
    _, counts = run(("f", "m"), rewrites, [long_texts("long", 10)])
    text = stats.table(counts)
    lines = [line.split("|")[1:-1] for line in text.splitlines() if "|" in line]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert ["f", "24", "18", "6", "0"] in cells  # rows 1, 10, 11 twice
    assert ["m", "6", "2", "2", "2"] in cells  # row 11: none; row 10: too long; row 1 passes
    by_class = {row[0]: row[1:] for row in cells if row[0] in stats.CLASSES}
    assert by_class["harmful"] == ["4", "8", "8 (100.0%)", "0 (0.0%)", "0 (0.0%)", "0 (0.0%)"]
    assert by_class["safe"] == ["4", "8", "4 (50.0%)", "2 (25.0%)", "0 (0.0%)", "2 (25.0%)"]
    assert "prompt" not in text and "row 11" in text
