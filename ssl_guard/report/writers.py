"""Writes reports as Markdown, LaTeX and CSV, with markup in names escaped."""

import csv
import html
import io
import json
import re
from collections.abc import Sequence

from tabulate import LATEX_ESCAPE_RULES, tabulate

from ssl_guard.report import conclusions, tables
from ssl_guard.report.results import Result
from ssl_guard.report.tables import Published, Table

MARKUP = re.compile(r"&(?=#?\w+;)|<(?=[a-zA-Z/!?])|^>")  # entities, tags, and a quotation
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # first characters of spreadsheet formulas


def markdown(table: Table) -> str:
    """Formats a table as GitHub Markdown, with markup in its cells escaped."""
    cells = [[_markdown(c) for c in row] for row in table.rows]
    titles = [_markdown(title) for title in table.titles]
    return tabulate(cells, titles, tablefmt="github", disable_numparse=True)


def _markdown(text: str) -> str:
    # Only what is markup in HTML, so that "score >= 0.5" reads well in a terminal too.
    text = MARKUP.sub(lambda found: html.escape(found[0]), " ".join(text.split()))
    text = text.replace("](", "]\\(")
    return re.sub(r"[\\`*|](?!\()", r"\\\g<0>", text)


def latex(table: Table, caption: str) -> str:
    """Formats a table for LaTeX; it needs only \\usepackage{booktabs}."""
    cells = [[" ".join(c.split()) for c in row] for row in table.rows]
    titles = [escape_latex(title) for title in table.titles]
    body = tabulate(cells, titles, tablefmt="latex_booktabs", disable_numparse=True)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{escape_latex(caption)}}}\n{body}\n\\end{{table}}\n"
    )


def escape_latex(text: str) -> str:
    """Escapes characters that are special in LaTeX."""
    return "".join(LATEX_ESCAPE_RULES.get(c, c) for c in " ".join(text.split()))


def to_markdown(
    parts, published: list[Published], against: str, alarms: Sequence[tuple[str, list[str]]] = ()
) -> str:
    """Writes every table of a report, then alarms, verdicts and licences.

    The arguments are those of `page.render`.
    """
    found = [markdown(tables.overview(parts))] if len(parts) > 1 else []
    for results, summaries in parts:
        found += [_markdown(tables.cohort_line(results[0]))]
        found += [markdown(tables.summary_table(summaries, against))]
        notes = conclusions.training_facts(results), tables.reads_note(summaries)
        found += [_markdown(note) for note in notes if note]
        for title, table in {
            f"Differences to {against}": tables.ladder_table(summaries),
            f"Labels with which {against} has the same score": tables.worth_table(summaries),
            "Contamination": tables.contamination_table(summaries),
            "Calibration error, %": tables.calibration_table(results),
        }.items():
            found += [_markdown(f"{title}:"), markdown(table)] if table.rows else []
    if policies := policies_of(parts):
        found += ["Operating points:", markdown(tables.policy_table(policies))]
        for name, policy in policies.items():
            found += [_markdown(f"{name}: {line}") for line in tables.policy_lines(policy)]
    if alarms:
        items = [_markdown(f"{name}: {'; '.join(lines)}") for name, lines in alarms]
        found += ["Alarms and labels to check:", "\n".join(f"- {item}" for item in items)]
    for paper in published:
        found += [_markdown(f"{paper.title}, {paper.metric}: {paper.source}")]
        found += [markdown(paper.table), *map(_markdown, paper.caveats)]
    for results, summaries in parts:
        found += map(_markdown, conclusions.sentences(results, summaries, against))
    found += [_markdown(line) for line in conclusions.licences(all_results(parts))]
    return "\n\n".join(found) + "\n"


def all_results(parts) -> list[Result]:
    """Returns the results of all cohorts."""
    return [result for results, _ in parts for result in results]


def policies_of(parts) -> dict[str, dict]:
    """Returns the policy.json of every run with one, by the run's folder."""
    runs = {str(r.run["workdir"]): r.run for r in all_results(parts) if r.run}
    return {name: run["policy"] for name, run in runs.items() if run["policy"]}


def to_latex(parts, published: list[Published], against: str) -> str:
    """Writes the summaries and the published tables as booktabs tables."""
    found = [
        latex(tables.summary_table(summaries, against), tables.cohort_line(results[0]))
        for results, summaries in parts
    ]
    for paper in published:
        caption = f"As published, not re-run: {paper.title}, {paper.metric}. {paper.source}"
        found.append(latex(paper.table, caption))
    return "\n".join(found)


def to_csv(parts: list[tuple[list[Result], list[dict]]]) -> str:
    """Writes one number per line, with its interval and its cohort.

    parts: the results of a cohort and their `comparison.summarise`. Column `statistic` is score,
    slice, robustness or gain; `of` is the slice or operation. A missing value is a dash.
    """
    columns = [
        *("statistic", "method", "labels", "workdir", "weights", "of", "metric"),
        *("value", "low", "high"),
        *("corpus", "corpus_sha256", "rows_sha256", "rows", "harmful", "task", "label_map"),
        *("split", "split_sha256", "threshold_policy", "threshold", "checkpoint_sha256", "seed"),
    ]
    file = io.StringIO()
    out = csv.DictWriter(file, columns, restval="-")
    out.writeheader()
    for results, summaries in parts:
        for result in results:
            for line in _numbers(result):
                out.writerow(_csv_line(result, line))
        for row in summaries:
            for metric, gain in row["gains"].items():
                gain = {key: gain[key] for key in ("value", "low", "high")}
                line = {"statistic": "gain", "metric": metric, "weights": "-", **gain}
                several = {"workdir": "-", "seed": len(row["results"]), "threshold": "-"}
                several |= {"split": "-", "split_sha256": "-", "checkpoint_sha256": "-"}
                out.writerow(_csv_line(row["results"][0], line) | several)
    return file.getvalue()


def _numbers(result: Result):
    """Yields the cells of every number of a result that differ between lines."""
    evaluation, reported = result.evaluation, result.cohort["weights"]
    for kind, scores in evaluation["scores"].items():
        for metric, score in scores.items():
            yield {"statistic": "score", "weights": kind, "metric": metric, **score}
    for column, values in evaluation.get("slices", {}).items():
        for value, scores in values.items():
            for metric, score in scores.items():
                line = {"of": f"{column}={value}", "metric": metric, "value": score}
                yield {"statistic": "slice", "weights": reported, **line}
    for operation, found in evaluation.get("robustness", {}).items():
        line = {"statistic": "robustness", "weights": reported, "of": operation}
        yield {**line, "metric": "recall", "value": found["recall"]}
        low, high = found.get("low"), found.get("high")
        yield {**line, "metric": "drop", "value": found["drop"], "low": low, "high": high}


def _csv_line(result: Result, line: dict) -> dict:
    cohort, kind = result.cohort, line["weights"]
    keys = ["corpus", "corpus_sha256", "rows_sha256", "rows", "harmful", "task", "label_map"]
    keys += ["split", "split_sha256", "threshold_policy", "checkpoint_sha256", "seed"]
    cells = {
        "method": result.method,
        "labels": result.labels,
        "workdir": result.evaluation["scorer"]["workdir"],
        "threshold": cohort["threshold"].get(kind),
        **{key: cohort.get(key) for key in keys},
        **line,
    }
    if isinstance(cells["label_map"], dict):
        cells["label_map"] = json.dumps(cells["label_map"], sort_keys=True)
    return {key: _safe(value) for key, value in cells.items()}


def _safe(value):
    """Prefixes an apostrophe to text that a spreadsheet would run as a formula."""
    if isinstance(value, str) and value != "-" and value.startswith(FORMULAS):
        return f"'{value}"
    return "-" if value is None else value
