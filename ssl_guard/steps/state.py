"""Everything a run carries from one step to the next, as one pytree."""

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int


class Watch(NamedTuple):
    """What the observatory keeps between steps: the sum of each labelled row's margin and its
    visits, float32 and int32 [labelled]; brake: float32 [], 1 takes the unlabelled loss out."""

    margin_sum: Float[Array, " labelled"]
    visits: Int[Array, " labelled"]
    brake: Float[Array, ""]


class TrainState(NamedTuple):
    """step: int32 [], updates done so far; params and ema_params: float32 pytrees of one structure
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
