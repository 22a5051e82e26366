"""Runs side by side: a table, the verdict on the unlabelled data, plots.

    python -m ssl_guard.report runs/uda runs/supervised

The first run is compared with the second (its supervised twin): both must have read the same test
rows and learned from the same labelled rows. `seeds_table` is for experiments of many methods.
"""

import json
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ssl_guard import cli, metrics, plots
from ssl_guard.errors import BadInput
from ssl_guard.writer import read, write_json

SHOWN = {
    "f1": "F1 harmful",
    "auprc": "AUPRC",
    "recall_at_1_fpr": "recall at 1% FPR",
    "ece": "ECE",
}


def load(workdir: str | Path) -> dict:
    """A finished run: its report, metrics rows and test predictions."""
    workdir = Path(workdir)
    if not (workdir / "report.json").exists():
        raise BadInput(
            f"{workdir} holds no finished run (no report.json): run ssl_guard.main on it first."
        )
    lines = (workdir / "predictions.jsonl").read_text().splitlines()
    return {
        "workdir": workdir,
        "report": json.loads((workdir / "report.json").read_text()),
        "metrics": read(workdir / "metrics.jsonl"),
        "predictions": [json.loads(line) for line in lines],
    }


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

    def difference(rows):
        mine = metrics.binary_scores(labels[rows], scores[rows], threshold)
        theirs = metrics.binary_scores(labels[rows], twin_scores[rows], twin_threshold)
        return {name: mine[name] - theirs[name] for name in SHOWN}

    intervals = metrics.bootstrap(difference, groups, labels)
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
        ours, theirs = _cell(scores_of(run)[name]), _cell(scores_of(twin)[name])
        rows.append([title, ours, theirs, _cell(comparison["difference"][name], sign="+")])
    titles = ["test, % [95% interval]", *names(run, twin), "difference"]
    return tabulate(rows, titles, tablefmt="github")


def names(run: dict, twin: dict) -> list[str]:
    """What two runs are called: by their algorithms, or by their folders if these are the same."""
    algorithms = [r["report"]["algorithm"] for r in (run, twin)]
    if len(set(algorithms)) == 2:
        return algorithms
    folders = [r["workdir"].name for r in (run, twin)]
    return folders if len(set(folders)) == 2 else [str(r["workdir"]) for r in (run, twin)]


def seeds_table(methods: dict[str, list[dict]], *, twin: str) -> str:
    """Every method's mean and standard deviation over its seeds, and its gain on the twin's runs of
    the same seeds, as GitHub Markdown; best F1 first.

    methods: runs of `load` by the method's name, one a seed; twin: one of the names. The gain is
    the mean difference of F1 over seeds, with a 95% interval of a paired bootstrap over test rows:
    each resample is scored for all seeds. It is left out, as a dash, where the twin has no run of a
    seed. `better` counts the seeds with a gain, `shadow alarm` those in which dev precision fell
    below the twin's at some step: what a run knows of itself without a test label.

    Raises BadInput if the runs do not share the test rows.
    """
    by_seed = {name: {run["report"]["seed"]: run for run in runs} for name, runs in methods.items()}
    tests = {
        tuple(r["id"] for r in run["predictions"]) for runs in methods.values() for run in runs
    }
    if len(tests) > 1:
        raise BadInput("the runs of a table must have the same test rows, in the same order.")
    rows = []
    for method, runs in by_seed.items():
        values = {
            name: [100 * scores_of(run)[name]["value"] for run in runs.values()] for name in SHOWN
        }
        shown = [_mean_and_spread(values[name]) for name in SHOWN]
        twins = by_seed.get(twin, {})
        pairs = [(run, twins[seed]) for seed, run in runs.items() if seed in twins]
        gain, better = "-", "-"
        if method != twin and len(pairs) == len(runs):
            gain = _cell(_mean_gain(pairs)._asdict(), sign="+")
            better = f"{sum(_f1_gain(*pair) > 0 for pair in pairs)} of {len(pairs)}"
        alarm = _seeds_with_alarm(list(runs.values()))
        rows.append((np.mean(values["f1"]), [method, len(runs), *shown, gain, better, alarm]))
    rows = [row for _, row in sorted(rows, key=lambda row: -row[0])]
    titles = ["test, %", "seeds", *SHOWN.values(), "F1 gain [95%]", "better", "shadow alarm"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def _seeds_with_alarm(runs: list[dict]) -> str:
    """ "2 of 3", or a dash for runs without pseudo-labels, which have no alarms."""
    ups = [
        [row["alarm/shadow_precision"] for row in run["metrics"] if "alarm/shadow_precision" in row]
        for run in runs
    ]
    return f"{sum(max(up) > 0 for up in ups)} of {len(ups)}" if all(ups) else "-"


def _mean_and_spread(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def _f1_gain(run: dict, twin: dict) -> float:
    return scores_of(run)["f1"]["value"] - scores_of(twin)["f1"]["value"]


def _mean_gain(pairs: list[tuple[dict, dict]]) -> metrics.Interval:
    """The mean over seeds of F1(run) - F1(twin), bootstrapped over the shared test rows."""
    labels = np.array([row["label"] for row in pairs[0][0]["predictions"]])
    groups = np.array([row["group"] for row in pairs[0][0]["predictions"]])
    verdicts = []
    for pair in pairs:
        for run, sign in zip(pair, (1, -1), strict=True):
            scores, threshold = _verdicts(run)
            verdicts.append((scores >= threshold, sign))

    def gain(rows):
        f1 = [sign * metrics.f1(labels[rows], verdict[rows]) for verdict, sign in verdicts]
        return {"gain": sum(f1) / len(pairs)}

    return metrics.bootstrap(gain, groups, labels)["gain"]


def _cell(interval: dict, sign: str = "") -> str:
    value, low, high = (f"{100 * interval[key]:{sign}.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


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


def main(argv: list[str]) -> None:
    if len(argv) != 3:
        raise BadInput("usage: python -m ssl_guard.report RUN TWIN.")
    run, twin = load(argv[1]), load(argv[2])
    comparison = compare(run, twin)
    write_json(run["workdir"] / "comparison.json", comparison)
    plots.draw_all(run["workdir"] / "plots", dict(zip(names(run, twin), (run, twin), strict=True)))
    print(summary(run, twin, comparison))
    print(f"plots: {run['workdir'] / 'plots'}")


if __name__ == "__main__":
    cli.run(main)
