"""Tables over runs and seeds against hand computation, and the four files of a report."""

import csv
import html.parser
import io
import json
import re
import types
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_curve

from ssl_guard.commands import report as report_command
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import calibrators, metrics, operating_point
from ssl_guard.evaluation.records_io import write_evaluation
from ssl_guard.report import (
    build,
    comparison,
    conclusions,
    plots,
    results,
    tables,
    writers,
)
from ssl_guard.runtime.files import write_json

LABELS = np.random.default_rng(0).integers(0, 2, 60)
HOSTILE = "a&b_<script>alert('x')</script>|$1 \\ {%} # ^~\n![x](http://evil.example/)"


def run(method, seed, noise, labels=200):
    """A run whose scores are the labels under noise; the threshold is 0.4."""
    rng = np.random.default_rng([seed, int(noise * 100)])
    scores = LABELS + rng.normal(0, noise, len(LABELS))
    f1 = f1_score(LABELS, scores >= 0.4)
    value = {"value": f1, "low": f1, "high": f1}
    pseudo = {"pseudo/mask_rate": 0.4, "pseudo/accuracy": 0.8, "pseudo/margins_1": [0.1] * 10}
    rows = [
        {"step": s, "loss/supervised": 1 / s, "dev/raw/f1": f1 - 0.01 * noise / s} for s in (1, 2)
    ]
    if method == "ours":
        rows = [row | pseudo for row in rows]
        rows[0]["alarm/shadow_precision"] = float(seed == 1)
    return {
        "workdir": Path(f"runs/{method}-{seed}"),
        "report": {
            "algorithm": method,
            "seed": seed,
            "weights": "raw",
            "selected_step": 2,
            "dev": {"raw": {"threshold": 0.4}},
            "test": {"raw": dict.fromkeys((*tables.SHOWN, "recall", "precision"), value)},
            "data": {
                "corpus": "made",
                "task": "prompt_harm",
                "split": f"made.{seed}@{labels}",
                "rows": {"labelled": labels},
            },
            "provenance": {"corpus_sha256": "c" * 64, "split_sha256": f"{seed}{labels}"},
            "training": {"seconds": 60.0},
            "observatory": {"suspect_labels": [{"id": HOSTILE}]} if method == "ours" else {},
        },
        "metrics": rows,
        "policy": None,
        "predictions": [
            {"id": str(i), "group": i // 2, "label": int(label), "raw": score}
            for i, (label, score) in enumerate(zip(LABELS, scores, strict=True))
        ],
    }


def own_tests(runs):
    return [results.own_test(each) for each in runs]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_warnings_name_alarms_brake_and_ids():
    found = {
        "alarms": {"one_class": {"first_step": 10, "steps": 30, "at_the_end": True}},
        "braked_steps": 20,
        "suspect_labels": [{"id": f"row{i}", "label": 1, "mean_margin": -1.0} for i in range(7)],
    }
    assert conclusions.alarms(found) == [
        "alarm one_class: from step 10, 30 steps in all, active at the end",
        "the unlabelled loss was off for 20 steps",
        "labels to check: row0, row1, row2, row3, row4 ...",
    ]
    assert conclusions.alarms({}) == []


# Numbers.


def test_the_gain_of_a_table_is_that_of_one_resample_after_the_other(monkeypatch):
    monkeypatch.setattr(comparison, "RESAMPLES", 100)
    runs = [run("ours", s, 0.3) for s in (0, 1)] + [run("twin", s, 0.6) for s in (0, 1)]
    found = own_tests(runs)
    gains = comparison.summarise(found, "twin")[0]["gains"]
    groups = np.array([row["group"] for row in runs[0]["predictions"]])

    def gains_of(rows):
        values = []
        for result in found:
            scores = result.probabilities[order][rows]
            fpr, tpr, _ = roc_curve(LABELS[rows], scores, drop_intermediate=False)
            values.append(
                (
                    f1_score(LABELS[rows], scores >= 0.4),
                    average_precision_score(LABELS[rows], scores),
                    tpr[fpr <= 0.01].max(),
                )
            )
        return np.array(values[:2]) - np.array(values[2:])  # [seeds, metrics]

    # A result's rows are sorted by their ids, which are strings.
    order = np.argsort([int(row["id"]) for row in found[0].rows])
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rng, draws = np.random.default_rng(0), []
    while len(draws) < 100:
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if 0 < LABELS[rows].mean() < 1:
            draws.append(gains_of(rows))
    seeds = np.random.default_rng(0).integers(2, size=(100, 2))
    draws = [(drawn[a] + drawn[b]) / 2 for drawn, (a, b) in zip(draws, seeds, strict=True)]
    single = gains_of(np.arange(len(LABELS)))
    value, (low, high) = single.mean(axis=0), np.percentile(draws, [2.5, 97.5], 0)
    assert list(gains) == ["f1", "auprc", "recall_at_1_fpr"]
    for number, gain in enumerate(gains.values()):
        expected = low[number], high[number]
        assert (gain["low"], gain["high"]) == pytest.approx(expected)
    assert gains["f1"]["value"] == pytest.approx(value[0])
    assert gains["f1"]["least"] == pytest.approx(single[:, 0].min())
    assert gains["f1"]["better"] == (single[:, 0] > 0).sum() and gains["f1"]["pairs"] == 2


def test_the_interval_of_a_gain_resamples_seeds_and_rows():
    rng = np.random.default_rng(0)
    point, noise = np.array([0.5, 0.6, 0.8]), rng.normal(0, 0.01, 4000)
    ours = [types.SimpleNamespace(scores={"f1": {"value": p}}) for p in point]
    theirs = [types.SimpleNamespace(scores={"f1": {"value": 0.0}}) for _ in point]
    drawn = {id(r): {"f1": r.scores["f1"]["value"] + noise} for r in ours}
    drawn |= {id(r): {"f1": np.zeros(4000)} for r in theirs}
    found = comparison.gain(list(zip(ours, theirs, strict=True)), "f1", drawn)
    assert found["value"] == pytest.approx(point.mean())
    sd = np.hypot(point.std() / 3**0.5, 0.01)  # of a mean of three drawn seeds, and of the rows
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * sd, rel=0.1)
    same = comparison.gain([(r, r) for r in ours], "f1", drawn)
    assert {same[key] for key in ("value", "low", "high", "least")} == {0.0}


def test_p_values_count_the_resamples_on_the_other_side(monkeypatch):
    found = own_tests([run("ours", 0, 0.3), run("twin", 0, 0.3)])
    # Four resamples of two rows: in one ours is better, in one as good, in two it is worse.
    ours, twin = (result._replace(rows=result.rows[:2]) for result in found)
    for result, scores in ((ours, (0.9, 0.9)), (twin, (0.9, 0.1))):
        result.rows[:] = [
            {"id": i, "group": i, "label": i, "raw": score} for i, score in enumerate(scores)
        ]
    times = np.array([[1, 1], [1, 2], [2, 1], [0, 2]])
    monkeypatch.setattr(comparison.bootstrap, "resampled", lambda *_, **__: iter([times]))
    drawn = {id(r): comparison.draws(r, ("f1",)) for r in (ours, twin)}

    def f1(hits, called, harmful):
        return 2 * hits / (called + harmful)

    draws = [f1(h, s + h, h) - f1(0, s, h) for s, h in times]
    gain = comparison.gain([(ours, twin)], "f1", drawn)
    expected = tuple(np.percentile(draws, [2.5, 97.5]))
    assert (gain["low"], gain["high"]) == pytest.approx(expected)
    assert gain["p"] == pytest.approx(2 * (0 + 1) / (4 + 1))
    back = comparison.gain([(twin, ours)], "f1", drawn)
    assert back["p"] == gain["p"] and back["low"] == pytest.approx(-gain["high"])


def test_holm_is_over_all_methods_and_metrics():
    found = own_tests([run("ours", 0, 0.3), run("worse", 0, 0.9), run("twin", 0, 0.6)])
    rows = comparison.summarise(found, "twin")
    gains = [gain for row in rows for gain in row["gains"].values()]
    assert len(gains) == 6
    ranked = sorted(gains, key=lambda gain: gain["p"])
    assert ranked[0]["holm"] == min(1, 6 * ranked[0]["p"])
    table = tables.ladder_table(rows)
    assert [line[:2] for line in table.rows] == [["ours", "200"], ["worse", "200"]]
    assert table.titles[2::3] == [
        f"difference of {name} [95%]" for name in ("F1 harmful", "AUPRC", "recall at 1% FPR")
    ]
    for row, line in zip((row for row in rows if row["gains"]), table.rows, strict=True):
        gain = row["gains"]["auprc"]
        value, *ends = (f"{100 * gain[key]:+.1f}" for key in ("value", "low", "high"))
        better = "1 of 1" if gain["value"] > 0 else "0 of 1"
        assert line[5:8] == [f"{value} [{ends[0]}, {ends[1]}]", f"{gain['holm']:.3f}", better]


def test_one_class_has_no_difference_and_shows_what_it_has():
    safe = run("ours", 0, 0.3)
    value = {"value": 0.25, "low": 0.2, "high": 0.3}
    safe["report"]["test"] = {"raw": {"fpr": value}}
    safe["predictions"] = [row for row in safe["predictions"] if not row["label"]]
    (row,) = comparison.summarise(own_tests([safe]), "twin")
    assert row["gains"] == {}
    table = tables.summary_table([row], "twin")
    assert dict(zip(table.titles, table.rows[0], strict=True))["fpr"] == "25.0 [20.0, 30.0]"


def test_a_missing_number_is_a_dash_everywhere():
    runs = [run("ours", s, 0.3) for s in (0, 1)] + [run("twin", 0, 0.6)]
    del runs[0]["report"]["test"]["raw"]["ece"]
    found = own_tests(runs)
    summaries = comparison.summarise(found, "twin")
    table = tables.summary_table(summaries, "twin")
    ours = dict(zip(table.titles, next(r for r in table.rows if r[0] == "ours"), strict=True))
    assert ours["ECE"] == "-"  # one of two seeds has none: no mean of the other
    assert "times read" not in table.titles  # no method has a count of them
    assert not tables.contamination_table(summaries).rows
    found[0].evaluation["times_read"] = 2
    table = tables.summary_table(comparison.summarise(found, "twin"), "twin")
    assert {row[0]: row[-1] for row in table.rows} == {"ours": "2", "twin": "-"}
    found[0].evaluation["contamination"] = {"exact": 1}
    lines = tables.contamination_table(summaries).rows
    assert sorted(lines) == [["ours", "1", "-", "-"], ["twin", "-", "-", "-"]]
    scores = tables.every_score(found)
    assert [row[scores.titles.index("ece")] == "-" for row in scores.rows] == [True, False, False]
    lines = csv.DictReader(io.StringIO(writers.to_csv([(found, summaries)])))
    assert {line["checkpoint_sha256"] for line in lines} == {"-"}


# The verdict.


@pytest.mark.parametrize(
    "value, holm, word",
    [(0.03, 0.049, "helped"), (-0.03, 0.049, "hurt"), (0.03, 0.05, "no evidence")],
)
def test_verdict_follows_from_the_corrected_p_value(value, holm, word):
    assert comparison.verdict({"value": value, "holm": holm}) == word


def test_terminal_markdown_and_page_state_the_same_verdict(tmp_path, capsys):
    """A pair whose F1 interval lies above zero, and whose p value does not survive Holm's test."""
    records = [f"experiments/methods/short/{name}-0" for name in ("uda", "supervised")]
    report_command.show(records, out=str(tmp_path))
    printed, text = capsys.readouterr().out, (tmp_path / "report.md").read_text()
    page_text = html.unescape((tmp_path / "report.html").read_text())
    pair = [results.own_test(results.load(record)) for record in records]
    gain = comparison.summarise(pair, "supervised")[0]
    assert gain["gains"]["f1"]["low"] > 0 and gain["gains"]["f1"]["holm"] > 0.05
    sentence = (
        "unlabelled data: no evidence (F1 of uda against supervised on wildguard_train-"
        "wildguard_test: +2.9 [+0.6, +5.2], p 0.054 after Holm's correction)"
    )
    for found in (printed, text.replace("\\", ""), page_text):
        assert re.findall(r"unlabelled data: .*?\)", found) == [sentence]
    assert not re.search("helped|hurt", printed + text + page_text)
    assert printed == f"{text}\npage: {tmp_path / 'report.html'}\n"


def test_sentences_count_the_methods_of_each_verdict():
    runs = [run("ours", s, 0.1) for s in (0, 1)] + [run("worse", 0, 9.0), run("same", 0, 0.5)]
    twins = [run("twin", s, 0.5) for s in (0, 1)]
    for each in runs[:2]:
        each["report"]["data"]["rows_longer_than_max_length"] = {"unlabelled": 1}
    found = own_tests([*runs, *twins])
    summaries = comparison.summarise(found, "twin")
    first, second = conclusions.sentences(found, summaries, "twin")
    gains = {row["method"]: row["gains"].get("f1") for row in summaries}
    assert first == (
        f"other methods: hurt with 1 of 2 methods (worse "
        f"{tables.cell(gains['worse'], sign='+')}); no evidence with 1 of 2 methods; "
        "F1 against twin on made"
    )
    assert second.startswith("unlabelled data: helped (F1 of ours against twin on made: +")


def test_runs_on_other_labelled_rows_are_not_compared():
    pair = [run("ours", 0, 0.3), run("twin", 0, 0.6)]
    pair[0]["report"]["provenance"]["split_sha256"] = "other"
    found = own_tests(pair)
    sentences = conclusions.sentences(found, comparison.summarise(found, "twin"), "twin")
    assert sentences == [
        "ours: not compared on made, as no run of twin has the same test rows, seed and labelled "
        "rows"
    ]
    found = own_tests(pair[:1])
    assert conclusions.sentences(found, comparison.summarise(found, "twin"), "ours") == []


def test_training_facts_are_of_all_runs():
    pair = [run("ours", 0, 0.3), run("twin", 1, 0.6, labels=50)]
    for each in pair:
        each["report"]["provenance"]["machine"] = {"cpu": "Fast", "cores": 2}
        each["report"]["data"]["rows"]["unlabelled"] = 90
    assert conclusions.training_facts(own_tests(pair)) == (
        "training: 50, 200 labelled and 90 unlabelled rows; seed 0, 1; 2 cores of Fast; "
        "2.0 minutes of training in all"
    )


# Cohorts.


@pytest.mark.parametrize(
    "key, called",
    [
        ("corpus_sha256", "corpus hash"),
        ("task", "task"),
        ("label_map", "label map"),
        ("threshold_policy", "threshold policy"),
    ],
)
def test_a_table_of_two_cohorts_is_refused_by_what_differs(key, called):
    ours, twin = own_tests([run("ours", 0, 0.3), run("twin", 0, 0.6)])
    twin.cohort[key] = "other"
    with pytest.raises(BadInput, match=f"runs/ours-0 and runs/twin-0 differ in {called}:"):
        comparison.summarise([ours, twin], "twin")
    assert results.by_cohort([ours, twin]) == [[ours], [twin]]


def test_other_labels_on_the_same_rows_are_another_cohort():
    runs = [run("ours", 0, 0.3), run("twin", 0, 0.6)]
    runs[1]["predictions"][5]["label"] ^= 1
    with pytest.raises(BadInput, match="differ in split"):
        comparison.summarise(own_tests(runs), "twin")


def test_rows_in_another_order_are_the_same_cohort():
    runs = [run("ours", 0, 0.3), run("twin", 0, 0.6)]
    expected = comparison.summarise(own_tests(runs), "twin")[0]["gains"]
    runs[1]["predictions"].reverse()
    assert comparison.summarise(own_tests(runs), "twin")[0]["gains"] == expected


def test_pairs_are_of_one_seed_and_the_same_labelled_rows():
    budgets = [
        run(m, s, 0.4, labels=n) for m in ("ours", "twin") for n in (50, 100) for s in (0, 1)
    ]
    rows = comparison.summarise(own_tests(budgets), "twin")
    assert {(r["method"], r["labels"]): r["gains"].get("f1", {}).get("pairs") for r in rows} == {
        ("ours", 50): 2,
        ("ours", 100): 2,
        ("twin", 50): None,
        ("twin", 100): None,
    }


def test_a_peer_is_compared_with_every_baseline_unless_there_are_two_budgets():
    peer = results.own_test(run("peer", 0, 0.5))._replace(run=None, labels=None)
    twins = [run("twin", s, 0.6) for s in (0, 1, 2)]
    rows = comparison.summarise([peer, *own_tests(twins)], "twin")
    assert next(r for r in rows if r["method"] == "peer")["gains"]["f1"]["pairs"] == 3
    rows = comparison.summarise([peer, *own_tests([*twins, run("twin", 0, 0.6, 50)])], "twin")
    assert next(r for r in rows if r["method"] == "peer")["gains"] == {}


def test_two_runs_of_one_seed_are_not_averaged():
    first, second = own_tests([run("ours", 0, 0.3), run("ours", 0, 0.4)])
    second.evaluation["scorer"]["workdir"] = "runs/elsewhere"
    names = [result.method for result in results.named_apart([first, second])]
    assert names == ["ours", "elsewhere"]
    other_seed = results.own_test(run("ours", 1, 0.4))
    assert results.named_apart([first, other_seed]) == [first, other_seed]


def test_arms_of_a_method_are_named_by_their_folders():
    """The seeds of an arm stay together; arms of one name in two folders do not."""

    def arm(folder, seed, oracle=False):
        found = run("ours", seed, 0.3)
        found["workdir"], found["report"]["oracle"] = Path(folder), oracle
        return results.own_test(found)

    first = [arm(f"a/{name}-{seed}", seed) for name in ("plain", "long-1") for seed in (0, 1)]
    oracles = [arm("a/best-0", 0, oracle=True), arm("a/other-0", 0, oracle=True)]
    names = [result.method for result in results.named_apart([*first, *oracles])]
    assert names == ["plain"] * 2 + ["long-1"] * 2 + ["best (oracle)", "other (oracle)"]
    again = [arm("b/plain-0", 0), arm("b/plain-1", 1)]
    names = [result.method for result in results.named_apart([*first, *again])]
    assert names == ["a/plain-0", "a/plain-1", "long-1", "long-1", "b/plain-0", "b/plain-1"]


def test_the_baseline_is_the_second_of_two_or_supervised_or_the_last():
    def baseline(*names):
        return results.baseline_of([r._replace(method=n) for n in names])

    r = results.own_test(run("ours", 0, 0.3))
    assert baseline("supervised", "uda") == "uda"
    assert baseline("uda", "supervised", "uda", "dash") == "supervised"
    assert baseline("uda", "dash", "tmix") == "tmix"


# Files.


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs, and evaluations of two of them and of a peer on a corpus with a hostile name."""
    folder = tmp_path_factory.mktemp("report")
    paths = []
    for number, each in enumerate(
        [run("ours", s, 0.3) for s in (0, 1)] + [run("supervised", s, 0.6) for s in (0, 1)]
    ):
        path = folder / f"{each['report']['algorithm']}-{each['report']['seed']}"
        path.mkdir()
        write_json(path / "report.json", each["report"])
        for name in ("metrics", "predictions"):
            lines = "".join(json.dumps(row) + "\n" for row in each[name])
            (path / f"{name}.jsonl").write_text(lines)
        write_evaluation(path, *evaluation(each, times_read=number + 1))
        if each["report"]["algorithm"] == "ours":
            write_json(path / "policy.json", policy(each))
        paths.append(path)
    peer = evaluation(run("supervised", 0, 0.5), times_read=1)
    peer[0]["scorer"]["name"] = HOSTILE
    peer[0]["cohort"] |= {"seed": None, "split_sha256": None}
    write_evaluation(paths[-1] / "peers" / "hf", *peer)
    return paths


def policy(each):
    """A policy.json of the run, fitted on noisier scores than those of its test rows."""
    noise = np.random.default_rng(0).normal(0, 0.5, 60)
    scores = np.clip([row["raw"] for row in each["predictions"]] + noise, 0, 1)
    made = operating_point.policy(
        LABELS, scores, target_fpr=0.08, target_recall=0.95, confidence=0.8
    )
    facts = {"run": {"weights": "raw"}, "data": "rows", "rows_read": 60, "left_out": 0}
    return facts | made


def evaluation(each, times_read):
    own = results.own_test(each)
    name = "exam <b>&'"
    ratio = {"value": 0.5, "low": 0.4, "high": 0.6}
    made = {
        "cohort": own.cohort | {"corpus": name, "corpus_sha256": "e" * 64, "split": None},
        "scorer": {"name": each["report"]["algorithm"], "workdir": "elsewhere"},
        "kind": "test",
        "scores": {"raw": own.scores | {"brier": ratio}},
        "slices": {
            "category": {
                HOSTILE: {"rows": 40, "harmful": 20, "f1": 0.6, "recall": 0.7},
                "only safe": {"rows": 20, "harmful": 0, "fpr": 0.1},
            }
        },
        "robustness": {"leet $x$": {"rows": 20, "recall": 0.4, "drop": 0.1, "low": 0, "high": 0.2}},
        "curves": {},
        "cost": {},
        "contamination": {"exact": 1, "near_duplicates": times_read, "removed": True},
        "times_read": times_read,
        "provenance": {"commit": "f" * 40},
    }
    return made, own.rows


@pytest.fixture(scope="module")
def files(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    build.write(out, list(map(str, folders)), against=None, published=None)
    return {path.suffix: path.read_text() for path in out.iterdir()}


class Page(html.parser.HTMLParser):
    """Tags that are open, those that do not match, and what a browser would fetch or run."""

    VOID = ("meta", "br", "wbr", "input", "link", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.fetched, self.ids, self.tables = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("script", "link", "img", "iframe", "object"):
            self.fetched.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "style") and "//" in (value or ""):
                self.fetched.append(value)
            if name.startswith("on"):
                self.fetched.append(name)
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if {"td", "th"} & {*self.open}:
            self.tables[-1][-1][-1] += data


def test_the_page_is_whole_and_fetches_nothing(files):
    seen = Page(files[".html"])
    assert not seen.open and not seen.wrong
    assert not seen.fetched
    assert "http" not in re.sub(r"http-equiv|http://evil.example/", "", files[".html"])
    assert "url(" not in re.sub(r"url\(#\w+\)", "", files[".html"])
    assert len(seen.ids) == len(set(seen.ids))


def test_names_are_text_in_the_page(files):
    seen = Page(files[".html"])
    cells = [cell for table in seen.tables for row in table for cell in row]
    assert HOSTILE in cells
    assert files[".html"].count("<script") == 0
    assert "labels to check: a&amp;b_&lt;script&gt;" in files[".html"]


def test_the_page_says_the_numbers_of_the_table(files, folders):
    found = [r for path in folders[:2] for r in results.results_of(path)]
    own = [r for r in found if r.cohort["corpus"] == "made"]
    f1 = 100 * np.array([r.scores["f1"]["value"] for r in own])
    summary = next(
        t for t in Page(files[".html"]).tables if t[0][:3] == ["method", "labels", "seeds"]
    )
    ours = next(row for row in summary if row[0] == "ours")
    assert ours[1:4] == ["200", "2", f"{f1.mean():.1f} ± {f1.std(ddof=1):.1f}"]


def test_a_set_read_more_than_once_is_flagged(files):
    for suffix in (".html", ".md"):
        assert "Read more than once: ours (2 times), supervised (4 times)." in files[suffix]
    assert 'class="warn"' in files[".html"]


def test_contamination_is_attached(files):
    tables = Page(files[".html"]).tables
    title = ["method", "exact", "near duplicates", "left out of the scores"]
    (exam,) = [t for t in tables if t[0] == title]  # the other set has no counts
    assert ["ours", "1", "1 to 2", "yes"] in exam


def test_markdown_has_a_table_for_each_cohort(files):
    text = files[".md"]
    # Two cohorts, each with its differences and calibration, and the exam's contamination.
    assert text.count("| method") == 7
    assert "<b>" not in text and "<script>" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.split(r"(?<!\\)\|", line)) for line in lines if "seeds" in line}
    hostile = next(line for line in lines if line.startswith("| a&b_"))
    assert len(re.split(r"(?<!\\)\|", hostile)) in widths
    assert "](http" not in text


def test_operating_points_are_in_the_report(files, folders):
    made = json.loads((folders[0] / "policy.json").read_text())
    band = made["abstain"]
    volume = f"{100 * band['volume']['value']:.1f} ["
    table = next(t for t in Page(files[".html"]).tables if t[0][:2] == ["run", "profile"])
    assert len(table) == 1 + 2 * 3  # two runs with three profiles each
    for row, (name, profile) in zip(table[1:], made["thresholds"].items(), strict=False):
        assert row[:3] == [str(folders[0]), name, f"{profile['threshold']:.4f}"]
        assert row[4] == profile["promise"]
    for suffix in (".html", ".md"):
        line = next(x for x in files[suffix].splitlines() if f"{folders[0]}: review" in x)
        assert f"from {band['low']:.4f} to {band['high']:.4f}, {volume}" in line


def test_calibration_error_before_and_after(files, folders):
    own = results.own_test(results.load(folders[0]))
    after = calibrators.apply(own.run["policy"]["calibrator"], own.probabilities)
    ece = [metrics.expected_calibration_error(own.truth, s) for s in (own.probabilities, after)]
    assert abs(ece[0] - ece[1]) > 1e-3
    row = ["ours", "0", *(f"{100 * value:.1f}" for value in ece)]
    row += [f"{100 * np.mean((s - own.truth) ** 2):.1f}" for s in (own.probabilities, after)]
    found = [t for t in Page(files[".html"]).tables if t[0][2:4] == ["ECE", "ECE calibrated"]]
    assert found[0][1] == row and len(found[0]) == 3  # the baseline has no policy
    panel = re.search(r"Reliability.*?</figure>", files[".html"], re.S)[0]
    assert "var(--second)" in panel and "stroke-dasharray" in panel


def test_the_overview_has_a_line_for_every_cohort(files):
    table = next(t for t in Page(files[".html"]).tables if t[0][:2] == ["test set", "threshold"])
    assert [row[:2] for row in table[1:]] == [
        ["made", "dev_best_f1"],
        ["exam <b>&'", "dev_best_f1"],
    ]
    columns = dict(zip(table[0], zip(*table[1:], strict=True), strict=True))
    assert columns["metric"] == ("F1", "F1")
    assert columns[HOSTILE][0] == "-" != columns[HOSTILE][1]  # the peer has the exam alone
    assert " ± " in columns["ours"][0]


def test_the_words_of_labels_are_said(folders, tmp_path):
    found, rows = evaluation(run("ours", 0, 0.3), 1)
    found["cohort"]["label_map"] = {"bad": 1, "ugly": 1, "good": 0}
    write_evaluation(tmp_path, found, rows)
    text = build.write(tmp_path / "out", [str(tmp_path)], against=None, published=None)
    assert "label map: harmful is bad, ugly; safe is good;" in text
    assert "label map: the corpus's own labels" in build.write(
        tmp_path / "out", [str(folders[2])], against=None, published=None
    )


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_the_csv_is_a_formula(name):
    ours = results.own_test(run("ours", 0, 0.3))._replace(method=name)
    text = writers.to_csv([([ours], comparison.summarise([ours], name))])
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert lines[0]["method"] == f"'{name}"
    assert not any(c[:1] in "=+@\t\r" for row in lines for c in row.values())
    assert lines[0]["label_map"] == "-"  # a dash alone is a missing value


def test_csv_has_a_number_a_line_with_its_cohort(files, folders):
    lines = list(csv.DictReader(io.StringIO(files[".csv"])))
    f1 = [row for row in lines if row["statistic"] == "score" and row["metric"] == "f1"]
    assert len(f1) == 4 + 5
    for row in f1[:1]:
        expected = json.loads((folders[0] / "report.json").read_text())["test"]["raw"]["f1"]
        assert [float(row[k]) for k in ("value", "low", "high")] == list(expected.values())
    assert all(len(row["rows_sha256"]) == 64 and len(row["corpus_sha256"]) == 64 for row in lines)
    gains = [row for row in lines if row["statistic"] == "gain"]
    assert {row["metric"] for row in gains} == {"f1", "auprc", "recall_at_1_fpr"}
    assert {(row["method"], row["corpus"]) for row in gains} == {
        ("ours", "made"),
        ("ours", "exam <b>&'"),
        (HOSTILE, "exam <b>&'"),
    }
    slices = {row["of"] for row in lines if row["statistic"] == "slice"}
    assert slices == {f"category={HOSTILE}", "category=only safe"}
    assert not any(cell == "" for row in lines for cell in row.values())


def test_latex_is_balanced(files):
    text = files[".tex"]
    bare = re.sub(r"\\[&%$#_{}\\]", "", text)  # without escaped characters and line ends
    assert bare.count("{") == bare.count("}") > 0
    assert not re.search(r"[%$#^~<>]", re.sub(r"\\ensuremath\{[<>]\}", "", bare).replace("\\^", ""))
    for body in re.findall(r"\\toprule(.*?)\\bottomrule", text, re.S):
        rows = [line for line in body.splitlines() if line.rstrip().endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1 and len(rows) > 2
    for word in ("table", "tabular"):
        assert text.count(f"\\begin{{{word}}}") == text.count(f"\\end{{{word}}}") == 2


def test_the_same_runs_give_the_same_bytes(files, folders, tmp_path):
    build.write(tmp_path, list(map(str, folders)), against=None, published=None)
    assert {path.suffix: path.read_text() for path in tmp_path.iterdir()} == files


def test_the_figures_of_the_page(files):
    titles = re.findall(r"<h3>(.*?)</h3>", files[".html"])
    assert titles[:3] == ["Precision and recall", "Reliability", "Differences to supervised"]
    assert titles[3:6] == ["Calibration error", "All scores", "Provenance"]
    assert {"By category", "Robustness", "F1 on dev", "Training loss", "Pseudo-labels"} <= {*titles}
    # The baseline and the method, in every panel that has both.
    panel = re.search(r"F1 on dev.*?</figure>", files[".html"], re.S)[0]
    assert "var(--method)" in panel and "var(--baseline)" in panel and "#010101" not in panel


def test_text_of_a_panel_is_escaped_and_not_mathematics():
    text = plots.svg(lambda axes: axes.set_title("<b>$x_1$ & \u4e2d"), salt="x")
    assert ">&lt;b&gt;$x_1$ &amp; \u4e2d</text>" in text and "<b>" not in text


def test_published_numbers_stand_apart_with_their_source(folders, tmp_path):
    entry = {
        "title": "Prompts",
        "source": "A paper, Table 2",
        "metric": "F1, %",
        "columns": ["Exam"],
        "rows": {"Rival": [88.9], "Other": [None]},
    }
    papers = tmp_path / "papers.json"
    papers.write_text(json.dumps({"tables": [entry]}))
    text = build.write(tmp_path, [str(folders[0])], against=None, published=str(papers))
    lines = text[text.index("A paper, Table 2") :].splitlines()
    assert [cells(line) for line in lines if line.startswith("|")][0::2] == [
        ["as published, not re-run", "Exam"],
        ["Rival", "88.9"],
    ]
    assert cells(lines[-1]) == ["Other", "-"]
    assert "Rival" not in text[: text.index("A paper, Table 2")]
    assert "Prompts: as published, not re-run" in (tmp_path / "report.html").read_text()
    for bad in (entry | {"source": ""}, entry | {"columns": []}, {"title": "x"}):
        papers.write_text(json.dumps({"tables": [bad]}))
        with pytest.raises(BadInput, match="holds no published tables"):
            tables.read_published(papers)


def test_bad_folders_and_names(folders, tmp_path):
    with pytest.raises(BadInput, match="no report.json"):
        build.write(tmp_path, [str(tmp_path)], against=None, published=None)
    with pytest.raises(BadInput, match="no run of uda is among those given: ours"):
        build.write(tmp_path, [str(folders[0])], against="uda", published=None)
    with pytest.raises(BadInput, match="there is no run .*gone: check the path"):
        results.load(tmp_path / "gone")
    with pytest.raises(BadInput, match="holds no run: train one"):
        results.load(tmp_path)
    (tmp_path / "student-1").mkdir()
    (tmp_path / "student-1" / "report.json").write_text("{}")
    with pytest.raises(BadInput, match="holds the runs student-1: name one, such as .*/student-1"):
        results.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="has not finished: its own command again resumes it"):
        results.load(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(BadInput, match="report.json is damaged: delete it, and"):
        results.load(tmp_path)
    with pytest.raises(BadInput, match="usage"):
        report_command.show([])


def test_one_run_alone_has_a_report(folders, tmp_path):
    build.write(tmp_path, [str(folders[2])], against=None, published=None)
    text = (tmp_path / "report.html").read_text()
    assert "var(--method)" in text and "difference of F1" not in text


def test_markdown_reads_well_in_a_terminal():
    shown = writers._markdown("FPR <= 0.01 and recall >= 0.9 & more")
    assert shown == "FPR <= 0.01 and recall >= 0.9 & more"
    assert writers._markdown("<b>x</b> &amp; >") == "&lt;b>x&lt;/b> &amp;amp; >"
    assert writers._markdown("> quoted").startswith("&gt;")


def test_a_threshold_that_decides_nothing_is_named():
    shares = {"strict": 1.0, "balanced": 0.4, "permissive": 0.0}
    made = {name: {"measured": {"flagged": {"value": x}}} for name, x in shares.items()}
    every, none = tables.policy_warnings({"thresholds": made})
    assert every.startswith("warning: strict calls every row harmful")
    assert none.startswith("warning: permissive calls no row harmful")
