"""Layers of the encoders as ONNX nodes (opset 17): the counterparts of layers.py and encoder.py.

Leaves are NumPy arrays of a Flax module: {"kernel", "bias"}, {"scale", "bias"} or {"embedding"}.
Comments give the shapes of nodes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v17 as op
from spox import Var

Leaves = Mapping[str, Any]
MASKED = np.float32(-1e9)  # as layers.attention_bias


def constant(value, dtype=np.float32) -> Var:
    """Makes a constant."""
    return op.constant(value=np.asarray(value, dtype))


def ints(*values: int) -> Var:
    """Makes a constant int64 vector, such as a shape or axes."""
    return constant(values, np.int64)


def dense(x: Var, leaves: Leaves) -> Var:
    """Multiplies with the kernel and adds the bias, if there is one."""
    product = op.matmul(x, constant(leaves["kernel"]))
    return op.add(product, constant(leaves["bias"])) if "bias" in leaves else product


def layer_norm(x: Var, leaves: Leaves, epsilon: float) -> Var:
    """Normalises the last axis."""
    bias = constant(leaves["bias"]) if "bias" in leaves else None
    return op.layer_normalization(x, constant(leaves["scale"]), bias, epsilon=epsilon)[0]


def lookup(table, ids: Var) -> Var:
    """Selects rows of a table by int64 ids."""
    return op.gather(constant(table), ids)


def _gelu(x: Var) -> Var:
    erf = op.erf(op.mul(x, constant(0.5**0.5)))
    return op.mul(op.mul(x, constant(0.5)), op.add(constant(1), erf))


def _gelu_tanh(x: Var) -> Var:
    cube = op.mul(op.mul(x, x), op.mul(x, constant(0.044715)))
    inner = op.tanh(op.mul(constant((2 / np.pi) ** 0.5), op.add(x, cube)))
    return op.mul(op.mul(x, constant(0.5)), op.add(constant(1), inner))


def _silu(x: Var) -> Var:
    return op.mul(x, op.sigmoid(x))


ACTIVATIONS: dict[str, Callable[[Var], Var]] = {  # the keys of layers.ACTIVATIONS
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": op.relu,
    "silu": _silu,
    "swish": _silu,
    "tanh": op.tanh,
}


def masked(keep: Var) -> Var:
    """Returns 0 where the condition holds and -1e9 elsewhere, to add to attention scores."""
    return op.where(keep, constant(0), constant(MASKED))


def attention_bias(mask: Var) -> Var:
    """Returns the bias of a mask int64 [batch, length]: [batch, 1, 1, length]."""
    return masked(op.greater(op.unsqueeze(mask, ints(1, 2)), constant(0, np.int64)))


def length_of(ids: Var) -> Var:
    """Returns the length of int64 [batch, length], an int64 scalar."""
    return op.squeeze(op.slice(op.shape(ids), ints(1), ints(2)), ints(0))


def span(length: Var) -> Var:
    """Returns the positions 0, 1, ... of a text, int64 [length]."""
    return op.range(constant(0, np.int64), length, constant(1, np.int64))


def distances(length: Var) -> Var:
    """Returns key position - query position, int64 [length, length]."""
    place = span(length)
    return op.sub(op.unsqueeze(place, ints(0)), op.unsqueeze(place, ints(1)))


def split_heads(x: Var, attn: int) -> Var:
    """Splits [batch, length, width] into [batch, attn, length, head]."""
    return op.transpose(op.reshape(x, ints(0, 0, attn, -1)), perm=(0, 2, 1, 3))


def scores(query: Var, key: Var, scale: float) -> Var:
    """Returns the scaled products of queries and keys, [batch, attn, length, length]."""
    return op.mul(op.matmul(query, op.transpose(key, perm=(0, 1, 3, 2))), constant(scale))


def mix(attention: Var, value: Var, width: int) -> Var:
    """Averages values by the softmax of attention scores: [batch, length, width]."""
    mixed = op.matmul(op.softmax(attention, axis=-1), value)
    return op.reshape(op.transpose(mixed, perm=(0, 2, 1, 3)), ints(0, 0, width))


def self_attention(x: Var, leaves: Leaves, bias: Var, attn: int) -> Var:
    """Computes encoder.SelfAttention; bias: added to its scores."""
    query, key, value = (
        split_heads(dense(x, leaves[name]), attn) for name in ("query", "key", "value")
    )
    width = leaves["output"]["kernel"].shape[0]
    raw = scores(query, key, (width // attn) ** -0.5)
    return dense(mix(op.add(raw, bias), value, width), leaves["output"])


def feed_forward(x: Var, leaves: Leaves, activation: str) -> Var:
    """Computes layers.FeedForward."""
    return dense(ACTIVATIONS[activation](dense(x, leaves["up"])), leaves["down"])


def post_norm(x: Var, mixed: Var, leaves: Leaves, config) -> Var:
    """Computes encoder.PostNormLayer from its input and the output of its attention."""
    x = layer_norm(op.add(x, mixed), leaves["attention_norm"], config.layer_norm_eps)
    hidden = feed_forward(x, leaves["feed_forward"], config.hidden_act)
    return layer_norm(op.add(x, hidden), leaves["feed_forward_norm"], config.layer_norm_eps)
