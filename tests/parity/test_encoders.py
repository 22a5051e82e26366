"""Our encoders against PyTorch transformers: every architecture and option, random weights.

torch is imported plainly: without it these tests fail rather than vanish.
"""

import inspect
import json

import jax
import numpy as np
import pytest
import torch
import transformers

from ssl_guard.models import build, convert, init_from_pretrained
from ssl_guard.models.architectures import ARCHITECTURES, read_config
from ssl_guard.models.heads import pool
from tests.families import CASES, make_batch
from tests.parity.cases import (
    POOLED,
    TOLERANCE,
    assert_close,
    torch_model,
    torch_states,
)

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """The same random model in PyTorch and in Flax, its folder, and a batch with padding."""
    kind, options = CASES[request.param]
    folder = tmp_path_factory.mktemp("model")
    model = torch_model(kind, options)
    model.save_pretrained(folder)
    (folder / "vocab.txt").touch()
    batch = make_batch(50, [24, 17, 3, 1], pad=model.config.pad_token_id)
    classifier = build(folder, head="linear", num_classes=3)
    params = init_from_pretrained(classifier, folder, jax.random.key(0), batch)
    types = "token_type_ids" in inspect.signature(model.forward).parameters
    types = types and getattr(model.config, "type_vocab_size", 0) > 1
    return model, types, classifier, params, folder, batch


def test_states_logits_and_the_gradient_of_every_parameter(pair):
    model, types, classifier, params, folder, batch = pair
    encoder = read_config(folder)[1](classifier.config)
    inputs = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
    mask = batch["attention_mask"][:, :, None]
    rng = np.random.default_rng(1)
    target = rng.normal(size=(*mask.shape[:2], 32)).astype(np.float32) * mask
    weights = 5 * rng.normal(size=(len(mask), 3)).astype(np.float32)
    head = params["head"]["output_0"]

    theirs, last = torch_states(model, batch, types)
    real = torch.tensor(mask)
    pooled = (last * real).sum(1) / real.sum(1)
    their_logits = pooled @ torch.tensor(np.array(head["kernel"])) + torch.tensor(
        np.array(head["bias"])
    )
    ((last * torch.tensor(target)).sum() + (their_logits * torch.tensor(weights)).sum()).backward()

    def loss(encoder_params):
        hidden, variables = encoder.apply(
            {"params": encoder_params},
            *inputs,
            capture_intermediates=lambda module, _: module.name in theirs,
        )
        features = pool(hidden, batch["attention_mask"], "mean")
        logits = classifier.stages.classify(params, features, batch["row"], None, False)[:, 0]
        states = {name: variables["intermediates"][name]["__call__"][0] for name in theirs}
        return (hidden * target).sum() + (logits * weights).sum(), (states, hidden, logits)

    ours, (states, hidden, logits) = jax.jit(jax.grad(loss, has_aux=True))(params["encoder"])
    for name, state in theirs.items():
        assert_close(states[name] * mask, state * mask, name)
    assert_close(hidden * mask, last.detach().numpy() * mask, "last hidden state")
    assert_close(logits, their_logits.detach().numpy(), "logits")
    ours = convert.to_hf(ours, classifier.config.hf_names)
    expected = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    assert ours.keys() == expected.keys()
    largest = max(np.abs(g).max() for g in expected.values())
    assert largest > 1
    for name, g in expected.items():
        assert_close(ours[name] / largest, g / largest, f"gradient of {name}")


def test_back_to_pytorch(pair, tmp_path):
    """AutoModel opens what is written, and holds the same numbers under the same names."""
    model, _, classifier, params, folder, _ = pair
    convert.save_pretrained(tmp_path, params["encoder"], classifier.config, folder)
    extra = {"add_pooling_layer": False} if model.config.model_type in POOLED else {}
    again, report = transformers.AutoModel.from_pretrained(
        tmp_path, output_loading_info=True, **extra
    )
    assert type(again) is type(model)
    assert not any(report.values()), report
    theirs, ours = model.state_dict(), again.state_dict()
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name]), name
    assert (tmp_path / "vocab.txt").is_file()


def test_fewer_layers_open_in_pytorch(tmp_path):
    """With the same last state as our encoder of as many layers."""
    for name in ("distilbert", "deberta v3", "modernbert"):
        kind, options = CASES[name]
        model = torch_model(kind, options)
        folder = tmp_path / name
        model.save_pretrained(folder)
        (folder / "vocab.txt").touch()
        batch = make_batch(50, [9, 4])
        classifier = build(folder, num_layers=1, head="linear")
        params = init_from_pretrained(classifier, folder, jax.random.key(0), batch)
        convert.save_pretrained(folder / "cut", params["encoder"], classifier.config, folder)
        again, report = transformers.AutoModel.from_pretrained(
            folder / "cut", output_loading_info=True
        )
        assert not any(report.values()), report
        _, last = torch_states(again.eval(), batch, False)
        inputs = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
        encoder = read_config(folder / "cut")[1](classifier.config)
        ours = encoder.apply({"params": params["encoder"]}, *inputs)
        mask = batch["attention_mask"][:, :, None]
        assert_close(ours * mask, last.detach().numpy() * mask, name)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_defaults_are_those_of_transformers(kind):
    """A key that an old config.json leaves out has the value that transformers gives it."""
    theirs = transformers.AutoConfig.for_model(kind).to_dict()
    ours = ARCHITECTURES[kind][0].from_json({})
    for name in ours.__dataclass_fields__:
        key = ours.key(name)
        if key in theirs and not (kind in ("xlm-roberta", "camembert") and key == "vocab_size"):
            value = getattr(ours, name)
            value = list(value) if isinstance(value, tuple) else value
            assert value == (theirs[key] or type(value)()), key


@pytest.mark.parametrize("kind", ["roberta", "mpnet"])
def test_a_padding_token_inside_a_text_has_no_place(kind):
    """A text may spell out <pad>: transformers then do not count it."""
    from ssl_guard.models.encoder import position_ids

    model = torch_model(*CASES[kind])
    ids = np.array([[0, 5, 1, 7, 1, 1], [1, 1, 4, 5, 6, 7], [4, 4, 4, 4, 4, 4]])
    module = inspect.getmodule(type(model.embeddings))
    count = getattr(module, "create_position_ids_from_input_ids", None)
    count = count or model.embeddings.create_position_ids_from_input_ids
    theirs = count(torch.tensor(ids), 1)
    config = read_config_of(kind)
    np.testing.assert_array_equal(position_ids(config, ids, None), theirs)


def read_config_of(kind):
    return ARCHITECTURES[kind][0].from_json(CASES[kind][1])


@pytest.mark.parametrize(("buckets", "longest"), [(256, 512), (8, 24), (32, 128), (50, 77), (2, 9)])
def test_distances_fall_into_the_buckets_of_deberta(buckets, longest):
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    from ssl_guard.models.deberta import rows_of_distances

    distances = np.arange(-1100, 1101)
    theirs = make_log_bucket_position(torch.tensor(distances), buckets, longest).long()
    theirs = torch.clamp(theirs + buckets, 0, 2 * buckets - 1)
    options = {"position_buckets": buckets, "max_relative_positions": longest}
    config = ARCHITECTURES["deberta-v2"][0](**options)
    np.testing.assert_array_equal(rows_of_distances(config, distances), theirs)


def test_distances_fall_into_the_buckets_of_mpnet():
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    from ssl_guard.models.mpnet import buckets

    distances = np.arange(-1100, 1101)
    theirs = MPNetEncoder.relative_position_bucket(torch.tensor(distances))
    np.testing.assert_array_equal(buckets(distances), theirs)


def test_every_architecture_has_a_case():
    assert {kind for kind, _ in CASES.values()} == set(ARCHITECTURES)
    assert TOLERANCE == 1e-4
    assert json.dumps(CASES)
