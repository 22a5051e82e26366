"""Predicts probabilities and features: pure functions of parameters and a batch."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from ssl_guard.steps.training import Apply


def predict_step(
    params: Any, batch: dict, *, apply: Apply, extra_classes: int = 0
) -> Float[Array, "batch classes"]:
    """Returns class probabilities, float32: softmax of the mean of the heads' logits, dropout off.

    extra_classes: the algorithm's; that many last outputs are dropped.
    """
    logits = apply(params, batch, None, False).mean(axis=1)
    return jax.nn.softmax(logits[:, : logits.shape[1] - extra_classes])


def feature_step(params: Any, batch: dict, *, features: Callable) -> Float[Array, "batch width"]:
    """Returns the pooled hidden states, float32, dropout off. features: of `models.Stages`."""
    return features(params, batch, None, False)
