"""Runs a batch through a function in parts, to save memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def value_and_grad(logits_of: Callable, judge: Callable, params: Any, rows: Any, parts: int):
    """Returns ((value, aux), gradient in params) of judge(logits_of(params, rows)) -> (value, aux).

    rows: a pytree of arrays [batch, ...], which runs through logits_of in this many parts.
    """
    if parts == 1:
        both = jax.value_and_grad(lambda params: judge(logits_of(params, rows)), has_aux=True)
        return both(params)
    logits = in_parts(lambda part: logits_of(params, part), rows, parts)
    found, slopes = jax.value_and_grad(judge, has_aux=True)(logits)

    def add(grads, part):
        rows, slope = part
        _, pull_back = jax.vjp(lambda params: logits_of(params, rows), params)
        return jax.tree.map(jnp.add, grads, *pull_back(slope)), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    return found, jax.lax.scan(add, zeros, _split((rows, slopes), parts))[0]


def in_parts(fn: Callable, rows: Any, parts: int) -> Any:
    """Returns fn(rows) of a pytree of arrays [batch, ...], computed part by part."""
    if parts == 1:
        return fn(rows)
    found = jax.lax.map(fn, _split(rows, parts))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), found)


def _split(rows: Any, parts: int) -> Any:
    """Reshapes [batch, ...] to [parts, batch / parts, ...]. Part i has the rows i, i + parts, ...,
    so that on a mesh the rows of a part that a device needs are its own."""
    return jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), rows)
