"""Raises alarms on pseudo-labels, can disable the unlabelled loss, and reports both.

Alarms are pure functions of the rows of metrics.jsonl, so that a resumed run raises the alarms of
an uninterrupted one.

    nothing_selected    no pseudo-label was used for `idle_steps` steps
    one_class           KL(shares of the pseudo-labels || classes of the labelled rows) > `max_kl`:
                        one class crowds out the others, or the class shares of the pool differ
                        from those of the labelled rows
    shadow_precision    precision on the most confident dev rows, the same share of dev as the run
                        uses of its pool, is more than a standard error below that of the supervised
                        baseline run at the same step; without a baseline run: below guessing
    repeated_views      more than MAX_REPEATED of the strong views repeat another row's view: an
                        augmentation that returns a constant, such as a refusal
"""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from ssl_guard.errors import BadInput, given_as
from ssl_guard.evaluation import records_io
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.steps.state import TrainState, Watch

ALARMS = ("nothing_selected", "one_class", "shadow_precision", "repeated_views")
COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the shadow curve
MAX_REPEATED = 0.1  # share of the strong views
LISTED = 20  # longest list of ids in the report


def judge(
    state: TrainState, rows: list[dict], *, prior: np.ndarray, brake: bool, **thresholds
) -> tuple[TrainState, dict]:
    """Returns the state with `watch.brake` set, and metrics to add to the last row.

    The metrics are the alarms as 0 or 1, pseudo/kl_to_prior and, with `brake`, the brake under
    which the steps of the row ran. The brake is on for the next steps if an alarm is up.
    prior, thresholds: see `alarms`.
    """
    up = alarms(rows, prior=prior, **thresholds)
    divergence = prior_divergence(rows[-1], prior)
    found = {} if divergence is None else {"pseudo/kl_to_prior": divergence}
    found |= {f"alarm/{name}": float(value) for name, value in up.items()}
    if brake:
        old = state.watch.brake
        found["brake"] = float(old)
        new = jax.device_put(np.float32(any(up.values())), old.sharding)
        state = state._replace(watch=state.watch._replace(brake=new))
    return state, found


def prior_of(labels: np.ndarray) -> np.ndarray:
    """Shares of the classes, float64 [2], in labels, int [rows]."""
    return np.bincount(labels, minlength=2) / len(labels)


def prior_divergence(row: dict, prior: np.ndarray) -> float | None:
    """Returns KL(shares of the used pseudo-labels || prior) in nats; None where none was used.

    prior: classes of the labelled rows, float [classes], none of them 0.
    """
    shares = np.array([row.get(f"pseudo/share_{c}", np.nan) for c in range(len(prior))])
    if np.isnan(shares).any():
        return None
    return float(np.sum(shares * np.log(np.where(shares > 0, shares, 1.0) / prior)))


def precision_at(
    labels: np.ndarray, scores: np.ndarray, coverage: float
) -> tuple[float, int] | None:
    """Returns the precision of the most confident predictions and their number; None for none.

    labels: int [rows] in {0, 1}; scores: harmful probability [rows]. Counts the
    round(coverage * rows) scores farthest from 0.5; the first rows win ties.
    """
    count = round(coverage * len(labels))
    if count == 0:
        return None
    chosen = np.argsort(-np.abs(scores - 0.5), kind="stable")[:count]
    return float(((scores[chosen] > 0.5) == (labels[chosen] == 1)).mean()), count


def shadow(
    row: dict,
    step: int,
    *,
    labels: np.ndarray,
    scores: np.ndarray,
    twin: dict[int, list[float]] | None,
) -> dict[str, float | list[float]]:
    """Returns the precision on dev at the run's coverage, and the reference for the alarm.

    row: metrics since the last evaluation; only pseudo/mask_rate is read. labels, scores: of dev.
    twin: the baseline run's curves by step. `curve` is the precision at each of COVERAGES. The
    other keys exist for runs that use pseudo-labels: `reference` is the baseline's precision at the
    same step and coverage (interpolated) less a standard error of this run's precision, or the
    share of the larger class if the baseline has no evaluation up to this step.
    """
    least = 1 / len(labels)
    points = [precision_at(labels, scores, max(c, least)) for c in COVERAGES]
    found: dict[str, float | list[float]] = {"shadow/curve": [p[0] for p in points if p]}
    coverage = 1 - row.get("pseudo/mask_rate", 1.0)
    used = precision_at(labels, scores, coverage)
    if used is None:
        return found
    precision, count = used
    curves = {s: curve for s, curve in (twin or {}).items() if s <= step}
    if curves:
        theirs = np.interp(coverage, COVERAGES, curves[max(curves)])
        reference = theirs - (precision * (1 - precision) / count) ** 0.5
    else:
        reference = max(labels.mean(), 1 - labels.mean())
    return found | {
        "shadow/precision": precision,
        "shadow/reference": float(reference),
        "shadow/rows": count,
    }


def alarms(
    rows: list[dict],
    *,
    prior: np.ndarray,
    repeated: float,
    idle_steps: int,
    window_steps: int,
    max_kl: float,
) -> dict[str, bool]:
    """Returns {alarm: up or not} after the last of `rows`, the metrics of the run so far.

    Returns {} for rows without pseudo-labels. one_class counts the last `window_steps` steps and
    needs at least 20 pseudo-labels in them.
    prior: shares of the classes of the labelled rows, float [classes]; repeated: share of the
    strong views that repeat another row's view.
    """
    before = dict(zip((row["step"] for row in rows), (0, *(r["step"] for r in rows)), strict=False))
    rows = [row for row in rows if "pseudo/mask_rate" in row]
    if not rows:
        return {}
    now = rows[-1]["step"]
    used = {row["step"]: row["pseudo/used"] * (row["step"] - before[row["step"]]) for row in rows}

    last = max((step for step, count in used.items() if count > 0), default=before[rows[0]["step"]])
    window = [row for row in rows if before[row["step"]] >= now - window_steps] or rows[-1:]
    total = sum(used[row["step"]] for row in window)
    shares = {
        name: sum(used[row["step"]] * row.get(name, 0.0) for row in window) / max(total, 1.0)
        for name in (f"pseudo/share_{c}" for c in range(len(prior)))
    }
    divergence = prior_divergence(shares, prior)
    shadows = [row for row in rows if "shadow/precision" in row]
    return {
        "nothing_selected": now - last >= idle_steps,
        "one_class": total >= 20 and divergence is not None and divergence > max_kl,
        "shadow_precision": bool(shadows)
        and shadows[-1]["shadow/precision"] < shadows[-1]["shadow/reference"],
        "repeated_views": repeated > MAX_REPEATED,
    }


def history(rows: list[dict]) -> dict:
    """Summarises the alarms that were ever up (first step, number of steps, up at the end or not)
    and the number of steps with the brake on."""
    lengths = np.diff([0, *(row["step"] for row in rows)])
    raised = {}
    for name in ALARMS:
        up = np.array([row.get(f"alarm/{name}", 0.0) > 0 for row in rows], bool)
        if up.any():
            raised[name] = {
                "first_step": rows[int(up.argmax())]["step"],
                "steps": int(lengths[up].sum()),
                "at_the_end": bool(up[-1]),
            }
    braked = sum(int(n) for n, row in zip(lengths, rows, strict=True) if row.get("brake", 0) > 0)
    return {"alarms": raised, "braked_steps": braked}


def suspect_labels(
    margin_sum: np.ndarray, visits: np.ndarray, limit: int = LISTED
) -> list[tuple[int, float]]:
    """Returns (labelled row, mean margin of its label) of the lowest negative means, ascending."""
    mean = margin_sum / np.maximum(visits, 1)
    worst = np.argsort(mean, kind="stable")[:limit]
    return [(int(i), float(mean[i])) for i in worst if visits[i] > 0 and mean[i] < 0]


def most_uncertain(scores: np.ndarray, limit: int = LISTED) -> list[tuple[int, float]]:
    """Returns (row, harmful probability) of the scores nearest 0.5: rows to label next by margin
    sampling (Scheffer et al. 2001)."""
    nearest = np.argsort(np.abs(scores - 0.5), kind="stable")[:limit]
    return [(int(i), float(scores[i])) for i in nearest]


def account(
    rows: list[dict],
    watch: Watch,
    labelled,
    pool,
    score: Callable,
    *,
    seed: int,
    scored_rows: int,
) -> dict:
    """Returns `history` and ids of rows to look at, for the report.

    suspect_labels: labelled rows whose margins contradict their label; label_next: the most
    uncertain of `scored_rows` random unlabelled rows.
    rows: of metrics; watch: of the selected state; labelled, pool (or None): records;
    score(records) -> harmful probability [rows].
    """
    found = history(rows)
    suspects = suspect_labels(jax.device_get(watch.margin_sum), jax.device_get(watch.visits))
    rows = labelled.gather([row for row, _ in suspects])
    found["suspect_labels"] = [
        {"id": row["id"], "label": int(row["label"]), "mean_margin": round(margin, 3)}
        for row, (_, margin) in zip(rows, suspects, strict=True)
    ]
    if pool is not None and scored_rows > 0:
        chosen = np.arange(len(pool))
        if len(pool) > scored_rows:
            chosen = np.random.default_rng(seed).choice(len(pool), scored_rows, replace=False)
        nearest = most_uncertain(score(pool.subset(chosen)))
        rows = pool.gather(chosen[[row for row, _ in nearest]])
        found["label_next"] = [
            {"id": row["id"], "score": round(value, 4)}
            for row, (_, value) in zip(rows, nearest, strict=True)
        ]
    return found


def twin_curves(twin: str, split_sha256: str) -> dict[int, list[float]] | None:
    """Reads {step: shadow curve} of the supervised baseline run in folder `twin`; None for "".

    Raises BadInput for a run that is not finished or that has another split.
    """
    if not twin:
        return None
    with given_as("config.monitor.baseline_run"):
        report = records_io.read_report(twin)
    if report["provenance"]["split_sha256"] != split_sha256:
        raise BadInput(
            f"config.monitor.baseline_run = {twin!r} has other dev rows than this run: use a run "
            "of the same corpus, seed and sizes."
        )
    rows = read_jsonl(Path(twin) / "metrics.jsonl")
    return {row["step"]: row["shadow/curve"] for row in rows if "shadow/curve" in row}
