"""Report of runs side by side: tables, the verdict on the unlabelled data, a page with plots.

    python -m ssl_guard report runs/uda runs/supervised
    python -m ssl_guard report runs/* --out=report --against=supervised

Results with the same test rows share a table, and the seeds of a method share a line. With two
methods, the first is compared with the second. The report has the evaluations of a run and of its
peers too. Its files are report.md, .csv, .tex and .html in `--out` (default: RUN/report of the
first run). A run is a folder or a record (report/records.py).
"""

from pathlib import Path

from absl import flags

from ssl_guard.errors import BadInput
from ssl_guard.report import conclusions, page, tables, writers
from ssl_guard.report.results import baseline_of, by_cohort, named_apart, results_of
from ssl_guard.runtime import cli


def write(folder: Path, workdirs: list[str], *, against: str | None, published: str | None) -> str:
    """Writes report.md, .csv, .tex and .html into `folder` and returns the Markdown.

    against: the baseline's method, `results.baseline_of` if None; published: a file of
    `tables.read_published`.

    Raises BadInput for a folder without results, and for a baseline that no run has.
    """
    found = [result for path in dict.fromkeys(workdirs) for result in results_of(path)]
    found = named_apart(found)
    names = list(dict.fromkeys(result.method for result in found))
    if against not in (None, *names):
        raise BadInput(f"no run of {against} is among those given: {', '.join(names)}.")
    against = against or baseline_of(found)
    papers = tables.read_published(published) if published else []
    parts = [(part, tables.summarise(part, against)) for part in by_cohort(found)]
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


def show(
    workdirs: list[str],
    *,
    out: str | None = None,
    against: str | None = None,
    published: str | None = None,
) -> None:
    """Writes the report of these runs into `out`, or `report/` in the first run's folder, and
    prints its Markdown, which ends with the verdict."""
    if not workdirs:
        raise BadInput("usage: python -m ssl_guard report RUN [RUN ...] [--out=FOLDER].")
    folder = Path(out or Path(workdirs[0].removesuffix(".json"), "report"))
    print(write(folder, workdirs, against=against, published=published))
    print(f"page: {folder / 'report.html'}")


def main(argv: list[str]) -> None:
    show(argv[1:], out=OUT.value, against=AGAINST.value, published=PUBLISHED.value)


if __name__ == "__main__":
    OUT = flags.DEFINE_string("out", None, "Folder of report.md, .csv, .tex, .html (RUN/report).")
    AGAINST = flags.DEFINE_string("against", None, "The method that others are compared with.")
    PUBLISHED = flags.DEFINE_string("published", None, "JSON file of published tables, to cite.")
    cli.run(main)
