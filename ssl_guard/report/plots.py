"""The pictures of a run: learning curves, precision-recall, quality of the pseudo-labels.

Each function but `svg` and `corpus` draws runs given as {name: {"metrics": rows of metrics.jsonl,
"report": report.json, "predictions": rows of predictions.jsonl}}.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import PrecisionRecallDisplay

from ssl_guard.runtime.metrics import MARGINS

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe-Ito
STYLE = {
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}

# Colours of a panel on a page stand for roles: the page says what they are in light and in dark.
INK, METHOD, SECOND, BASELINE = "#010101", "#0072b2", "#d55e00", "#808080"
ROLES = {
    INK: "currentColor",
    METHOD: "var(--method)",
    SECOND: "var(--second)",
    BASELINE: "var(--baseline)",
}
PANEL = STYLE | {
    "figure.constrained_layout.use": False,
    "font.size": 9,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a name may hold a dollar
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}


def svg(draw: Callable, *, salt: str, height: float = 2.3, left: float = 0.18) -> str:
    """One panel, what draw(axes) draws, as an SVG element to stand inside an HTML page.

    The same salt and drawing give the same bytes; panels of one page need different salts, as ids
    of a page must differ. height: inches, for a width of 3.4; left: share left of the axes. Colours
    are those of ROLES, and text is escaped.
    """
    with plt.rc_context(PANEL | {"svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has its own fonts
        figure = Figure(figsize=(3.4, height))
        space = {"left": left, "right": 0.97, "top": 1 - 0.1 / height, "bottom": 0.45 / height}
        draw(figure.subplots(gridspec_kw=space))
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing, dpi=100)
    text = file.getvalue()
    view = re.search(r'viewBox="[^"]*"', text)[0]
    body = text[text.index("<defs>") : text.rindex("</svg>")]
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href=", "href=")
    for colour, role in ROLES.items():
        body = body.replace(f": {colour}", f": {role}")
    body = re.sub(r">\s+<", "><", body)
    return f'<svg role="img" {view}>{body}</svg>'


def draw_all(folder: Path, runs: dict[str, dict]) -> list[Path]:
    """Writes every picture as PNG into `folder` and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    figures = {
        "learning_curves": learning_curves,
        "precision_recall": precision_recall,
        "pseudo_labels": pseudo_labels,
        "margins": margins,
    }
    for name, draw in figures.items():
        with plt.rc_context(STYLE):
            figure = draw(runs)
            if figure is None:
                continue
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=150)
            plt.close(figure)
    return paths


def curve(rows: list[dict], name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of one metric, where it was logged."""
    points = [(row["step"], row[name]) for row in rows if name in row]
    return [step for step, _ in points], [value for _, value in points]


def learning_curves(runs: dict[str, dict]):
    """Losses on the left, F1 and AUPRC on dev on the right; a dot marks the chosen step."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for number, (name, run) in enumerate(runs.items()):
        colour = COLOURS[number % len(COLOURS)]
        for metric, style in {"loss/supervised": "-", "loss/unlabelled": ":"}.items():
            steps, values = curve(run["metrics"], metric)
            if steps:
                label = f"{name}, {metric.removeprefix('loss/')}"
                left.plot(steps, values, style, color=colour, label=label)
        weights, chosen = run["report"]["weights"], run["report"]["selected_step"]
        for metric, style in {"auprc": "-", "f1": "--"}.items():
            steps, values = curve(run["metrics"], f"dev/{weights}/{metric}")
            title = {"auprc": "AUPRC", "f1": "F1 harmful"}[metric]
            right.plot(steps, values, style, color=colour, label=f"{name}, {title}")
            right.plot([chosen], [dict(zip(steps, values, strict=True))[chosen]], "o", color=colour)
    left.set(xlabel="step", ylabel="loss (nats)", title="training loss", ylim=(0, None))
    right.set(xlabel="step", ylabel="score", title="dev (dot: the step that was chosen)")
    if left.lines:  # empty for baselines, which have no such losses
        left.legend()
    right.legend()
    return figure


def precision_recall(runs: dict[str, dict]):
    """Precision against recall of the harmful class on test; a dot marks the dev threshold."""
    figure, axes = plt.subplots(figsize=(5, 5))
    for number, (name, run) in enumerate(runs.items()):
        colour, weights = COLOURS[number % len(COLOURS)], run["report"]["weights"]
        labels = [row["label"] for row in run["predictions"]]
        scores = [row[weights] for row in run["predictions"]]
        test = run["report"]["test"][weights]
        PrecisionRecallDisplay.from_predictions(
            labels,
            scores,
            name=name,
            ax=axes,
            curve_kwargs={"color": colour},
            plot_chance_level=number == len(runs) - 1,
        )
        axes.plot([test["recall"]["value"]], [test["precision"]["value"]], "o", color=colour)
    axes.set(title="test (dot: threshold chosen on dev)", xlabel="recall", ylabel="precision")
    axes.legend(loc="lower left")
    return figure


def pseudo_labels(runs: dict[str, dict]):
    """Masked share, accuracy against hidden labels, class shares; None if no run has any. Grey
    where an alarm of the first run was up."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    drawn = False
    for number, (name, run) in enumerate(runs.items()):
        colour = COLOURS[number % len(COLOURS)]
        for axes, metric, style, label in (
            (left, "pseudo/mask_rate", "--", "masked share"),
            (left, "pseudo/accuracy", "-", "accuracy of used"),
            (right, "pseudo/accuracy_1", "-", "precision, harmful"),
            (right, "pseudo/accuracy_0", "--", "precision, safe"),
            (right, "pseudo/share_1", ":", "share of harmful"),
        ):
            steps, values = curve(run["metrics"], metric)
            if steps:
                drawn = True
                axes.plot(steps, values, style, color=colour, label=f"{name}, {label}")
    if not drawn:
        plt.close(figure)
        return None
    previous = 0
    for row in next(iter(runs.values()))["metrics"]:
        if any(value > 0 for name, value in row.items() if name.startswith("alarm/")):
            left.axvspan(previous, row["step"], color="#888888", alpha=0.15, lw=0)
        previous = row["step"]
    left.set(xlabel="step", title="pseudo-labels (grey: an alarm is up)", ylim=(-0.02, 1.02))
    right.set(xlabel="step", title="by class of the pseudo-label")
    left.legend()
    if right.lines:  # empty when every row was masked all the time
        right.legend()
    return figure


def margins(runs: dict[str, dict]):
    """Shares of the weak view's margins over the run, a panel for each class; None if no run has
    any. The first run that has them is drawn."""
    found = {
        name: rows
        for name, run in runs.items()
        if (rows := [row for row in run["metrics"] if "pseudo/margins_1" in row])
    }
    if not found:
        return None
    name, rows = next(iter(found.items()))
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    edges = [f"{edge:g}" for edge in MARGINS]
    for c, axis in enumerate(axes):
        mine = [row for row in rows if f"pseudo/margins_{c}" in row]
        image = axis.pcolormesh(
            [row["step"] for row in mine],
            range(len(MARGINS)),
            list(zip(*(row[f"pseudo/margins_{c}"] for row in mine), strict=True)),
            shading="nearest",
            vmin=0,
            cmap="viridis",
        )
        axis.set(xlabel="step", title=f"{name}: pseudo-label {('safe', 'harmful')[c]}")
        axis.grid(False)
    axes[0].set(ylabel="margin (nats), from", yticks=range(len(MARGINS)), yticklabels=edges)
    figure.colorbar(image, ax=axes, label="share of the class's rows")
    return figure


def corpus(
    path: Path,
    name: str,
    labels: list[str],
    lengths: np.ndarray,
    unit: str,
    categories: dict[str, dict[str, int]],
) -> None:
    """Writes what is in a corpus as PNG: lengths on the left, categories on the right.

    labels: harmful, safe or unlabelled, of every row; lengths: int [rows] in `unit`; categories:
    {category: {"rows", "harmful"}}, of which the first twenty are drawn.
    """
    labels, shown = np.array(labels), dict(list(categories.items())[:20])
    kinds = {"safe": COLOURS[0], "harmful": COLOURS[1], "unlabelled": "#888888"}
    kinds = {kind: colour for kind, colour in kinds.items() if (labels == kind).any()}
    with plt.rc_context(STYLE):
        if shown:
            figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(3, 2))
        else:
            figure, left = plt.subplots(figsize=(6, 4))
        # edges between whole numbers, so that no bin of short texts is empty for want of a length
        bins = np.unique(np.geomspace(1, lengths.max() + 2, 31).round()) - 0.5
        for kind, colour in kinds.items():
            mine = lengths[labels == kind]
            label = f"{kind}, {len(mine):,}"
            left.hist(np.maximum(mine, 1), bins, histtype="step", lw=1.5, color=colour, label=label)
        left.set(xscale="log", xlabel=unit, ylabel="rows", title=name)
        left.legend()
        if shown:
            places = np.arange(len(shown))
            rows = np.array([counts["rows"] for counts in shown.values()])
            harmful = np.array([counts["harmful"] for counts in shown.values()])
            right.barh(places, harmful, color=COLOURS[1], label="harmful")
            right.barh(places, rows - harmful, left=harmful, color="#bbbbbb", label="others")
            titles = [textwrap.shorten(category, 28, placeholder="…") for category in shown]
            right.set_yticks(places, titles, fontsize=7)
            right.set_ylim(max(len(shown), 6) - 0.4, -0.6)
            right.grid(axis="y", visible=False)
            right.set(xlabel="rows", title="commonest categories")
            right.legend(loc="lower right")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)
