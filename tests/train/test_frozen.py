"""A run that computes its frozen layers once trains like one that computes them in every step."""

import jax
import numpy as np
import pytest

from ssl_guard import models, steps
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.train import frozen
from ssl_guard.train.run import train_and_evaluate
from tests.tiny import smoke, timeless, write_encoder

LOWEST = ("encoder/embeddings", "encoder/layer_[01]")
DEEP = {"model.num_layers": 0, "model.dropout": 0.0, "optim.freeze": LOWEST}


def deep(folder, name, **changes):
    """A smoke run whose encoder has three layers, two of them frozen."""
    config = smoke(folder, name, **DEEP | changes)
    if not (folder / "deep").exists():
        write_encoder(folder / "deep", num_hidden_layers=3)
    config.model.name = str(folder / "deep")
    return config


@pytest.mark.parametrize(
    ("name", "packing"), [("uda", False), ("supervised", True), ("fixmatch", True)]
)
def test_the_numbers_are_those_of_a_run_without_the_cache(folder, name, packing, monkeypatch):
    seen, original = [], steps.train_step

    def spying(state, batch, **static):
        views = [view for view in batch.values() if isinstance(view, dict)]
        seen.append(all("states" in view for view in views))
        return original(state, batch, **static)

    monkeypatch.setattr(steps, "train_step", spying)
    reports, rows = [], []
    for cache in (False, True):
        workdir = folder / f"{name}-{cache}"
        changes = {"train.cache_frozen": cache, "data.packing": packing}
        reports.append(train_and_evaluate(deep(folder, name, **changes), workdir))
        assert set(seen) == {cache}
        seen.clear()
        rows.append(timeless(workdir))
    for mine, theirs in zip(*rows, strict=True):
        assert jax.tree.structure(mine) == jax.tree.structure(theirs)
        leaves = [jax.tree.leaves(row) for row in (mine, theirs)]
        np.testing.assert_allclose(*leaves, rtol=2e-5, atol=2e-6)
    scores = [
        [[row["raw"] for row in read_jsonl(folder / f"{name}-{cache}" / "predictions.jsonl")]]
        for cache in (False, True)
    ]
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-5)
    assert reports[0]["selected_step"] == reports[1]["selected_step"]


def test_the_layers_below_the_states_are_not_computed(tmp_path):
    """Their parameters may be missing."""
    write_encoder(tmp_path / "deep", num_hidden_layers=3)
    plain, cached = (models.build(tmp_path / "deep", cached_layers=count) for count in (0, 2))
    batch = {
        "input_ids": np.array([[2, 7, 9, 3], [2, 8, 3, 0]]),
        "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "token_type_ids": np.zeros((2, 4), np.int32),
        "row": np.arange(2),
    }
    params = plain.init(jax.random.key(0), batch)
    encoder = params["encoder"]
    states = models.hidden_states(plain.encoder, encoder, batch, None, False, stop_layer=2)
    above = {name: leaves for name, leaves in encoder.items() if name == "layer_2"}
    found = cached.apply(params | {"encoder": above}, batch | {"states": states}, None, False)
    expected = plain.apply(params, batch, None, False)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("freeze", "count"),
    [
        (LOWEST, 2),
        (("encoder/embeddings", "encoder/layer_[02]"), 1),
        (("encoder/embeddings", "encoder/layer_1"), 0),
        (("encoder/embeddings", "encoder/layer_0/attention"), 0),
        (("encoder/layer_",), 0),
        (("encoder",), 12),
        ((), 0),
    ],
)
def test_lowest_layers_without_a_trained_parameter_below(freeze, count):
    names = ("attention", "feed_forward")
    layers = {f"layer_{i}": dict.fromkeys(names, np.zeros(1)) for i in range(12)}
    encoder = {"embeddings": {"word": np.zeros(1)}, **layers}
    params = {"encoder": encoder, "head": {"kernel": np.zeros(1)}}
    assert frozen.frozen_layers(params, freeze) == count
    shared = params | {"encoder": encoder | {"embeddings_relative": {"table": np.zeros(1)}}}
    assert frozen.frozen_layers(shared, freeze) == (count if freeze == ("encoder",) else 0)
    named = (*freeze, "encoder/embeddings_relative")
    assert frozen.frozen_layers(shared, named) == count


def test_settings_without_frozen_layers_below_are_refused(folder):
    cached = {"train.cache_frozen": True}
    for name, changes, message in (
        ("supervised", {"optim.freeze": ()}, "config.optim.freeze"),
        ("supervised", {"optim.freeze": ("encoder/layer_0",)}, "config.optim.freeze"),
        ("vat", {}, "vat works inside the model"),
        ("mlm", {}, "configs/mlm.py"),
    ):
        with pytest.raises(BadInput, match=message):
            train_and_evaluate(deep(folder, name, **changes | cached), folder / "refused")
    assert not (folder / "refused").exists()


def test_the_layers_above_keep_their_dropout(folder):
    config = deep(folder, "supervised", **{"train.cache_frozen": True, "model.dropout": 0.5})
    rows = []
    for number in range(2):
        train_and_evaluate(config, folder / f"dropout-{number}")
        rows.append(timeless(folder / f"dropout-{number}"))
    assert rows[0] == rows[1]
    without = timeless(folder / "supervised-True")
    assert rows[0][0]["loss/supervised"] != pytest.approx(without[0]["loss/supervised"], rel=1e-4)
