"""Ramps and training signal annealing: pure functions of the progress of a run."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def linear_ramp(progress: Float[Array, ""] | float, *, until: float) -> Float[Array, ""]:
    """Computes min(1, progress / until) for progress in [0, 1]; `until` = 0 means no ramp."""
    return jnp.minimum(1.0, progress / until) if until > 0 else jnp.ones(())


TSA_SCHEDULES = ("none", "linear", "log", "exp")


def tsa_threshold(
    progress: Float[Array, ""] | float, *, schedule: str, num_classes: int
) -> Float[Array, ""]:
    """Computes UDA's threshold eta_t in [1/C, 1] of training signal annealing.

    Source: arXiv 1904.12848, section 2.3.

    eta_t = alpha_t (1 - 1/C) + 1/C with alpha = progress (linear), 1 - exp(-5 progress) (log),
    exp(5 (progress - 1)) (exp); "none" is eta = 1: every labelled row is used. `progress` is
    step / total steps in [0, 1].
    """
    progress = jnp.asarray(progress, jnp.float32)
    alpha = {
        "none": jnp.ones_like(progress),
        "linear": progress,
        "log": 1 - jnp.exp(-5 * progress),
        "exp": jnp.exp(5 * (progress - 1)),
    }[schedule]
    return alpha * (1 - 1 / num_classes) + 1 / num_classes
