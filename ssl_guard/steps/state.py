"""The training state, and the guard against steps whose loss or gradient is not finite."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ssl_guard.runtime.metrics import Metrics


class Watch(NamedTuple):
    """Diagnostics of the labelled rows, and the brake.

    margin_sum, visits: sum of each row's margins and their number, float32 and int32 [labelled];
    brake: float32 [], 1 removes the unlabelled loss.
    """

    margin_sum: Float[Array, " labelled"]
    visits: Int[Array, " labelled"]
    brake: Float[Array, ""]


class TrainState(NamedTuple):
    """The state of a run between two steps.

    step: int32 [], updates done so far; params and ema_params: float32 pytrees of one structure
    (ema_params is None when no average is kept); opt_state: optax's; algo_state: the algorithm's,
    per-example arrays included; rng: a typed key, never advanced (each step folds its number in);
    watch: see Watch.
    """

    step: Int[Array, ""]
    params: Any
    ema_params: Any
    opt_state: Any
    algo_state: Any
    rng: jax.Array
    watch: Watch


def skip_unless(
    finite: Bool[Array, ""], state: Any, next_state: Any, metrics: Metrics
) -> tuple[Any, Metrics]:
    """Drops the update of a step that is not finite, so that one bad batch does not end a run.

    state, next_state: NamedTuples with a `step`, before and after the update. A dropped step
    changes `step` alone; its metric "skipped" is 1 and all others have weight 0.
    """

    def choose(yes, no):
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), yes, no)

    next_state = choose(next_state, state._replace(step=next_state.step))
    metrics = choose(metrics, jax.tree.map(jnp.zeros_like, metrics))
    metrics["skipped"] = (1.0 - finite, jnp.ones(()))
    return next_state, metrics
