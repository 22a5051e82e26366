import json
import os

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ssl_guard.errors import BadInput
from ssl_guard.models import build, convert, init_from_pretrained


@pytest.fixture
def saved(write_config, batch, random_like):
    """A classifier, its random encoder, and a complete model folder with that encoder's weights."""
    folder = write_config()
    classifier = build(folder)
    encoder = random_like(jax.eval_shape(classifier.init, jax.random.key(0), batch)["encoder"])
    (folder / "vocab.txt").touch()
    convert.save(folder / "model.safetensors", encoder, classifier.config.hf_names)
    return classifier, encoder, folder


NAMES = {"config.json", "vocab.txt", "model.safetensors"}


def rewrite(folder, change):
    """Applies `change` to the dict of stored tensors."""
    tensors = load_file(folder / "model.safetensors")
    tensors = change(tensors) or tensors
    save_file(tensors, folder / "model.safetensors")


def load(saved):
    classifier, encoder, folder = saved
    return convert.load(folder, encoder, classifier.config.hf_names)


def assert_trees_equal(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_round_trip_is_exact(saved):
    _, encoder, folder = saved
    assert_trees_equal(load(saved), encoder)
    assert {file.name for file in folder.iterdir()} == NAMES


def test_stored_names_and_orientation(saved):
    _, encoder, folder = saved
    tensors = load_file(folder / "model.safetensors")
    assert len(tensors) == 5 + 16
    np.testing.assert_array_equal(
        tensors["encoder.layer.0.intermediate.dense.weight"],
        encoder["layer_0"]["feed_forward"]["up"]["kernel"].T,
    )
    np.testing.assert_array_equal(
        tensors["embeddings.LayerNorm.weight"], encoder["embeddings"]["norm"]["scale"]
    )


def test_prefix_old_names_and_other_heads_are_tolerated(saved):
    def change(tensors):
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): tensor
            for name, tensor in tensors.items()
        }
        unused = {
            "bert.embeddings.position_ids": np.arange(32)[None],
            "bert.pooler.dense.weight": np.ones((16, 16), np.float32),
            "cls.predictions.bias": np.ones(40, np.float32),
        }
        return {f"bert.{name}": tensor for name, tensor in old.items()} | unused

    rewrite(saved[2], change)
    assert_trees_equal(load(saved), saved[1])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_cast(saved, dtype):
    rewrite(saved[2], lambda tensors: {n: t.astype(dtype) for n, t in tensors.items()})
    loaded = load(saved)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded))
    assert_trees_equal(loaded, jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), saved[1]))


NAME = "encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {n: x for n, x in t.items() if n != NAME}, f"has no tensor {NAME}"),
        (lambda t: t.update({"encoder.layer.1.x": t[NAME]}), "unexpected tensor encoder.layer.1.x"),
        (lambda t: t.update({f"bert.{NAME}": t[NAME]}), "unexpected tensor (bert.)?" + NAME),
        (lambda t: t.update({NAME: t[NAME][:8]}), NAME + r" has shape \(8, 16\), not \(16, 16\)"),
        (lambda t: t.update({NAME: t[NAME] / 0}), f"{NAME} holds infinite"),
        (lambda t: t.update({NAME: t[NAME] * np.nan}), f"{NAME} holds infinite or undefined"),
        (lambda t: t.update({NAME: t[NAME].astype(np.int8)}), f"{NAME} is int8"),
    ],
)
def test_wrong_tensor_is_named(saved, change, message):
    with np.errstate(divide="ignore"):
        rewrite(saved[2], change)
    with pytest.raises(BadInput, match=message):
        load(saved)


def test_unreadable_file_is_bad_input(saved):
    file = saved[2] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(BadInput, match="cannot be read as safetensors"):
        load(saved)
    file.unlink()
    with pytest.raises(BadInput, match="cannot be read as safetensors"):
        load(saved)


def test_failed_save_leaves_the_old_file_and_no_other(saved, monkeypatch):
    classifier, encoder, folder = saved

    def full_disk(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    other = jax.tree.map(np.zeros_like, encoder)
    with pytest.raises(OSError, match="no space"):
        convert.save(folder / "model.safetensors", other, classifier.config.hf_names)
    assert_trees_equal(load(saved), encoder)
    assert {file.name for file in folder.iterdir()} == NAMES


def test_init_from_pretrained(saved, batch):
    classifier, encoder, folder = saved
    one, two = (init_from_pretrained(classifier, folder, jax.random.key(k), batch) for k in (1, 2))
    assert_trees_equal(one["encoder"], encoder)
    assert_trees_equal(one["head"], jax.jit(classifier.init)(jax.random.key(1), batch)["head"])
    assert not np.array_equal(one["head"]["dense_0"]["kernel"], two["head"]["dense_0"]["kernel"])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(one))


def test_lowest_layers_only(write_config, batch, random_like):
    folder = write_config(num_hidden_layers=3)
    whole = build(folder)
    encoder = random_like(jax.eval_shape(whole.init, jax.random.key(0), batch)["encoder"])
    (folder / "vocab.txt").touch()
    convert.save(folder / "model.safetensors", encoder, whole.config.hf_names)
    part = build(folder, num_layers=2)
    params = init_from_pretrained(part, folder, jax.random.key(0), batch)
    del encoder["layer_2"]
    assert_trees_equal(params["encoder"], encoder)
    write_config(num_hidden_layers=2)  # now the third layer is nobody's
    with pytest.raises(BadInput, match="unexpected tensor encoder.layer.2"):
        init_from_pretrained(part, folder, jax.random.key(0), batch)


@pytest.fixture
def sharded(saved):
    """The same model with its weights in two shards and an index: (classifier, encoder, folder)."""
    _, _, folder = saved
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    listed = {}
    for number, part in enumerate((names[:9], names[9:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        listed |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    return saved


def test_shards_are_one_model(sharded):
    assert_trees_equal(load(sharded), sharded[1])


def test_a_missing_shard_is_named(sharded):
    (sharded[2] / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadInput, match="has no model-00002-of-00002.safetensors"):
        load(sharded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda listed: listed.pop(NAME), f"does not list there, {NAME}"),
        (lambda listed: listed.update(extra=listed[NAME]), "lacks a tensor that .* lists, extra"),
    ],
)
def test_shards_and_their_index_must_agree(sharded, change, message):
    file = sharded[2] / "model.safetensors.index.json"
    values = json.loads(file.read_text())
    change(values["weight_map"])
    file.write_text(json.dumps(values))
    with pytest.raises(BadInput, match=message):
        load(sharded)


def test_a_torn_shard_is_bad_input(sharded):
    file = sharded[2] / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(BadInput, match="model-00001-of-00002.safetensors cannot be read"):
        load(sharded)


def test_save_pretrained_keeps_the_config_and_the_tokenizer(saved, tmp_path):
    classifier, encoder, folder = saved
    values = json.loads((folder / "config.json").read_text())
    source = {"architectures": ["X"], "torch_dtype": "float16", "n": 1}
    (folder / "config.json").write_text(json.dumps(values | source))
    (folder / "merges.txt").write_text("a b")
    (folder / "notes.txt").write_text("not of the model")
    out = convert.save_pretrained(tmp_path / "out", encoder, classifier.config, folder)
    written = json.loads((out / "config.json").read_text())
    assert written == values | {"architectures": ["X"], "n": 1, "dtype": "float32"}
    assert {file.name for file in out.iterdir()} == {
        "config.json",
        "model.safetensors",
        "vocab.txt",
        "merges.txt",
    }
    assert_trees_equal(convert.load(out, encoder, classifier.config.hf_names), encoder)
    convert.save_pretrained(out, encoder, classifier.config, out)  # in place
    assert json.loads((out / "config.json").read_text()) == written


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.dense.weight",
        "classifier.out_proj.bias",
        "vocab_transform.weight",
        "pre_classifier.bias",
        "qa_outputs.weight",
        "discriminator_predictions.dense.weight",
        "generator_lm_head.bias",
        "lm_predictions.lm_head.bias",
        "mask_predictions.dense.weight",
        "head.norm.weight",
        "decoder.bias",
        "embeddings.token_type_ids",
        "encoder.layer.0.attention.rotary_emb.inv_freq",
    ],
)
def test_heads_and_buffers_of_other_models_are_left_out(saved, name):
    rewrite(saved[2], lambda tensors: tensors | {name: np.ones(3, np.int64)})
    assert_trees_equal(load(saved), saved[1])


@pytest.mark.parametrize("name", ["adapter.weight", "embeddings.extra", "encoder.lm_head.weight"])
def test_no_other_tensor_is_left_out(saved, name):
    rewrite(saved[2], lambda tensors: tensors | {name: np.ones(3, np.float32)})
    with pytest.raises(BadInput, match=f"unexpected tensor {name}"):
        load(saved)
