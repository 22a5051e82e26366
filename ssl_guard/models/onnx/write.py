"""Writes a classifier as an ONNX model: token ids in, logits out."""

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.v17 as op
from spox import Var

from ssl_guard.models.classifier import Classifier
from ssl_guard.models.heads import Hidden
from ssl_guard.models.onnx import blocks
from ssl_guard.models.onnx.blocks import constant, dense, ints
from ssl_guard.models.onnx.encoders import Inputs, Params, encode

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def to_onnx(classifier: Classifier, params: Params, *, longest: int) -> bytes:
    """Returns a model with the inputs of INPUTS, int64 [batch, length], and the output "logits",
    float32 [batch, classes]: the mean over the heads, dropout off.

    params: of one task, as NumPy arrays. longest: largest length in tokens. An encoder without
    token types has no such input.
    """
    from onnx_ir import serde
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    config = classifier.config
    names = INPUTS if config.type_vocab_size > 1 else INPUTS[:2]
    shape = spox.Tensor(np.int64, ("batch", "length"))
    given = {name: spox.argument(shape) for name in names}
    inputs = Inputs(
        given["input_ids"], given["attention_mask"], given.get("token_type_ids"), longest
    )
    hidden = encode(config, params["encoder"], inputs)
    pooled = _pool(hidden, inputs.attention_mask, classifier.pooling)
    logits = _logits(pooled, params["head"], classifier.hidden)
    built = spox.build(given, {"logits": logits})
    # quantize_dynamic quantises initializers only.
    model = serde.deserialize_model(built)
    LiftConstantsToInitializersPass(lift_all_constants=False)(model)
    found = serde.serialize_model(model)
    onnx.checker.check_model(found)
    return found.SerializeToString(deterministic=True)


def _pool(hidden: Var, mask: Var, pooling: str) -> Var:
    """Computes heads.pool: [batch, width]."""
    if pooling == "cls":
        return op.gather(hidden, constant(0, np.int64), axis=1)
    real = op.cast(op.unsqueeze(mask, ints(2)), to=np.float32)
    total = op.reduce_sum(op.mul(hidden, real), ints(1), keepdims=False)
    return op.div(total, op.max([op.reduce_sum(real, ints(1), keepdims=False), constant(1)]))


def _logits(pooled: Var, head: Params, hidden: Hidden) -> Var:
    """Computes the mean of the logits of heads.Heads, [batch, classes]."""
    count, total = sum(name.startswith("output") for name in head), None
    for number in range(count):
        x = pooled
        if f"dense_{number}" in head:
            x = blocks.ACTIVATIONS[hidden.activation](dense(x, head[f"dense_{number}"]))
        if f"norm_{number}" in head:
            x = blocks.layer_norm(x, head[f"norm_{number}"], hidden.epsilon)
        logits = dense(x, head[f"output_{number}"])
        total = logits if total is None else op.add(total, logits)
    return op.div(total, constant(count))
