"""Runs side by side: tables, the verdict on the unlabelled data, plots.

    python -m ssl_guard.report runs/uda runs/supervised
    python -m ssl_guard.report runs/* --out=report --against=supervised

Two runs: the first is compared with the second (its supervised twin), and both must have read the
same test rows and learned from the same labelled rows. Any number of runs: a table for each cohort,
the runs of a method on different seeds together. Either way report.md, .csv, .tex and .html, a page
with plots, are written to `--out` (RUN/report of the first run, if not given). A run's evaluations,
and its peers', are in them. A run is a folder or a record (report/records.py).
"""

from pathlib import Path

import numpy as np
from absl import flags
from tabulate import tabulate

from ssl_guard.data.schema import licence_notes
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import bootstrap, metrics
from ssl_guard.report import page, plots, tables, writers
from ssl_guard.report.results import baseline_of, by_cohort, is_run, load, named_apart, results_of
from ssl_guard.report.tables import SHOWN
from ssl_guard.runtime import cli
from ssl_guard.runtime.files import write_json


def compare(run: dict, twin: dict) -> dict:
    """Paired bootstrap of run - twin on the shared test rows, and the verdict on F1.

    "helped" if the whole 95% interval of the F1 difference lies above 0, "hurt" if below,
    "no evidence" otherwise.
    """
    for key in ("corpus_sha256", "split_sha256"):
        mine, theirs = (r["report"]["provenance"][key] for r in (run, twin))
        if mine != theirs:
            raise BadInput(
                f"{run['workdir']} and {twin['workdir']} differ in {key}: only runs on the same "
                "labelled and test rows can be compared."
            )
    labels = np.array([row["label"] for row in run["predictions"]])
    groups = np.array([row["group"] for row in run["predictions"]])
    (scores, threshold), (twin_scores, twin_threshold) = map(_verdicts, (run, twin))

    found = bootstrap.paired_differences(
        labels, groups, (scores, threshold), (twin_scores, twin_threshold)
    )
    intervals = {name: metrics.Interval(*found[name][:3]) for name in SHOWN}
    return {
        "run": str(run["workdir"]),
        "twin": str(twin["workdir"]),
        "difference": {name: interval._asdict() for name, interval in intervals.items()},
        "unlabelled_data": verdict(intervals["f1"]),
    }


def verdict(interval: metrics.Interval) -> str:
    """What the interval of a difference says."""
    if interval.low > 0:
        return "helped"
    return "hurt" if interval.high < 0 else "no evidence"


def table(run: dict, twin: dict, comparison: dict) -> str:
    """The table as GitHub Markdown."""
    rows = []
    for name, title in SHOWN.items():
        ours, theirs = tables.cell(scores_of(run)[name]), tables.cell(scores_of(twin)[name])
        rows.append([title, ours, theirs, tables.cell(comparison["difference"][name], sign="+")])
    titles = ["test, % [95% interval]", *names(run, twin), "difference"]
    return tabulate(rows, titles, tablefmt="github")


def names(run: dict, twin: dict) -> list[str]:
    """What two runs are called: by their algorithms, or by their folders if these are the same."""
    algorithms = [r["report"]["algorithm"] for r in (run, twin)]
    if len(set(algorithms)) == 2:
        return algorithms
    folders = [r["workdir"].name for r in (run, twin)]
    return folders if len(set(folders)) == 2 else [str(r["workdir"]) for r in (run, twin)]


def scores_of(run: dict) -> dict:
    """{metric: {value, low, high}} on test, of the averaged weights where there are any."""
    return run["report"]["test"][run["report"]["weights"]]


def _verdicts(run: dict) -> tuple[np.ndarray, float]:
    kind = run["report"]["weights"]
    scores = np.array([row[kind] for row in run["predictions"]])
    return scores, run["report"]["dev"][kind]["threshold"]


def summary(run: dict, twin: dict, comparison: dict) -> str:
    """What the command prints: the table, where its numbers come from, and the verdict."""
    data, machine = run["report"]["data"], run["report"]["provenance"]["machine"]
    ours, theirs = names(run, twin)
    # A run without unlabelled views has made no shards of them.
    learned_from_them = "unlabelled" in data["rows_longer_than_max_length"]
    subject = "unlabelled data" if learned_from_them else f"{ours} instead of {theirs}"
    all_labels = [
        f" ({name}: {r['report']['data']['labels_used']} labels)"
        for name, r in zip((ours, theirs), (run, twin), strict=True)
        if r["report"]["data"].get("labels_used", 0) > r["report"]["data"]["rows"]["labelled"]
    ]
    minutes = sum(r["report"]["training"]["seconds"] for r in (run, twin)) / 60
    return (
        f"{table(run, twin, comparison)}\n\n"
        f"{data['corpus']}, {data['rows']['labelled']} labelled and {data['rows']['unlabelled']} "
        f"unlabelled rows{''.join(all_labels)}; {data['rows']['test']} test rows in "
        f"{data['test_groups']} groups of near-duplicate prompts; seed {run['report']['seed']}; "
        f"{machine['cores']} cores of {machine['cpu']}, "
        f"{minutes:.1f} minutes of training for both.\n\n"
        f"{subject}: {comparison['unlabelled_data']}"
        + "".join(f"\n{line}" for line in warnings(run["report"].get("observatory", {})))
        + "".join(f"\n{line}" for line in licence_notes(data["licence"]))
    )


def warnings(found: dict) -> list[str]:
    """The observatory's findings, a line for each alarm that was up and one for the brake; none
    for a run from before there was one."""
    lines = [
        f"alarm {name}: from step {alarm['first_step']}, {alarm['steps']} steps in all"
        f"{', up at the end' if alarm['at_the_end'] else ''}"
        for name, alarm in found.get("alarms", {}).items()
    ]
    if found.get("braked_steps"):
        lines.append(f"brake: the unlabelled loss was off for {found['braked_steps']} steps")
    suspects = [row["id"] for row in found.get("suspect_labels", ())]
    if suspects:
        lines.append(f"labels to check: {', '.join(suspects[:5])}{' ...' * (len(suspects) > 5)}")
    return lines


def write(folder: Path, workdirs: list[str], *, against: str | None, published: str | None) -> str:
    """Writes report.md, .csv, .tex and .html into `folder` and returns the Markdown.

    against: the baseline's method, `results.baseline_of` if None; published: a file of
    `tables.read_published`.
    """
    found = [result for path in dict.fromkeys(workdirs) for result in results_of(path)]
    found = named_apart(found)
    names = list(dict.fromkeys(result.method for result in found))
    if against not in (None, *names):
        raise BadInput(f"no run of {against} is among those given: {', '.join(names)}.")
    against = against or baseline_of(found)
    papers = tables.read_published(published) if published else []
    parts = [(part, tables.summarise(part, against)) for part in by_cohort(found)]
    runs = {str(result.run["workdir"]): result.run for result in found if result.run}
    alarms = [
        (workdir, lines)
        for workdir, run in runs.items()
        if (lines := warnings(run["report"].get("observatory", {})))
    ]
    text = writers.to_markdown(parts, papers, against)
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
    prints its tables. Two finished runs are compared, run and twin, and drawn as pictures too."""
    if not workdirs:
        raise BadInput("usage: python -m ssl_guard.report RUN [RUN ...] [--out=FOLDER].")
    folder = Path(out or Path(workdirs[0].removesuffix(".json"), "report"))
    pair = len(workdirs) == 2 and all(map(is_run, workdirs))
    if pair:
        run, twin = map(load, workdirs)
        comparison = compare(run, twin)
        write_json(run["workdir"] / "comparison.json", comparison)
        pictures = run["workdir"] / "plots"
        plots.draw_all(pictures, dict(zip(names(run, twin), (run, twin), strict=True)))
    text = write(folder, workdirs, against=against, published=published)
    print(f"{summary(run, twin, comparison)}\nplots: {pictures}" if pair else text)
    print(f"page: {folder / 'report.html'}")


def main(argv: list[str]) -> None:
    show(argv[1:], out=OUT.value, against=AGAINST.value, published=PUBLISHED.value)


if __name__ == "__main__":
    OUT = flags.DEFINE_string("out", None, "Folder of report.md, .csv, .tex, .html (RUN/report).")
    AGAINST = flags.DEFINE_string("against", None, "The method that others are compared with.")
    PUBLISHED = flags.DEFINE_string("published", None, "JSON file of published tables, to cite.")
    cli.run(main)
