"""Computes diagnostics of pseudo-labels and labels inside the train step.

Hidden labels are read only here and by an oracle, never by an alarm.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssl_guard.algorithms import Target
from ssl_guard.runtime.metrics import MARGINS, Metrics


def pseudo_label_metrics(
    target: Target,
    logits: Float[Array, "batch heads outputs"] | None,
    valid: Float[Array, " batch"],
    hidden_label: Int[Array, " batch"],
) -> Metrics:
    """Measures confidence and use of the pseudo-labels, and accuracy where a hidden label exists.

    logits: of the view that the pseudo-labels come from, whose margins are counted, or None.
    valid: 0 for rows to ignore. The pseudo-label of a row is the class of the largest mean target.

    mask_rate: share of valid rows that no head uses. confidence: mean largest probability of the
    logits, or of the target without any. accuracy: agreement with the hidden label among
    used rows. By class of the pseudo-label: mask_rate_c, confidence_c, accuracy_c (the precision of
    class c), share_c (of the used rows), margins_c (histogram over MARGINS).
    """
    used = (target.weight.max(axis=1) > 0).astype(jnp.float32) * valid
    probs = target.probs.mean(axis=1)
    label, num_classes = probs.argmax(axis=-1), probs.shape[-1]
    sure = target.probs if logits is None else jax.nn.softmax(logits[..., :num_classes])
    confidence = sure.max(axis=-1).mean(axis=1)
    known = used * (hidden_label >= 0)
    right = known * (label == hidden_label)
    metrics = {
        "pseudo/mask_rate": ((valid - used).sum(), valid.sum()),
        "pseudo/confidence": ((confidence * valid).sum(), valid.sum()),
        "pseudo/accuracy": (right.sum(), known.sum()),
    }
    if logits is not None:
        top = jax.lax.top_k(logits.mean(axis=1)[:, :num_classes], 2)[0]
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
        if logits is not None:
            metrics[f"pseudo/margins_{c}"] = (of_class @ binned, of_class.sum())
    return metrics


def true_class_margins(
    logits: Float[Array, "batch heads outputs"], label: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns z_y - max_{c != y} z_c of the mean of the heads' logits z, for the labels y.

    Its average over training is the area under the margin (Pleiss et al., arXiv 2001.10528), which
    is low for mislabelled rows: gradients of similar rows oppose a wrong label until the model has
    memorised it.
    """
    logits = logits.mean(axis=1)
    own = jax.nn.one_hot(label, logits.shape[1]) > 0
    return jnp.where(own, logits, 0.0).sum(axis=1) - jnp.where(own, -jnp.inf, logits).max(axis=1)
