"""Tables as Markdown, LaTeX and CSV. Names come from files: markup in them is escaped."""

import csv
import html
import io
import json
import re

from tabulate import LATEX_ESCAPE_RULES, tabulate

from ssl_guard.report import conclusions, tables
from ssl_guard.report.results import Result
from ssl_guard.report.tables import Published, Table

FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet reads these as a formula


def markdown(table: Table) -> str:
    """The table as GitHub Markdown, markup in its cells escaped."""
    cells = [[_markdown(c) for c in row] for row in table.rows]
    titles = [_markdown(title) for title in table.titles]
    return tabulate(cells, titles, tablefmt="github", disable_numparse=True)


def _markdown(text: str) -> str:
    text = html.escape(" ".join(text.split()), quote=False).replace("](", "]\\(")
    return re.sub(r"[\\`*|](?!\()", r"\\\g<0>", text)


def latex(table: Table, caption: str) -> str:
    """A booktabs table; needs \\usepackage{booktabs} alone."""
    cells = [[" ".join(c.split()) for c in row] for row in table.rows]
    titles = [escape_latex(title) for title in table.titles]
    body = tabulate(cells, titles, tablefmt="latex_booktabs", disable_numparse=True)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{escape_latex(caption)}}}\n{body}\n\\end{{table}}\n"
    )


def escape_latex(text: str) -> str:
    """Text with what LaTeX would read as commands escaped."""
    return "".join(LATEX_ESCAPE_RULES.get(c, c) for c in " ".join(text.split()))


def to_markdown(
    parts, published: list[Published], against: str, alarms: list[tuple[str, list[str]]] = ()
) -> str:
    """Every table of a report, then alarms, verdicts and licences; the arguments are those of
    `page.render`."""
    found = [markdown(tables.overview(parts))] if len(parts) > 1 else []
    for results, summaries in parts:
        found += [_markdown(tables.cohort_line(results[0]))]
        found += [markdown(tables.summary_table(summaries, against))]
        found += [_markdown(facts)] if (facts := conclusions.training_facts(results)) else []
        found += [_markdown(note)] if (note := tables.reads_note(summaries)) else []
        for title, table in {
            "Differences": tables.differences_table(summaries),
            "Contamination": tables.contamination_table(summaries),
            "Calibration error, %": tables.calibration_table(results),
        }.items():
            found += [f"{title}:", markdown(table)] if table.rows else []
    if policies := policies_of(parts):
        found += ["Operating points:", markdown(tables.policy_table(policies))]
        for name, policy in policies.items():
            lines = tables.review(policy), tables.policy_facts(policy)
            found += [_markdown(f"{name}: {line}") for line in lines]
    if alarms:
        lines = [_markdown(f"{name}: {'; '.join(lines)}") for name, lines in alarms]
        found += ["Alarms and labels to check:", "\n".join(f"- {line}" for line in lines)]
    for paper in published:
        found += [_markdown(f"{paper.title}, {paper.metric}: {paper.source}")]
        found += [markdown(paper.table), *map(_markdown, paper.caveats)]
    found += [_markdown(line) for part in parts for line in conclusions.sentences(*part, against)]
    found += [_markdown(line) for line in conclusions.licences(all_results(parts))]
    return "\n\n".join(found) + "\n"


def all_results(parts) -> list[Result]:
    """The results of every cohort."""
    return [result for results, _ in parts for result in results]


def policies_of(parts) -> dict[str, dict]:
    """The policy.json of every run that has one, by the run's folder."""
    runs = {str(r.run["workdir"]): r.run for r in all_results(parts) if r.run}
    return {name: run["policy"] for name, run in runs.items() if run["policy"]}


def to_latex(parts, published: list[Published], against: str) -> str:
    """The summaries and the published tables as booktabs tables."""
    found = [
        latex(tables.summary_table(summaries, against), tables.cohort_line(results[0]))
        for results, summaries in parts
    ]
    for paper in published:
        caption = f"As published, not re-run: {paper.title}, {paper.metric}. {paper.source}"
        found.append(latex(paper.table, caption))
    return "\n".join(found)


def to_csv(parts: list[tuple[list[Result], list[dict]]]) -> str:
    """One number a line, with its interval and all of its cohort.

    parts: the results of a cohort and their `summarise`. `statistic` is score, slice, robustness or
    gain; `of` is the slice or the operation. A missing value is a dash, and no cell a formula.
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
    """Every number of a result as the cells that differ from line to line."""
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
    keys = ("corpus", "corpus_sha256", "rows_sha256", "rows", "harmful", "task", "label_map")
    keys += ("split", "split_sha256", "threshold_policy", "checkpoint_sha256", "seed")
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
    """A name that a spreadsheet would take for a formula gets an apostrophe in front."""
    if isinstance(value, str) and value != "-" and value.startswith(FORMULAS):
        return f"'{value}"
    return "-" if value is None else value
