"""Tables over seeds from hand-made runs."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from ssl_guard import report
from ssl_guard.errors import BadInput

LABELS = np.random.default_rng(0).integers(0, 2, 60)


def run(method, seed, noise):
    """A run whose scores are the labels under noise; the threshold is 0.4."""
    rng = np.random.default_rng([seed, int(noise * 100)])
    scores = LABELS + rng.normal(0, noise, len(LABELS))
    f1 = f1_score(LABELS, scores >= 0.4)
    value = {"value": f1, "low": f1, "high": f1}
    return {
        "workdir": f"runs/{method}-{seed}",
        "report": {
            "algorithm": method,
            "seed": seed,
            "weights": "raw",
            "dev": {"raw": {"threshold": 0.4}},
            "test": {"raw": dict.fromkeys(report.SHOWN, value)},
        },
        "metrics": [{"step": 1, "alarm/shadow_precision": float(seed == 1)}, {"step": 2}]
        if method == "ours"
        else [{"step": 1}],
        "predictions": [
            {"id": str(i), "group": i, "label": int(label), "raw": score}
            for i, (label, score) in enumerate(zip(LABELS, scores, strict=True))
        ],
    }


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_seeds_table_means_spreads_and_gains():
    runs = {
        name: [run(name, s, noise) for s in (0, 1, 2)]
        for name, noise in (("twin", 0.6), ("ours", 0.3))
    }
    title, _, *rows = report.seeds_table(runs, twin="twin").splitlines()
    assert cells(title)[-3:] == ["F1 gain [95%]", "better", "shadow alarm"]
    rows = {cells(row)[0]: cells(row) for row in rows}
    assert list(rows) == ["ours", "twin"]  # best F1 first
    f1 = {
        name: np.array([r["report"]["test"]["raw"]["f1"]["value"] for r in part])
        for name, part in runs.items()
    }
    for name, values in f1.items():
        assert rows[name][1] == "3"
        expected = f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1):.1f}"
        assert rows[name][2] == expected
    gain = f1["ours"] - f1["twin"]
    value, low, high = rows["ours"][-3].replace("[", "").replace("]", "").replace(",", "").split()
    assert value == f"{100 * gain.mean():+.1f}"
    assert float(low) < float(value) < float(high)
    assert rows["ours"][-2:] == [f"{(gain > 0).sum()} of 3", "1 of 3"]
    assert rows["twin"][-3:] == ["-", "-", "-"]


def test_a_gain_needs_the_twin_of_every_seed():
    runs = {"twin": [run("twin", 0, 0.6)], "ours": [run("ours", s, 0.3) for s in (0, 1)]}
    ours = next(r for r in report.seeds_table(runs, twin="twin").splitlines() if "ours" in r)
    assert cells(ours)[-3:] == ["-", "-", "1 of 2"]


def test_the_gain_of_a_method_on_itself_is_zero():
    runs = {"twin": [run("twin", 0, 0.6)], "ours": [run("twin", 0, 0.6)]}
    ours = next(r for r in report.seeds_table(runs, twin="twin").splitlines() if "ours" in r)
    assert cells(ours)[-3] == "+0.0 [+0.0, +0.0]"


def test_a_table_refuses_other_test_rows():
    runs = {"twin": [run("twin", 0, 0.6)], "ours": [run("ours", 0, 0.3)]}
    runs["ours"][0]["predictions"].pop()
    with pytest.raises(BadInput, match="same test rows"):
        report.seeds_table(runs, twin="twin")


def test_warnings_name_alarms_brake_and_ids():
    found = {
        "alarms": {"one_class": {"first_step": 10, "steps": 30, "at_the_end": True}},
        "braked_steps": 20,
        "suspect_labels": [{"id": f"row{i}", "label": 1, "mean_margin": -1.0} for i in range(7)],
    }
    assert report.warnings(found) == [
        "alarm one_class: from step 10, 30 steps in all, up at the end",
        "brake: the unlabelled loss was off for 20 steps",
        "labels to check: row0, row1, row2, row3, row4 ...",
    ]
    assert report.warnings({}) == []
