"""Writes the report of several runs as Markdown, CSV, LaTeX and HTML."""

from pathlib import Path

from ssl_guard.errors import BadInput
from ssl_guard.report import comparison, conclusions, page, tables, writers
from ssl_guard.report.results import baseline_of, by_cohort, named_apart, results_of
from ssl_guard.runtime.files import check_folder


def write(folder: Path, workdirs: list[str], *, against: str | None, published: str | None) -> str:
    """Writes report.md, .csv, .tex and .html into `folder` and returns the Markdown.

    against: the baseline's method, `results.baseline_of` if None; published: a file of
    `tables.read_published`.

    Raises BadInput for a folder without results, and for a baseline that no run has.
    """
    check_folder(folder, "--out")
    found = [result for path in dict.fromkeys(workdirs) for result in results_of(path)]
    found = named_apart(found)
    names = list(dict.fromkeys(result.method for result in found))
    if against not in (None, *names):
        raise BadInput(f"no run of {against} is among those given: {', '.join(names)}.")
    against = against or baseline_of(found)
    papers = tables.read_published(published) if published else []
    parts = [(part, comparison.summarise(part, against)) for part in by_cohort(found)]
    alarms = conclusions.alarms_of(found)
    text = writers.to_markdown(parts, papers, against, alarms)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {
        "report.md": text,
        "report.csv": writers.to_csv(parts),
        "report.tex": writers.to_latex(parts, papers, against),
        "report.html": page.render(parts, against=against, alarms=alarms, published=papers),
    }.items():
        (folder / name).write_text(content, encoding="utf-8")
    return text
