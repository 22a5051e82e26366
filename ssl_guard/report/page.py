"""The report as one HTML page: verdict, forest plot, tables, panels. It loads no other file."""

from typing import NamedTuple

import jinja2
from markupsafe import Markup

from ssl_guard.report import conclusions, panels, plots, tables, writers
from ssl_guard.report.plots import BASELINE, METHOD
from ssl_guard.report.results import COHORT, Result, by_method

CEILING = "supervised_full"


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

    parts: the results of each cohort and their `tables.summarise`; against: the baseline's method;
    alarms: (folder, lines) of runs; published: tables of papers.
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
    policies, drawn, sections = writers.policies_of(parts), set(), []
    for number, (part, summaries) in enumerate(parts):
        rows = part[0].cohort["corpus_sha256"], part[0].cohort["rows_sha256"]
        again = rows in drawn  # at another threshold
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
                "differences": tables.differences_table(summaries),
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
        forest=_forest(parts),
        sets=len(drawn),
        overview=tables.overview(parts),
        policies=tables.policy_table(policies),
        reviews=[
            (name, tables.review(policy), tables.policy_facts(policy))
            for name, policy in policies.items()
        ],
        against=against,
        methods=len({result.method for result in results}),
        training=_training_figures(list(runs.values()), against),
        runs=_runs_table(results),
        alarms=alarms,
        published=published,
    )


def _forest(parts) -> Figure:
    """The F1 gains of all methods on one test set, or of each method on several. A test set has
    the line of its first threshold."""
    sets = {}
    for part, summaries in parts:
        cohort = part[0].cohort
        sets.setdefault((cohort["corpus_sha256"], cohort["rows_sha256"]), (cohort, summaries))
    lines = [
        (key, cohort["corpus"], row["gains"]["f1"])
        for cohort, summaries in sets.values()
        for row in summaries
        for key in [(row["method"], row["labels"])]
        if "f1" in row["gains"]
    ]
    note = "Gain of F1 with its 95% interval; a filled dot is a gain or a loss after Holm's test."
    if not lines:
        return Figure("", note, [])
    names = _names(list(dict.fromkeys(key for key, _, _ in lines)))
    shown = {}
    for key, corpus, gain in lines:
        panel, line = ("", names[key]) if len(sets) == 1 else (names[key], corpus)
        shown.setdefault(panel, []).append((line, gain))
    ends = [100 * gain[end] for _, _, gain in lines for end in ("low", "high")]
    limits = min(0, *ends) - 0.5, max(0, *ends) + 0.5
    found = []
    for panel, gains in shown.items():

        def draw(axes, gains=gains):
            panels.forest(axes, gains, limits)

        height = 0.6 + 0.24 * len(gains)
        found.append((panel, _svg(draw, "forest", panel, height=height, left=0.45)))
    return Figure("", note, found)


def _facts(result: Result) -> dict[str, str]:
    titles = COHORT | {"rows": "rows", "harmful": "of them harmful"}
    found = {title: result.cohort[key] for key, title in titles.items()}
    found["label map"] = tables.label_words(result.cohort["label_map"])
    return {title: "-" if value is None else str(value) for title, value in found.items()}


def _kind(result: Result) -> str:
    """The line under a heading: the side or "over-refusal", and the threshold."""
    kind = {"over_refusal": "over-refusal: safe rows", "test": ""}
    words = [kind.get(result.evaluation.get("kind", "test"), result.evaluation.get("kind"))]
    return ", ".join([*filter(None, words), f"threshold {result.cohort['threshold_policy']}"])


def _runs_table(results: list[Result]) -> tables.Table:
    """The folder, hashes, cost and commit of every result; hashes to twelve digits."""
    titles = ["method", "seed", "folder", "corpus", "checkpoint sha256", "split sha256"]
    titles += ["steps", "minutes", "texts/s", "tokens/s", "commit"]
    rows = []
    for result in results:
        cohort, report = result.cohort, result.run["report"] if result.run else {}
        seconds = report.get("training", {}).get("seconds")
        provenance = result.evaluation.get("provenance") or report.get("provenance", {})
        cells = [result.method, cohort["seed"], result.evaluation["scorer"]["workdir"]]
        hashes = cohort["checkpoint_sha256"], cohort["split_sha256"], provenance.get("commit")
        checkpoint, split, commit = (found and found[:12] for found in hashes)
        cells += [cohort["corpus"], checkpoint, split]
        cells += [report.get("selected_step")]
        cells += [None if seconds is None else f"{seconds / 60:.1f}"]
        cost = result.evaluation.get("cost") or {}
        cells += [cost.get("texts_per_second"), cost.get("tokens_per_second")]
        cells += [commit]
        rows.append(["-" if cell is None else str(cell) for cell in cells])
    return tables.Table(titles, rows)


def _names(methods) -> dict[tuple, str]:
    """The title of each (method, labels): with the labels where a method has several."""
    counts = [method for method, _ in methods]
    return {
        (method, labels): f"{method}, {labels} labels" if counts.count(method) > 1 else method
        for method, labels in methods
    }


def _shown(methods: dict[tuple, list[Result]], against: str) -> dict[tuple, list[Result]]:
    """The methods with a panel: all but the baseline, unless it is alone."""
    return {key: found for key, found in methods.items() if key[0] != against} or methods


def _twin(methods: dict[tuple, list[Result]], key: tuple, against: str) -> list[Result]:
    """The baseline's results behind a method's: those of as many labels, or the only ones."""
    if key[0] == against:
        return []
    others = {labels: found for (method, labels), found in methods.items() if method == against}
    return others.get(key[1], next(iter(others.values())) if len(others) == 1 else [])


def _runs(results: list[Result]) -> list[dict]:
    return [result.run for result in results if result.run]


def _training_figures(results: list[Result], against: str) -> list[Figure]:
    methods = by_method(results)
    names, shown = _names(methods), _shown(methods, against)
    figures = []
    for title, note, draw, ending in (
        ("F1 on dev", "By step, at the threshold that is best there.", panels.dev_f1, "/f1"),
        ("Training loss", "By step; dashed: on unlabelled rows.", panels.loss, "loss/supervised"),
    ):
        stepped = {key: mine for key, mine in shown.items() if _has_steps(mine)}
        if not stepped:
            continue
        limits = panels.span(_runs([r for rs in methods.values() for r in rs]), ending)
        found = []
        for key, mine in stepped.items():
            twin = _twin(methods, key, against)

            def both(axes, draw=draw, mine=mine, twin=twin, limits=limits):
                draw(axes, _runs(twin), BASELINE)
                draw(axes, _runs(mine), METHOD)
                axes.set(ylim=limits)

            found.append((names[key], _svg(both, title, names[key])))
        figures.append(Figure(title, note, found))
    pseudo, heat = [], []
    for key, mine in methods.items():
        name, runs = names[key], _runs(mine)
        if any("pseudo/mask_rate" in row for row in runs[0]["metrics"]):
            pseudo.append(
                (name, _svg(lambda a, r=runs: panels.pseudo_labels(a, r), "pseudo", name))
            )
        for klass, word in ((1, "harmful"), (0, "safe")):
            if sum(f"pseudo/margins_{klass}" in row for row in runs[0]["metrics"]) > 1:
                title = f"{name}, {word}"
                picture = _svg(
                    lambda a, r=runs[0], k=klass: panels.margins(a, r, k), "margins", title
                )
                heat.append((title, picture))
    note = "Line: accuracy of the used ones against hidden labels. Dashed: the share masked out."
    figures.append(Figure("Pseudo-labels", note, pseudo))
    note = "Share of weak views by the margin of their pseudo-label, first seed; brighter is more."
    figures.append(Figure("Margins", note, heat))
    return [figure for figure in figures if figure.panels]


def _has_steps(results: list[Result]) -> bool:
    return any(len(run["metrics"]) > 1 for run in _runs(results))


def _test_figures(summaries: list[dict], against: str, salt: str) -> list[Figure]:
    methods = {(row["method"], row["labels"]): row["results"] for row in summaries}
    names, shown = _names(methods), _shown(methods, against)
    first = summaries[0]["results"][0]
    figures = []

    def figure(title, note, draw, **size):
        found = []
        for key, mine in shown.items():
            twin = _twin(methods, key, against)

            def both(axes, mine=mine, twin=twin):
                if twin:
                    draw(axes, twin, BASELINE)
                draw(axes, mine, METHOD)

            found.append((names[key], _svg(both, f"{salt} {title}", names[key], **size)))
        figures.append(Figure(title, note, found))

    if len({row["label"] for row in first.rows}) == 2:
        note = "Dot: the threshold. On rows of both classes."
        figure("Precision and recall", note, panels.precision_recall)
        note = "Share of harmful rows by score, in ten parts of equally many rows; dotted: ideal."
        if any(result.run and result.run["policy"] for found in shown.values() for result in found):
            note += " Orange, dashed: probabilities of the run's policy.json."
        figure("Reliability", note, panels.reliability)
    figures += _budget_figure(methods, salt)
    columns = dict.fromkeys(
        c for rs in methods.values() for c in rs[0].evaluation.get("slices", {})
    )
    for column in columns:
        found = {k: rs for k, rs in methods.items() if _has(rs, "slices", column)}
        flat = [result for part in found.values() for result in part]
        if metric := panels.slice_metric(flat, column):
            values = {k: panels.slice_values(rs, column, metric) for k, rs in found.items()}
            note = f"{tables.SHOWN.get(metric, metric)}; number of rows in brackets."
            figures.append(_bars(f"By {column}", note, values, names, shown, against, salt))
    found = {k: panels.drops(rs) for k, rs in methods.items() if _has(rs, "robustness")}
    note = "The drop of recall when harmful rows are obfuscated."
    figures.append(_bars("Robustness", note, found, names, shown, against, salt))
    return [figure for figure in figures if figure.panels]


def _has(results: list[Result], *path: str) -> bool:
    """Whether each result has a value at this path of its evaluation."""
    for result in results:
        found = result.evaluation
        for key in path:
            found = found.get(key) or {}
        if not found:
            return False
    return True


def _bars(title, note, values, names, shown, against, salt) -> Figure:
    found = []
    for key in [key for key in shown if values.get(key)]:
        twin = _twin(values, key, against) or {}

        def draw(axes, mine=values[key], twin=twin):
            panels.bars(axes, mine, twin)

        height = 0.6 + 0.24 * len(values[key])
        picture = _svg(draw, f"{salt} {title}", names[key], height=height, left=0.45)
        found.append((names[key], picture))
    return Figure(title, note, found)


def _budget_figure(methods: dict[tuple, list[Result]], salt: str) -> list[Figure]:
    budgets: dict[str, dict[int, list[Result]]] = {}
    for (method, labels), found in methods.items():
        if labels is not None and all("f1" in result.scores for result in found):
            budgets.setdefault(method, {})[labels] = found
    values = [
        result.scores["f1"]["value"]
        for by_labels in budgets.values()
        for found in by_labels.values()
        for result in found
    ]
    full = [r for found in budgets.pop(CEILING, {}).values() for r in found]
    found = []
    for method, by_labels in budgets.items():
        if len(by_labels) > 1:

            def draw(axes, by_labels=by_labels):
                ylim = min(values) - 0.02, max(values) + 0.02
                panels.budget(axes, by_labels, METHOD, ylim=ylim)
                if full:
                    panels.ceiling(axes, full)

            found.append((method, _svg(draw, f"{salt} budget", method)))
    note = f"F1 by number of labels; dashed: {CEILING}, which has all of them."
    return [Figure("Budget", note, found)] if found else []


def _svg(draw, kind: str, name: str, **size) -> Markup:
    return Markup(plots.svg(draw, salt=f"{kind} {name}", **size))
