"""Draws with matplotlib: panels of a page as SVG, and the plot of a corpus as PNG."""

import io
import re
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe-Ito
STYLE: dict[Any, Any] = {
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}

# Each colour of a panel stands for a role; the page has CSS colours for it in light and dark.
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
    "text.parse_math": False,  # a name may contain a dollar sign
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}


def svg(draw: Callable, *, salt: str, height: float = 2.3, left: float = 0.18) -> str:
    """Renders draw(axes) as an SVG element for an HTML page.

    The same salt and drawing give the same bytes. Panels of one page need different salts, since
    element ids must be unique. height: inches, at a width of 3.4; left: left margin, share of the
    width. Colours become those of ROLES, and text is escaped.
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
    (view,) = re.findall(r'viewBox="[^"]*"', text)
    body = text[text.index("<defs>") : text.rindex("</svg>")]
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href=", "href=")
    for colour, role in ROLES.items():
        body = body.replace(f": {colour}", f": {role}")
    body = re.sub(r">\s+<", "><", body)
    return f'<svg role="img" {view}>{body}</svg>'


def curve(rows: list[dict], name: str) -> tuple[list[int], list[float]]:
    """Returns (steps, values) of one metric at the steps that logged it."""
    points = [(row["step"], row[name]) for row in rows if name in row]
    return [step for step, _ in points], [value for _, value in points]


def corpus(
    path: Path,
    name: str,
    labels: list[str],
    lengths: np.ndarray,
    unit: str,
    categories: dict[str, dict[str, int]],
) -> None:
    """Plots a corpus as PNG: lengths on the left, categories on the right.

    labels: harmful, safe or unlabelled, one per row; lengths: int [rows] in `unit`; categories:
    {category: {"rows", "harmful"}}, of which the first twenty are drawn.
    """
    kind_of, shown = np.array(labels), dict(list(categories.items())[:20])
    kinds = {"safe": COLOURS[0], "harmful": COLOURS[1], "unlabelled": "#888888"}
    kinds = {kind: colour for kind, colour in kinds.items() if (kind_of == kind).any()}
    with plt.rc_context(STYLE):
        if shown:
            figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(3, 2))
        else:
            figure, left = plt.subplots(figsize=(6, 4))
        # Edges lie between integers; otherwise some bins of short texts would contain no integer.
        bins = np.unique(np.geomspace(1, lengths.max() + 2, 31).round()) - 0.5
        for kind, colour in kinds.items():
            mine = lengths[kind_of == kind]
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
            right.set(xlabel="rows", title="most frequent categories")
            right.legend(loc="lower right")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)
