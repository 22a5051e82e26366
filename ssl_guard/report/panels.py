"""Draws the panels of a report, one method on the given axes each.

The page draws the baseline in grey behind each method. Several seeds are drawn as their mean with
a band from the smallest to the largest value.
"""

from collections.abc import Collection

import numpy as np
from sklearn.metrics import precision_recall_curve

from ssl_guard.report import comparison, tables
from ssl_guard.report.plots import BASELINE, INK, METHOD, SECOND, curve
from ssl_guard.report.results import Result
from ssl_guard.runtime.metrics import MARGINS

RECALLS = np.linspace(0, 1, 101)
BINS = 10
SHOWN_SLICES = 16


def band(axes, x, series: list, colour: str, style: str = "-") -> None:
    """Draws the mean and the range over seeds; series: one value for each x per seed."""
    values = np.array(series, float)
    axes.plot(x, values.mean(0), style, color=colour, marker="o" if len(x) == 1 else None, lw=1.4)
    if len(values) > 1:
        axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)


def steps(axes, runs: list[dict], metric, colour: str, style: str = "-") -> None:
    """Draws a metric of metrics.jsonl at the steps that all runs have.

    metric: its name, or a function from run to name.
    """
    name = metric if callable(metric) else lambda run: metric
    found = [dict(zip(*curve(run["metrics"], name(run)), strict=True)) for run in runs]
    shared = sorted(set.intersection(*(set(points) for points in found))) if found else []
    if shared:
        band(axes, shared, [[points[s] for s in shared] for points in found], colour, style)


def forest(axes, gains: list[tuple[str, dict]], limits: tuple[float, float]) -> None:
    """Draws gains with 95% intervals, in points; the dots of "no evidence" are hollow.

    gains: (name, gain of `comparison.summarise`), from the top; limits: of the x axis, equal for
    all panels of a figure.
    """
    axes.axvline(0, color=INK, lw=1)
    for place, (_, gain) in enumerate(gains):
        low, value, high = (100 * gain[key] for key in ("low", "value", "high"))
        axes.plot([low, high], [place, place], color=METHOD, lw=1.6)
        sure = comparison.verdict(gain) != "no evidence"
        axes.plot(
            [value], [place], "o", color=METHOD, ms=6, fillstyle="full" if sure else "none", mew=1.4
        )
    axes.set_yticks(range(len(gains)), [_short(name) for name, _ in gains])
    axes.set(ylim=(len(gains) - 0.5, -0.5), xlim=limits, xlabel="gain, points")
    axes.locator_params(axis="x", nbins=5)
    axes.grid(False, axis="y")


def dev_f1(axes, runs: list[dict], colour: str) -> None:
    """Draws F1 on dev by step."""
    axes.set(xlabel="step", ylabel="F1 on dev")
    steps(axes, runs, lambda run: f"dev/{run['report']['weights']}/f1", colour)


def loss(axes, runs: list[dict], colour: str) -> None:
    """Draws the training loss by step; dashed: on unlabelled rows."""
    axes.set(xlabel="step", ylabel="loss (nats)")
    steps(axes, runs, "loss/supervised", colour)
    steps(axes, runs, "loss/unlabelled", colour, "--")


def span(runs: list[dict], ending: str) -> tuple[float, float]:
    """Computes axis limits for all values of the metrics with this suffix."""
    values = [
        value
        for run in runs
        for row in run["metrics"]
        for name, value in row.items()
        if name.endswith(ending)
    ]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.1  # a constant series still needs an axis
    return low - margin, high + margin


def pseudo_labels(axes, runs: list[dict]) -> None:
    """Draws the accuracy of the selected pseudo-labels and the masked share of rows, by step."""
    axes.set(xlabel="step", ylabel="share", ylim=(-0.02, 1.02))
    steps(axes, runs, "pseudo/mask_rate", SECOND, "--")
    steps(axes, runs, "pseudo/accuracy", METHOD)


def margins(axes, run: dict, klass: int) -> None:
    """Draws the histogram of the weak view's margins by step; brighter is a larger share."""
    name = f"pseudo/margins_{klass}"
    times, shares = curve(run["metrics"], name)
    axes.pcolormesh(
        times, range(len(MARGINS)), np.array(shares).T, vmin=0, cmap="viridis", rasterized=True
    )
    ticks = range(0, len(MARGINS), 2)
    axes.set(xlabel="step", ylabel="margin (nats), from", yticks=ticks)
    axes.set_yticklabels([f"{MARGINS[i]:g}" for i in ticks])
    axes.grid(False)


def precision_recall(axes, results: list[Result], colour: str) -> None:
    """Draws precision by recall, and a dot at the threshold."""
    curves = []
    for result in results:
        precision, recall, _ = precision_recall_curve(result.truth, result.probabilities)
        # Recall falls from 1 to 0: take the last index at or above each point of the grid.
        curves.append(precision[len(recall) - 1 - np.searchsorted(recall[::-1], RECALLS)])
    band(axes, RECALLS, curves, colour)
    dot = [
        np.mean([result.scores[name]["value"] for result in results])
        for name in ("recall", "precision")
    ]
    axes.plot(*([value] for value in dot), "o", color=colour, ms=5)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))


def reliability(axes, results: list[Result], colour: str) -> None:
    """Draws the harmful share by mean score, in bins of equally many rows; dashed: calibrated.

    Calibrated scores are drawn if all runs have them, and not for the baseline.
    """
    axes.plot([0, 1], [0, 1], ":", color=INK, alpha=0.5, lw=1)
    _reliability(axes, results, [result.probabilities for result in results], colour, "-")
    after = [tables.calibrated(result) for result in results]
    if colour == METHOD and all(scores is not None for scores in after):
        _reliability(axes, results, after, SECOND, "--")
    axes.set(xlabel="score", ylabel="harmful share", xlim=(0, 1), ylim=(0, 1))


def _reliability(axes, results: list[Result], scores_of: list, colour: str, style: str) -> None:
    parts = []
    for result, scores in zip(results, scores_of, strict=True):
        bins = np.array_split(np.argsort(scores, kind="stable"), min(BINS, len(scores)))
        parts.append([(scores[rows].mean(), result.truth[rows].mean()) for rows in bins])
    score, share = np.moveaxis(np.array(parts), 2, 0)
    band(axes, score.mean(0), share, colour, style)


def budget(axes, by_labels: dict[int, list[Result]], name: str, colour: str) -> None:
    """Draws a metric by number of labels, in percent."""
    labels = sorted(by_labels)
    values = [[100 * r.scores[name]["value"] for r in by_labels[n]] for n in labels]
    axes.plot(labels, [np.mean(v) for v in values], "o-", color=colour, ms=4, lw=1.4)
    axes.fill_between(
        labels, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.2, lw=0
    )
    axes.set(xlabel="labels", ylabel="on test, %")


def reading(axes, labels: int, value: float, needed: float) -> None:
    """Draws a line from a point to the number of labels that the baseline needs, if it is known."""
    if 0 < needed < np.inf:
        axes.plot([labels, needed], [100 * value] * 2, ":", color=INK, lw=1.4)


def label_axis(axes, labels: Collection[int]) -> None:
    """Sets the axis of the labels, a logarithmic one with a tick at each budget."""
    axes.set(xscale="log")
    axes.locator_params(axis="y", nbins=4)  # longer tick labels would hide the axis label
    axes.set_xticks(sorted(labels), [str(n) for n in sorted(labels)], minor=False)
    axes.minorticks_off()


def ceiling(axes, results: list[Result], name: str) -> None:
    """Draws a metric of the fully supervised runs as a horizontal line."""
    value = np.mean([r.scores[name]["value"] for r in results])
    axes.axhline(100 * value, color=INK, ls="--", lw=1)


def slice_metric(results: list[Result], column: str) -> str | None:
    """Selects the metric that most values of a column have; None without any."""
    slices = [found for r in results for found in r.evaluation["slices"][column].values()]
    names = ("f1", "recall", "fpr", "accuracy")
    counts = {name: sum(found.get(name) is not None for found in slices) for name in names}
    best = max(names, key=lambda name: counts[name])
    return best if counts[best] else None


def bars(axes, values: dict[str, list[float]], baseline: dict[str, list[float]]) -> None:
    """Draws a bar of the mean and a line of the range for each name; grey marks: the baseline."""
    names = list(values)[::-1]
    for place, name in enumerate(names):
        mean = np.mean(values[name])
        axes.barh(place, mean, color=METHOD, height=0.6, alpha=0.8)
        if len(values[name]) > 1:
            axes.plot([min(values[name]), max(values[name])], [place, place], color=INK, lw=1)
        if baseline.get(name):
            x = np.mean(baseline[name])
            axes.plot([x, x], [place - 0.4, place + 0.4], color=BASELINE, lw=3)
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.grid(False, axis="y")


def slice_values(results: list[Result], column: str, metric: str) -> dict[str, list[float]]:
    """Returns {value (rows): metric of each seed} for the values with the most rows."""
    found: dict[str, list[float]] = {}
    rows: dict[str, int] = {}
    for result in results:
        for value, scores in result.evaluation["slices"][column].items():
            if scores.get(metric) is not None:
                rows[value] = scores["rows"]
                found.setdefault(value, []).append(scores[metric])
    largest = sorted(found, key=lambda value: -rows[value])[:SHOWN_SLICES]
    kept = [value for value in found if value in largest]
    return {f"{value} ({rows[value]})": found[value] for value in kept}


def drops(results: list[Result]) -> dict[str, list[float]]:
    """Returns {operation: drop of recall of each seed}."""
    found: dict[str, list[float]] = {}
    for result in results:
        for operation, scores in result.evaluation["robustness"].items():
            found.setdefault(operation, []).append(scores["drop"])
    return found


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:11]}…{name[-10:]}"
