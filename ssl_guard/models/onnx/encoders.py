"""The encoders of every family as ONNX nodes.

Each function returns hidden states [batch, length, width] of Inputs, from the parameters of the
Flax encoder of the same name as nested dicts of NumPy arrays.
"""

from typing import Any, NamedTuple

import numpy as np
import spox.opset.ai.onnx.v17 as op
from spox import Var

from ssl_guard.models import deberta, modernbert, mpnet
from ssl_guard.models.encoder_config import EncoderConfig
from ssl_guard.models.onnx import blocks
from ssl_guard.models.onnx.blocks import constant, dense, ints, layer_norm

Params = dict[str, Any]


class Inputs(NamedTuple):
    """input_ids, attention_mask, token_type_ids (None for encoders without types): int64 [batch,
    length]. longest: largest length that the graph must read."""

    input_ids: Var
    attention_mask: Var
    token_type_ids: Var | None
    longest: int


def encode(config: EncoderConfig, params: Params, inputs: Inputs) -> Var:
    """Returns the hidden states of the encoder of a config."""
    x = _embeddings(config, params["embeddings"], inputs)
    if "embeddings_projection" in params:
        x = dense(x, params["embeddings_projection"])
    bias = blocks.attention_bias(inputs.attention_mask)
    match config:
        case deberta.DebertaConfig():
            return _deberta(config, params, inputs, x, bias)
        case modernbert.ModernBertConfig():
            return _modernbert(config, params, inputs, x, bias)
        case mpnet.MPNetConfig():
            table = params["embeddings_relative"]["table"]["embedding"]
            bias = op.add(bias, _relative_bias(table, inputs))
    for number in range(config.num_hidden_layers):
        layer = params[f"layer_{number}"]
        mixed = blocks.self_attention(x, layer["attention"], bias, config.num_attention_heads)
        x = blocks.post_norm(x, mixed, layer, config)
    return x


def _embeddings(config: EncoderConfig, params: Params, inputs: Inputs) -> Var:
    x = blocks.lookup(params["word"]["embedding"], inputs.input_ids)
    if config.has_position_table:
        positions = _position_ids(config, inputs)
        x = op.add(x, blocks.lookup(params["position"]["embedding"], positions))
    if inputs.token_type_ids is not None:
        x = op.add(x, blocks.lookup(params["token_type"]["embedding"], inputs.token_type_ids))
    elif config.type_vocab_size:
        x = op.add(x, constant(params["token_type"]["embedding"][0]))
    if "projection" in params:
        x = dense(x, params["projection"])
    return layer_norm(x, params["norm"], config.layer_norm_eps)


def _position_ids(config: EncoderConfig, inputs: Inputs) -> Var:
    """Returns encoder.position_ids, int64 [length] or [batch, length]."""
    padding = config.position_padding_id
    if padding is None:
        return blocks.span(blocks.length_of(inputs.input_ids))
    pad, one = constant(padding, np.int64), constant(1, np.int64)
    real = op.cast(op.not_(op.equal(inputs.input_ids, pad)), to=np.int64)
    counted = op.cumsum(real, one)  # this token included
    return op.add(op.mul(counted, real), pad)


def _at_distance(rows: np.ndarray, inputs: Inputs) -> Var:
    """Selects by key - query position: [length, length, ...] of rows [2 longest - 1, ...]."""
    length = blocks.length_of(inputs.input_ids)
    place = op.add(blocks.distances(length), constant(inputs.longest - 1, np.int64))
    return op.gather(op.constant(value=rows), place)


def _distances(inputs: Inputs) -> np.ndarray:
    return np.arange(2 * inputs.longest - 1) - (inputs.longest - 1)


def _relative_bias(table: np.ndarray, inputs: Inputs) -> Var:
    """Computes mpnet.RelativeBias."""
    rows = np.asarray(table[mpnet.buckets(_distances(inputs))], np.float32)
    return op.unsqueeze(op.transpose(_at_distance(rows, inputs), perm=(2, 0, 1)), ints(0))


def _deberta(
    config: deberta.DebertaConfig, params: Params, inputs: Inputs, x: Var, bias: Var
) -> Var:
    """Computes the layers of deberta.DebertaEncoder.

    Every product of tokens and distances is computed for all rows of the distance table, whose
    projections are constants, and then selected by distance.
    """
    table, row = None, None
    if config.relative_attention:
        relative = params["embeddings_relative"]
        table = np.asarray(relative["table"]["embedding"], np.float32)
        if config.norm_rel_ebd == "layer_norm":
            table = _normed(table, relative["norm"], config.layer_norm_eps)
        # The table counts from query to key.
        row = _at_distance(deberta.rows_of_distances(config, -_distances(inputs)), inputs)
    for number in range(config.num_hidden_layers):
        layer, before = params[f"layer_{number}"], x
        mixed = _disentangled(config, layer["attention"], x, bias, table, row)
        x = blocks.post_norm(x, mixed, layer, config)
        if "convolution" in layer:
            beside = _convolution(config, layer["convolution"], before, inputs.attention_mask)
            beside = blocks.ACTIVATIONS[config.conv_act](beside)
            x = layer_norm(op.add(x, beside), layer["convolution_norm"], config.layer_norm_eps)
    return x


def _disentangled(
    config: deberta.DebertaConfig,
    leaves: Params,
    x: Var,
    bias: Var,
    table: np.ndarray | None,
    row: Var | None,
) -> Var:
    """Computes deberta.DisentangledAttention."""
    attn, width = config.num_attention_heads, config.hidden_size
    head = width // attn
    scale = (head * (1 + len(set(config.pos_att_type)))) ** -0.5
    query, key, value = (
        blocks.split_heads(dense(x, leaves[name]), attn) for name in ("query", "key", "value")
    )
    found = op.add(blocks.scores(query, key, scale), bias)

    def by_distance(tokens: Var, name: str, rows: Var) -> Var:
        part = leaves[name if config.share_att_key else f"position_{name}"]
        projected = table @ part["kernel"] + part["bias"]
        projected = projected.reshape(-1, attn, head).transpose(1, 2, 0)
        terms = op.mul(op.matmul(tokens, constant(projected)), constant(scale))
        return op.gather_elements(terms, _as_heads(rows, terms, attn), axis=3)

    if row is not None and "c2p" in config.pos_att_type:
        found = op.add(found, by_distance(query, "key", row))
    if row is not None and "p2c" in config.pos_att_type:
        terms = by_distance(key, "query", op.transpose(row, perm=(1, 0)))
        found = op.add(found, op.transpose(terms, perm=(0, 1, 3, 2)))
    return dense(blocks.mix(found, value, width), leaves["output"])


def _as_heads(rows: Var, terms: Var, attn: int) -> Var:
    """Repeats int64 [length, length] for every text and head of terms."""
    batch = op.slice(op.shape(terms), ints(0), ints(1))
    return op.expand(rows, op.concat([batch, ints(attn), op.shape(rows)], axis=0))


def _normed(x: np.ndarray, leaves: Params, epsilon: float) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
    return np.asarray(x * leaves["scale"] + leaves["bias"], np.float32)


def _convolution(config: deberta.DebertaConfig, leaves: Params, x: Var, mask: Var) -> Var:
    """Computes deberta.Convolution."""
    real = op.cast(op.unsqueeze(mask, ints(2)), to=np.float32)
    kernel, reach = leaves["kernel"].transpose(2, 1, 0), config.conv_kernel_size // 2
    found = op.conv(
        op.transpose(op.mul(x, real), perm=(0, 2, 1)),
        constant(kernel),
        constant(leaves["bias"]),
        group=config.conv_groups,
        pads=(reach, reach),
    )
    return op.transpose(found, perm=(0, 2, 1))


def _modernbert(
    config: modernbert.ModernBertConfig, params: Params, inputs: Inputs, x: Var, bias: Var
) -> Var:
    """Computes the layers and the final norm of modernbert.ModernBertEncoder."""
    attn, epsilon = config.num_attention_heads, config.layer_norm_eps
    width = config.hidden_size
    apart = op.abs(blocks.distances(blocks.length_of(inputs.input_ids)))
    near = op.less_or_equal(apart, constant(config.local_attention // 2, np.int64))
    kinds = {
        modernbert.GLOBAL: (bias, _angles(inputs, width // attn, config.global_rope_theta)),
        modernbert.LOCAL: (
            op.add(bias, blocks.masked(near)),
            _angles(inputs, width // attn, config.local_rope_theta),
        ),
    }
    for number in range(config.num_hidden_layers):
        layer = params[f"layer_{number}"]
        kind_bias, angle = kinds[config.layer_types[number]]
        normed = layer_norm(x, layer["attention_norm"], epsilon) if number else x
        fused = dense(normed, layer["attention"]["query_key_value"])
        query, key, value = (
            blocks.split_heads(part, attn) for part in op.split(fused, outputs_count=3, axis=-1)
        )
        raw = blocks.scores(_rotated(query, angle), _rotated(key, angle), (width // attn) ** -0.5)
        mixed = blocks.mix(op.add(raw, kind_bias), value, width)
        x = op.add(x, dense(mixed, layer["attention"]["output"]))
        normed = layer_norm(x, layer["feed_forward_norm"], epsilon)
        hidden, gate = op.split(
            dense(normed, layer["feed_forward"]["up"]), outputs_count=2, axis=-1
        )
        hidden = op.mul(blocks.ACTIVATIONS[config.hidden_act](hidden), gate)
        x = op.add(x, dense(hidden, layer["feed_forward"]["down"]))
    return layer_norm(x, params["final_norm"], epsilon)


def _angles(inputs: Inputs, head: int, theta: float) -> tuple[Var, Var]:
    """Returns the cosines and sines of modernbert.angles, [length, head / 2]."""
    frequencies = 1.0 / theta ** (np.arange(0, head, 2, dtype=np.float32) / head)
    angle = np.arange(inputs.longest, dtype=np.float32)[:, None] * frequencies[None]
    place = blocks.span(blocks.length_of(inputs.input_ids))
    return blocks.lookup(np.cos(angle), place), blocks.lookup(np.sin(angle), place)


def _rotated(x: Var, angle: tuple[Var, Var]) -> Var:
    """Computes modernbert.rotate of [batch, attn, length, head]."""
    cos, sin = angle
    one, two = op.split(x, outputs_count=2, axis=-1)
    turned = op.sub(op.mul(one, cos), op.mul(two, sin))
    return op.concat([turned, op.add(op.mul(two, cos), op.mul(one, sin))], axis=-1)
