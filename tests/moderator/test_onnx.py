"""ONNX graphs of every family and head against Flax, for several batches and lengths."""

import jax
import numpy as np
import onnxruntime
import pytest

from ssl_guard import models
from ssl_guard.models.onnx.write import to_onnx
from tests.families import CASES, make_batch
from tests.tiny import write_encoder

LONGEST, VOCABULARY = 30, [f"w{i}" for i in range(50)]
TOLERANCE = 1e-5  # float32, of logits of scale 1


def parameters(model, batch):
    """Random parameters, none of them trivial."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    return jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes)


HEADS = [(name, "mlp") for name in CASES] + [("bert", "hf"), ("modernbert", "hf")]


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_the_graph_computes_what_flax_does(name, head, tmp_path):
    kind, options = CASES[name]
    folder = write_encoder(tmp_path / "model", VOCABULARY, model_type=kind, **options)
    pooling = {"mlp": "mean", "hf": "cls"}[head]
    model = models.build(folder, head=head, pooling=pooling, num_heads=2)
    short = make_batch(50, [7, 3, 1], pad=options.get("pad_token_id", 0))
    params = parameters(model, short)
    session = onnxruntime.InferenceSession(to_onnx(model, params, longest=LONGEST))
    names = [given.name for given in session.get_inputs()]
    assert ("token_type_ids" in names) == (model.config.type_vocab_size > 1)
    long = make_batch(50, [LONGEST, 12], pad=options.get("pad_token_id", 0))
    for batch in (short, long):
        found = session.run(None, {n: batch[n].astype(np.int64) for n in names})[0]
        expected = np.asarray(model.apply(params, batch, None, False)).mean(axis=1)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)
        assert np.ptp(expected) > 0.01
