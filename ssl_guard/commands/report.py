"""Compares runs in tables and on a page, with a verdict on the unlabelled data.

    python -m ssl_guard report runs/uda runs/supervised
    python -m ssl_guard report runs/* --out=report --against=supervised

Results on the same test rows share a table, and the seeds of a method share a line. Of two methods,
the first is compared with the second. The evaluations of a run and of external classifiers are
included. Writes report.md, .csv, .tex and .html. A run is a folder or a record of experiments/.
"""

from pathlib import Path

from absl import flags

from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli


def main(argv: list[str]) -> None:
    show(argv[1:], out=OUT.value, against=AGAINST.value, published=PUBLISHED.value)


def show(
    workdirs: list[str],
    *,
    out: str | None = None,
    against: str | None = None,
    published: str | None = None,
) -> None:
    """Writes the report of these runs and prints its Markdown. The arguments are the flags."""
    if not workdirs:
        raise BadInput("usage: python -m ssl_guard report RUN [RUN ...] [--out=FOLDER].")
    from ssl_guard.report import build

    folder = Path(out or Path(workdirs[0].removesuffix(".json"), "report"))
    print(build.write(folder, workdirs, against=against, published=published))
    print(f"page: {folder / 'report.html'}")


if __name__ == "__main__":
    OUT = flags.DEFINE_string("out", None, "Folder of the report (default: RUN/report).")
    AGAINST = flags.DEFINE_string("against", None, "The method that others are compared with.")
    PUBLISHED = flags.DEFINE_string("published", None, "JSON file of published tables, to cite.")
    cli.run(main, words="RUN [RUN ...]")
