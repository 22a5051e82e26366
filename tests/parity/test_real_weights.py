"""Published weights against PyTorch transformers: all-MiniLM-L6-v2 and all-mpnet-base-v2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.models import build, init_from_pretrained, pretrained
from ssl_guard.models.architectures import read_config
from ssl_guard.models.encoder import PostNormLayer
from tests.families import make_batch
from tests.parity.cases import assert_close, torch_states

pytestmark = pytest.mark.parity


def mpnet():
    """The folder of all-mpnet-base-v2; skips without its wheels."""
    if pretrained.installed(pretrained.ASSETS["all-mpnet-base-v2"]) is None:
        pytest.skip("all-mpnet-base-v2 is not installed: requirements/mpnet.txt")
    return pretrained.resolve("all-mpnet-base-v2")


@pytest.fixture(scope="module", params=["all-MiniLM-L6-v2", "all-mpnet-base-v2"])
def real(request, minilm):
    """A published model in PyTorch and in Flax, and a batch with padding."""
    folder = minilm if "MiniLM" in request.param else mpnet()
    model = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    batch = make_batch(30522, [160, 64, 7, 1], pad=model.config.pad_token_id)
    classifier = build(folder)
    params = init_from_pretrained(classifier, folder, jax.random.key(0), batch)
    return model, classifier.config, params["encoder"], batch, folder


def test_all_hidden_states(real):
    model, config, params, batch, folder = real
    encoder = read_config(folder)[1](config)
    mask = batch["attention_mask"][:, :, None]
    with torch.no_grad():
        theirs, last = torch_states(model, batch, model.config.model_type == "bert")
    hidden, variables = jax.jit(
        lambda params: encoder.apply(
            {"params": params},
            *(batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")),
            capture_intermediates=lambda module, _: module.name in theirs,
        )
    )(params)
    assert len(theirs) == 1 + config.num_hidden_layers
    for name, state in theirs.items():
        ours = variables["intermediates"][name]["__call__"][0]
        assert_close(ours * mask, state * mask, name)
    assert_close(hidden * mask, last.numpy() * mask, "last hidden state")


@pytest.mark.parametrize("number", [0, 5])
def test_one_layer_alone(minilm, number):
    """Fed with PyTorch's own state below it."""
    model = transformers.AutoModel.from_pretrained(minilm, add_pooling_layer=False).eval()
    batch = make_batch(30522, [64, 40, 7, 1])
    classifier = build(minilm)
    params = init_from_pretrained(classifier, minilm, jax.random.key(0), batch)["encoder"]
    with torch.no_grad():
        states = list(torch_states(model, batch, True)[0].values())
    layer = PostNormLayer(classifier.config, "float32", site=0)
    bias = jnp.where(batch["attention_mask"][:, None, None, :] > 0, 0.0, -1e9)
    ours = layer.apply({"params": params[f"layer_{number}"]}, states[number], bias, None)
    mask = batch["attention_mask"][:, :, None]
    assert_close(ours * mask, states[number + 1] * mask, f"layer {number} alone")


def test_tokenizer_ids(real):
    *_, folder = real
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    prompts = ["How do I bake bread?", "", "Naïve café, 東京! 🙂\u200d", "x" * 300]
    responses = ["Mix flour, water and salt.", "An answer.", "", "שלום"]
    for given, expected in (
        (responses, reference(prompts, responses)),
        ([None] * 4, reference(prompts)),
    ):
        found = Tokenizer(folder, 512).encode(prompts, given)
        assert [row.input_ids.tolist() for row in found] == expected["input_ids"]
        assert all(isinstance(row.input_ids, np.ndarray) for row in found)
