"""The observatory: what a run's pseudo-labels look like, when they are in trouble, and the brake.

The train step calls the first part: arrays in, (sum, weight) metrics out. The loop calls the rest
with the rows of metrics.jsonl: an alarm is a pure function of rows, so that a resumed run raises
the alarms of an uninterrupted one. Hidden labels are read by diagnostics alone, never by an alarm.

    nothing_selected    no pseudo-label was used for `idle_steps` steps
    one_class           KL(shares of the pseudo-labels || classes of the labelled rows) > `max_kl`:
                        one class swallows the others, or the pool is not like the labelled rows
    shadow_precision    on dev, which is in no training, the most confident rows, as many as the run
                        uses of its pool, are labelled worse than by the supervised twin at the same
                        step, by more than a standard error; without a twin: worse than by guessing
    repeated_views      more than `max_repeated` of the strong views say what another row's view
                        says: an augmentation that returns a constant, such as a refusal
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ssl_guard.algorithms import Target
from ssl_guard.runtime.metrics import MARGINS, Metrics

ALARMS = ("nothing_selected", "one_class", "shadow_precision", "repeated_views")
COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the shadow curve


def pseudo_label_metrics(
    target: Target,
    weak: Float[Array, "batch heads outputs"] | None,
    valid: Float[Array, " batch"],
    hidden_label: Int[Array, " batch"],
) -> Metrics:
    """How the pseudo-labels look, and how right they are where a hidden label exists.

    weak: logits of the weak view, whose margins are counted, if there are any; valid: 0 for rows
    that do not count. The pseudo-label of a row is the class of the largest mean target.

    mask_rate: share of valid rows that no head uses. confidence: mean largest probability on the
    weak view, or in the target if there is none. accuracy: agreement with the hidden label among
    used rows. By class of the pseudo-label: mask_rate_c, confidence_c, accuracy_c (the precision of
    class c; its impurity is what is missing to 1), share_c (of the used rows), margins_c (shares of
    MARGINS).
    """
    used = (target.weight.max(axis=1) > 0).astype(jnp.float32) * valid
    probs = target.probs.mean(axis=1)
    label, num_classes = probs.argmax(axis=-1), probs.shape[-1]
    sure = target.probs if weak is None else jax.nn.softmax(weak[..., :num_classes])
    confidence = sure.max(axis=-1).mean(axis=1)
    known = used * (hidden_label >= 0)
    right = known * (label == hidden_label)
    metrics = {
        "pseudo/mask_rate": ((valid - used).sum(), valid.sum()),
        "pseudo/confidence": ((confidence * valid).sum(), valid.sum()),
        "pseudo/accuracy": (right.sum(), known.sum()),
    }
    if weak is not None:
        top = jax.lax.top_k(weak.mean(axis=1)[:, :num_classes], 2)[0]
        margin = top[:, :1] - top[:, 1:]
        bins = (margin >= jnp.asarray(MARGINS)[None]).sum(axis=1) - 1
        binned = jax.nn.one_hot(bins, len(MARGINS))
    for c in range(num_classes):
        of_class = (label == c) * valid
        metrics |= {
            f"pseudo/share_{c}": ((used * of_class).sum(), used.sum()),
            f"pseudo/mask_rate_{c}": ((of_class - used * of_class).sum(), of_class.sum()),
            f"pseudo/confidence_{c}": ((confidence * of_class).sum(), of_class.sum()),
            f"pseudo/accuracy_{c}": ((right * of_class).sum(), (known * of_class).sum()),
        }
        if weak is not None:
            metrics[f"pseudo/margins_{c}"] = (of_class @ binned, of_class.sum())
    return metrics


def true_class_margins(
    logits: Float[Array, "batch heads outputs"], label: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """z_y - max_{c != y} z_c of the mean of the heads' logits, for the given labels y.

    Averaged over training it is the area under the margin (Pleiss et al., arXiv 2001.10528), which
    is low for rows that carry a wrong label: the others pull against it before it is learnt by
    heart.
    """
    logits = logits.mean(axis=1)
    own = jax.nn.one_hot(label, logits.shape[1]) > 0
    return jnp.where(own, logits, 0.0).sum(axis=1) - jnp.where(own, -jnp.inf, logits).max(axis=1)


def prior_divergence(row: dict, prior: np.ndarray) -> float | None:
    """KL(shares of the used pseudo-labels || prior) in nats; None where none was used.

    prior: classes of the labelled rows, float [classes], none of them 0.
    """
    shares = np.array([row.get(f"pseudo/share_{c}", np.nan) for c in range(len(prior))])
    if np.isnan(shares).any():
        return None
    return float(np.sum(shares * np.log(np.where(shares > 0, shares, 1.0) / prior)))


def precision_at(
    labels: np.ndarray, scores: np.ndarray, coverage: float
) -> tuple[float, int] | None:
    """Precision of the most confident verdicts, and how many; None if there are none.

    labels: int [rows] in {0, 1}; scores: harmful probability [rows]. The round(coverage * rows)
    scores farthest from 0.5 are the verdicts; of equal ones the first rows count.
    """
    count = round(coverage * len(labels))
    if count == 0:
        return None
    chosen = np.argsort(-np.abs(scores - 0.5), kind="stable")[:count]
    return float(((scores[chosen] > 0.5) == (labels[chosen] == 1)).mean()), count


def shadow(
    row: dict, step: int, *, labels: np.ndarray, scores: np.ndarray, twin: dict[int, list] | None
) -> dict[str, float | list[float]]:
    """Precision on dev at the run's coverage, beside what it must not fall below.

    row: metrics since the last evaluation, of which pseudo/mask_rate is read; labels, scores: of
    dev; twin: the supervised twin's curves by step. `curve` is the precision at each of COVERAGES.
    The rest is for runs that use pseudo-labels: `reference` is the twin's precision at the same
    step and coverage (interpolated) less a standard error of this run's, or the share of the larger
    class without a twin that was evaluated by then.
    """
    least = 1 / len(labels)
    curve = [precision_at(labels, scores, max(c, least))[0] for c in COVERAGES]
    found: dict[str, float | list[float]] = {"shadow/curve": curve}
    coverage = 1 - row.get("pseudo/mask_rate", 1.0)
    used = precision_at(labels, scores, coverage)
    if used is None:
        return found
    precision, count = used
    steps = [s for s in twin or () if s <= step]
    if steps:
        theirs = np.interp(coverage, COVERAGES, twin[max(steps)])
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
    max_repeated: float,
) -> dict[str, bool]:
    """{alarm: is it up} after the last of `rows`, the run's metrics so far; {} without any
    pseudo-labels. Thresholds: see the top of the file; one_class looks at the last `window_steps`
    steps, and only where they used at least 20 pseudo-labels.

    repeated: share of the strong views that repeat another row's, of the shards' manifest.
    """
    rows = [row for row in rows if "pseudo/mask_rate" in row]
    if not rows:
        return {}
    now = rows[-1]["step"]
    before = dict(zip((row["step"] for row in rows), (0, *(r["step"] for r in rows)), strict=False))
    used = {row["step"]: row["pseudo/used"] * (row["step"] - before[row["step"]]) for row in rows}

    last = max((step for step, count in used.items() if count > 0), default=0)
    window = [row for row in rows if before[row["step"]] >= now - window_steps] or rows[-1:]
    total = sum(used[row["step"]] for row in window)
    shares = {
        name: sum(used[row["step"]] * row.get(name, 0.0) for row in window) / max(total, 1.0)
        for name in (f"pseudo/share_{c}" for c in range(len(prior)))
    }
    shadows = [row for row in rows if "shadow/precision" in row]
    return {
        "nothing_selected": now - last >= idle_steps,
        "one_class": total >= 20 and prior_divergence(shares, prior) > max_kl,
        "shadow_precision": bool(shadows)
        and shadows[-1]["shadow/precision"] < shadows[-1]["shadow/reference"],
        "repeated_views": repeated > max_repeated,
    }


def history(rows: list[dict]) -> dict:
    """What the report says of alarms and brake: for each alarm that was ever up, its first step,
    the number of steps and whether it was up at the end; and the steps with the brake on."""
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
    # A row's brake is the one that its steps ran under.
    braked = sum(int(n) for n, row in zip(lengths, rows, strict=True) if row.get("brake", 0) > 0)
    return {"alarms": raised, "braked_steps": braked}


def suspect_labels(
    margin_sum: np.ndarray, visits: np.ndarray, limit: int
) -> list[tuple[int, float]]:
    """(labelled row, mean margin of its label over the steps so far) of the rows whose label the
    model took for the wrong one on the whole, the worst first."""
    mean = margin_sum / np.maximum(visits, 1)
    worst = np.argsort(mean, kind="stable")[:limit]
    return [(int(i), float(mean[i])) for i in worst if visits[i] > 0 and mean[i] < 0]


def most_uncertain(scores: np.ndarray, limit: int) -> list[tuple[int, float]]:
    """(row, harmful probability) of the scores nearest 0.5: the rows most worth labelling next
    (margin sampling, Scheffer et al. 2001)."""
    nearest = np.argsort(np.abs(scores - 0.5), kind="stable")[:limit]
    return [(int(i), float(scores[i])) for i in nearest]
