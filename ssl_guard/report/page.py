"""Renders the report as one HTML page without external files."""

from collections.abc import Callable, Mapping, Sized
from functools import partial
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from ssl_guard.report import conclusions, panels, plots, tables, writers
from ssl_guard.report.plots import BASELINE, METHOD
from ssl_guard.report.results import COHORT, Result, by_method

CEILING = "supervised_full"
PANELS = ("auprc", "f1")  # metrics with a panel of gains and of the budget


class Figure(NamedTuple):
    """A titled row of panels; panels: [(title, SVG)]."""

    title: str
    note: str
    panels: list[tuple[str, Markup]]


def render(
    parts: list[tuple[list[Result], list[dict]]],
    *,
    against: str,
    alarms: list[tuple[str, list[str]]],
    published: list[tables.Published],
) -> str:
    """Renders the page; the same arguments give the same bytes.

    parts: the results of each cohort and their `comparison.summarise`; against: the baseline's
    method; alarms: (folder, lines) of runs; published: tables of papers.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssl_guard.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    results = [r for _, summaries in parts for row in summaries for r in row["results"]]
    runs = {str(result.run["workdir"]): result for result in results if result.run}
    policies, sections = writers.policies_of(parts), []
    drawn: set[tuple] = set()
    for number, (part, summaries) in enumerate(parts):
        rows = part[0].cohort["corpus_sha256"], part[0].cohort["rows_sha256"]
        again = rows in drawn  # the same rows at another threshold
        drawn.add(rows)
        sections.append(
            {
                "cohort": _facts(part[0]),
                "training": conclusions.training_facts(part),
                "corpus": part[0].cohort["corpus"],
                "kind": _kind(part[0]),
                "again": again,
                "summary": tables.summary_table(summaries, against),
                "note": tables.reads_note(summaries),
                "ladder": tables.ladder_table(summaries),
                "worth": tables.worth_table(summaries),
                "calibration": tables.calibration_table([] if again else part),
                "contamination": tables.contamination_table(summaries),
                "scores": tables.every_score(part),
                "figures": []
                if again
                else _test_figures(summaries, against, salt=f"test {number}"),
            }
        )
    return environment.get_template("report.html.jinja").render(
        sections=sections,
        verdicts=conclusions.sentences(*parts[0], against)[::-1],  # unlabelled data first
        licences=conclusions.licences(results),
        forest=_forest(parts, against),
        sets=len(drawn),
        overview=tables.overview(parts),
        policies=tables.policy_table(policies),
        reviews=[(name, tables.policy_lines(policy)) for name, policy in policies.items()],
        against=against,
        methods=len({result.method for result in results}),
        training=_training_figures(list(runs.values()), against),
        runs=tables.runs_table(results),
        alarms=alarms,
        published=published,
    )


def _forest(parts, against: str) -> Figure:
    """Draws the gains of all methods on one test set, or the F1 gains of each method on several.

    Of several thresholds on one test set the first is drawn.
    """
    sets: dict[tuple, tuple] = {}
    for part, summaries in parts:
        cohort = part[0].cohort
        sets.setdefault((cohort["corpus_sha256"], cohort["rows_sha256"]), (cohort, summaries))
    one = len(sets) == 1
    lines = [
        ((row["method"], row["labels"]), cohort["corpus"], metric, row["gains"][metric])
        for cohort, summaries in sets.values()
        for row in summaries
        for metric in (PANELS if one else ("f1",))
        if metric in row["gains"]
    ]
    note = (
        f"{'Gain' if one else 'F1 gain'} on {against} with its 95% interval; filled: significant "
        "after Holm's correction."
    )
    names = _names(list(dict.fromkeys(key for key, *_ in lines)))
    shown: dict[str, list] = {}
    for key, corpus, metric, gain in lines:
        panel, line = (
            (tables.SHOWN[metric], names[key].removesuffix(" labels"))
            if one
            else (names[key], corpus)
        )
        shown.setdefault(panel, []).append((line, gain))
    ends = [100 * gain[end] for *_, gain in lines for end in ("low", "high")]
    limits = min([0, *ends]) - 0.5, max([0, *ends]) + 0.5

    def draw(axes, key):
        panels.forest(axes, shown[key], limits)

    return _figure("", note, draw, {key: key for key in shown}, salt="forest", lines=shown)


def _facts(result: Result) -> dict[str, str]:
    titles = COHORT | {"rows": "rows", "harmful": "harmful rows"}
    found = {title: result.cohort[key] for key, title in titles.items()}
    found["label map"] = tables.label_words(result.cohort["label_map"])
    return {title: "-" if value is None else str(value) for title, value in found.items()}


def _kind(result: Result) -> str:
    """Describes the kind of test set and the threshold, for the line under a heading."""
    kind = {"over_refusal": "over-refusal: safe rows", "test": ""}
    words = [kind.get(result.evaluation.get("kind", "test"), result.evaluation.get("kind"))]
    return ", ".join([*filter(None, words), f"threshold {result.cohort['threshold_policy']}"])


def _names(methods) -> dict[tuple, str]:
    """Names each (method, labels); adds the labels if a method has several counts of them."""
    counts = [method for method, _ in methods]
    return {
        (method, labels): f"{method}, {labels} labels" if counts.count(method) > 1 else method
        for method, labels in methods
    }


def _shown(methods: dict[tuple, list[Result]], against: str) -> dict[tuple, list[Result]]:
    """Selects the methods with a panel: all but the baseline, unless it is alone."""
    return {key: found for key, found in methods.items() if key[0] != against} or methods


def _baseline(methods: dict[tuple, Any], key: tuple, against: str) -> Any:
    """Selects the baseline's entry with a method's number of labels, or its only entry; else []."""
    if key[0] == against:
        return []
    others = {labels: found for (method, labels), found in methods.items() if method == against}
    return others.get(key[1], next(iter(others.values())) if len(others) == 1 else [])


def _runs(results: list[Result]) -> list[dict]:
    return [result.run for result in results if result.run]


def _training_figures(results: list[Result], against: str) -> list[Figure]:
    methods = by_method(results)
    names, shown = _names(methods), _shown(methods, against)
    stepped = {
        key: names[key]
        for key, mine in shown.items()
        if any(len(run["metrics"]) > 1 for run in _runs(mine))
    }
    figures = []

    def curves(title, note, draw, ending):
        limits = panels.span(_runs(results), ending)

        def both(axes, key):
            draw(axes, _runs(_baseline(methods, key, against)), BASELINE)
            draw(axes, _runs(shown[key]), METHOD)
            axes.set(ylim=limits)

        figures.append(_figure(title, note, both, stepped))

    if stepped:
        if any("dev/raw/f1" in row for run in _runs(results) for row in run["metrics"]):
            curves("F1 on dev", "By step, at the best dev threshold.", panels.dev_f1, "/f1")
        note = "By step; dashed: on unlabelled rows."
        curves("Training loss", note, panels.loss, "loss/supervised")

    first = {key: _runs(mine)[0] for key, mine in methods.items()}
    pseudo = {
        key: names[key]
        for key, run in first.items()
        if any("pseudo/mask_rate" in row for row in run["metrics"])
    }
    margins = {
        (key, label): f"{names[key]}, {word}"
        for key, run in first.items()
        for label, word in ((1, "harmful"), (0, "safe"))
        if sum(f"pseudo/margins_{label}" in row for row in run["metrics"]) > 1
    }

    def draw_pseudo(axes, key):
        panels.pseudo_labels(axes, _runs(methods[key]))

    def draw_margins(axes, key):
        panels.margins(axes, first[key[0]], key[1])

    note = "Line: accuracy of the selected ones on hidden labels. Dashed: masked share of rows."
    figures.append(_figure("Pseudo-labels", note, draw_pseudo, pseudo))
    note = "Share of weak views by the margin of their pseudo-label, first seed; brighter is more."
    figures.append(_figure("Margins", note, draw_margins, margins))
    return [figure for figure in figures if figure.panels]


def _test_figures(summaries: list[dict], against: str, salt: str) -> list[Figure]:
    methods = {(row["method"], row["labels"]): row["results"] for row in summaries}
    names, shown = _names(methods), _shown(methods, against)
    titles = {key: names[key] for key in shown}
    figures = []

    def curves(title, note, draw):
        def both(axes, key):
            if baseline := _baseline(methods, key, against):
                draw(axes, baseline, BASELINE)
            draw(axes, shown[key], METHOD)

        figures.append(_figure(title, note, both, titles, salt=f"{salt} {title}"))

    def bars(title, note, values):
        def draw(axes, key):
            panels.bars(axes, values[key], _baseline(values, key, against) or {})

        drawn = {key: name for key, name in titles.items() if values.get(key)}
        figures.append(_figure(title, note, draw, drawn, salt=f"{salt} {title}", lines=values))

    if len({row["label"] for row in summaries[0]["results"][0].rows}) == 2:
        note = "Dot: the threshold. On rows of both classes."
        curves("Precision and recall", note, panels.precision_recall)
        note = "Share of harmful rows by score, in ten bins of equally many rows; dotted: ideal."
        if any(result.run and result.run["policy"] for found in shown.values() for result in found):
            note += " Orange, dashed: probabilities of the run's policy.json."
        curves("Reliability", note, panels.reliability)
    figures.append(_budget_figure(summaries, against, salt))
    columns = dict.fromkeys(
        c for rs in methods.values() for c in rs[0].evaluation.get("slices", {})
    )
    for column in columns:
        found = {k: rs for k, rs in methods.items() if _has(rs, "slices", column)}
        flat = [result for part in found.values() for result in part]
        if metric := panels.slice_metric(flat, column):
            values = {k: panels.slice_values(rs, column, metric) for k, rs in found.items()}
            note = f"{tables.SHOWN.get(metric, metric)}; number of rows in brackets."
            bars(f"By {column}", note, values)
    drops = {k: panels.drops(rs) for k, rs in methods.items() if _has(rs, "robustness")}
    bars("Robustness", "Drop of recall when harmful rows are obfuscated.", drops)
    return [figure for figure in figures if figure.panels]


def _has(results: list[Result], *path: str) -> bool:
    """Returns whether each result has a value at this path of its evaluation."""
    for result in results:
        found = result.evaluation
        for key in path:
            found = found.get(key) or {}
        if not found:
            return False
    return True


def _budget_figure(summaries: list[dict], against: str, salt: str) -> Figure:
    """Draws every method with several numbers of labels, and the baseline behind it."""
    rows: dict[str, dict[int, dict]] = {}
    for row in summaries:
        if row["labels"] is not None and all(row["scores"].get(name) for name in PANELS):
            rows.setdefault(row["method"], {})[row["labels"]] = row
    budgets = {
        method: {labels: row["results"] for labels, row in mine.items()}
        for method, mine in rows.items()
    }
    full = [result for found in budgets.pop(CEILING, {}).values() for result in found]
    several = {method for method, by_labels in budgets.items() if len(by_labels) > 1}
    keys = [(method, name) for method in sorted(several - {against} or several) for name in PANELS]

    def draw(axes, key):
        method, name = key
        drawn = {against: BASELINE} | {method: METHOD}
        for other, colour in drawn.items():
            if other in budgets:
                panels.budget(axes, budgets[other], name, colour)
        for labels, row in rows[method].items():
            if worth := row["worth"].get(name):
                panels.reading(axes, labels, row["scores"][name]["value"], worth["value"])
        if full:
            panels.ceiling(axes, full, name)
        panels.label_axis(axes, {n for other in drawn for n in budgets.get(other, ())})

    note = (
        "By number of labels, with the range over seeds. Dotted: to the number of labels with "
        f"which {against} has the same score. Dashed: {CEILING}, which has all labels."
    )
    titles = {(method, name): f"{method}, {tables.SHOWN[name]}" for method, name in keys}
    return _figure("Budget", note, draw, titles, salt=f"{salt} budget")


def _figure(
    title: str,
    note: str,
    draw: Callable,
    names: dict[Any, str],
    *,
    salt: str = "",
    lines: Mapping[Any, Sized] | None = None,
) -> Figure:
    """Draws a figure with one panel for each name.

    draw: called as draw(axes, key=key); names: {key: title of the panel}; salt: `title` if empty;
    lines: {key: the lines of a panel whose height depends on their number}.
    """
    found = []
    for key, name in names.items():
        size = {"height": 0.6 + 0.24 * len(lines[key]), "left": 0.45} if lines else {}
        picture = plots.svg(partial(draw, key=key), salt=f"{salt or title} {name}", **size)
        found.append((name, Markup(picture)))
    return Figure(title, note, found)
