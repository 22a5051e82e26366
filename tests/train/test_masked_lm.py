"""Continued pre-training: which words are hidden, the loss, and a run that other runs build on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax

from ssl_guard import models
from ssl_guard.data import packing, pipeline
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import prepare
from ssl_guard.runtime import preemption
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.steps import masked_lm as masked_lm_step
from ssl_guard.train import masked_lm
from tests import tiny
from tests.tiny import final_checkpoint, timeless

pytestmark = pytest.mark.usefixtures("shared_programs")

CLS, SEP, PAD, MASK = 1, 2, 0, 3
VOCABULARY = masked_lm_step.Vocabulary(size=5000, mask_id=MASK, special_ids=(PAD, CLS, SEP, MASK))


def texts(count, longest=40, seed=0):
    rng = np.random.default_rng(seed)
    return [
        np.array([CLS, *rng.integers(4, 5000, rng.integers(1, longest - 2)), SEP], np.int32)
        for _ in range(count)
    ]


def padded(rows, length):
    ids = np.full((len(rows), length), PAD, np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    mask = (np.arange(length) < [[len(row)] for row in rows]).astype(np.int32)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": 0 * mask,
        "row": np.arange(len(rows), dtype=np.int32),
        "weight": np.ones(len(rows), np.float32),
    }


def packed_view(rows):
    """All texts in two rows."""
    row, start, need = packing.balanced(np.array([[len(text) for text in rows]]), 2)
    records = [{"input_ids": text, "second": len(text)} for text in rows]
    size = {"rows": 2, "length": int(need[0])}
    return packing.lay_out(records, row[0], start[0], **size, pad_id=PAD, first_row=0)


def masked_words(batch, key, rate=0.15):
    return jax.tree.map(np.asarray, masked_lm_step.mask_words(batch, key, VOCABULARY, rate))


def assert_share(bits, share):
    assert abs(bits.mean() - share) < 4.5 * np.sqrt(share * (1 - share) / bits.size)


def test_15_percent_of_the_words_are_chosen_and_hidden_by_80_10_10():
    batch = padded(texts(2000), 40)
    masked = masked_words(batch, jax.random.key(0))
    ids, read = batch["input_ids"], masked.input_ids
    chosen = np.zeros(ids.shape, bool)
    rows, columns = np.nonzero(masked.weight)
    chosen[rows, masked.places[rows, columns]] = True
    assert chosen.sum() == masked.weight.sum(), "no place twice"
    np.testing.assert_array_equal(
        ids[rows, masked.places[rows, columns]], masked.words[rows, columns]
    )
    ordinary = ids > MASK
    assert not chosen[~ordinary].any(), "neither special tokens nor pads"
    np.testing.assert_array_equal(read[~chosen], ids[~chosen])
    assert_share(chosen[ordinary], 0.15)
    assert_share(chosen[:, 1][ids[:, 1] > MASK], 0.15)
    hidden, kept = (read == MASK)[chosen], (read == ids)[chosen]
    assert_share(hidden, 0.8)
    assert_share(kept, 0.1)
    drawn = read[chosen & (read != MASK) & (read != ids)]
    counts = np.histogram(drawn, bins=5, range=(0, 5000))[0]
    assert drawn.max() < 5000 and abs(counts / counts.mean() - 1).max() < 0.25


def test_the_choice_is_the_text_s_own_and_new_in_every_step():
    rows = texts(6, 16)
    batch, key = padded(rows, 16), jax.random.key(5)
    first, again, wider, other = (
        masked_words(b, k, 0.3)
        for b, k in (
            (batch, key),
            (batch, key),
            (padded(rows, 23), key),
            (batch, jax.random.key(6)),
        )
    )
    np.testing.assert_array_equal(first.input_ids, again.input_ids)
    np.testing.assert_array_equal(first.input_ids, wider.input_ids[:, :16])
    assert (first.input_ids != other.input_ids).any()
    packed = packed_view(rows)
    found = masked_words(packed | {"weight": batch["weight"]}, key, 0.3).input_ids
    for number, row in enumerate(rows):
        mine = found[packed["text"] == number]
        np.testing.assert_array_equal(mine, first.input_ids[number, : len(row)])


@pytest.mark.parametrize("packed", [False, True])
def test_the_loss_is_the_mean_over_the_chosen_words_of_rows_that_count(packed):
    rows = texts(6, 16)
    batch = padded(rows, 16)
    if packed:
        batch = packed_view(rows)
    weight = np.array([1, 1, 0, 1, 1, 0], np.float32)
    batch["weight"] = weight
    key = jax.random.key(1)
    masked = masked_words(batch, jax.random.fold_in(key, 0), 0.4)
    logits = np.random.default_rng(0).normal(size=(*masked.places.shape, 5000)).astype(np.float32)
    seen = []

    def apply(params, hidden, places, rng, train):
        seen.append(hidden["input_ids"])
        return jnp.asarray(logits)

    loss, metrics = masked_lm_step.loss_fn(
        None, batch, key, apply=apply, vocabulary=VOCABULARY, rate=0.4, train=True
    )
    np.testing.assert_array_equal(seen[0], masked.input_ids)
    losses, right = [], []
    for i, k in zip(*np.nonzero(masked.weight), strict=True):
        text = batch["text"][i, masked.places[i, k]] if packed else i
        if weight[text]:
            losses.append(-log_softmax(logits[i, k].astype(float))[masked.words[i, k]])
            right.append(logits[i, k].argmax() == masked.words[i, k])
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    assert metrics["loss/mlm"][1] == len(losses)
    np.testing.assert_allclose(metrics["mlm/accuracy"], (sum(right), len(right)))


def test_the_capacity_is_never_reached():
    for length in (1, 8, 64, 256):
        assert masked_lm_step.capacity(length, 0.15) <= length
    counts = [
        masked_words(padded(texts(500, 64, s), 64), jax.random.key(s)).weight.sum(1).max()
        for s in range(4)
    ]
    assert max(counts) < masked_lm_step.capacity(64, 0.15)


def test_a_step_learns_and_freezes(tmp_path):
    """Plain gradient descent on one batch: the step is the gradient of guess; frozen parts stay."""

    def apply(params, batch, places, rng, train):
        hidden = params["encoder"]["table"][batch["input_ids"]]
        chosen = jnp.take_along_axis(hidden, places[:, :, None], axis=1)
        return chosen @ params["head"]["out"]

    rng = np.random.default_rng(0)
    params = {
        "encoder": {"table": jnp.asarray(rng.normal(size=(5000, 4)), jnp.float32)},
        "head": {"out": jnp.asarray(rng.normal(size=(4, 5000)), jnp.float32)},
    }
    batch, tx, key = padded(texts(4), 40), optax.sgd(0.5), jax.random.key(2)
    state = masked_lm_step.State(jnp.array(3), params, tx.init(params), key)
    options = dict(apply=apply, vocabulary=VOCABULARY, rate=0.15)
    after, metrics = masked_lm_step.train_step(state, batch, tx=tx, freeze=("encoder",), **options)
    step_key = jax.random.fold_in(key, 3)

    def objective(out):
        changed = params | {"head": {"out": out}}
        return masked_lm_step.loss_fn(changed, batch, step_key, train=True, **options)[0]

    expected = params["head"]["out"] - 0.5 * jax.grad(objective)(params["head"]["out"])
    np.testing.assert_allclose(after.params["head"]["out"], expected, atol=1e-6)
    np.testing.assert_array_equal(after.params["encoder"]["table"], params["encoder"]["table"])
    assert after.step == 4


def test_a_step_that_is_not_finite_changes_only_the_count():
    """Its metrics have weight 0, so that the row of metrics is that of the other steps."""

    def apply(params, batch, places, rng, train):
        return jnp.full((*places.shape, 5000), params["w"])

    params, tx = {"w": jnp.array(np.nan)}, optax.adam(0.5)
    state = masked_lm_step.State(jnp.array(3), params, tx.init(params), jax.random.key(2))
    options = dict(apply=apply, vocabulary=VOCABULARY, rate=0.15, tx=tx)
    after, metrics = masked_lm_step.train_step(state, padded(texts(4), 40), **options)
    assert after.step == 4
    same = jax.tree.map(np.array_equal, after.opt_state, state.opt_state)
    assert all(jax.tree.leaves(same)) and np.isnan(after.params["w"])
    assert metrics.pop("skipped") == (1.0, 1.0)
    assert all(pair == (0.0, 0.0) for pair in metrics.values())


def smoke(folder, **changes):
    return tiny.smoke(folder, "mlm", **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlm")
    return folder, masked_lm.pretrain(smoke(folder), folder / "run")


def test_the_encoder_is_a_model_that_other_configs_take(run):
    folder, report = run
    encoder = folder / "run" / "encoder"
    assert models.resolve(str(encoder)) == encoder
    source = folder / "encoder"
    assert Tokenizer(encoder, 64).sha256 == Tokenizer(source, 64).sha256
    classifier = models.build(encoder)
    assert classifier.config.num_hidden_layers == 1
    one = jnp.ones((1, 1), jnp.int32)
    row = {"input_ids": one, "attention_mask": one, "token_type_ids": one, "row": one[0]}
    params = models.init_from_pretrained(classifier, encoder, jax.random.key(0), row)
    trained = final_checkpoint(folder / "run")
    leaves = jax.tree.leaves(params["encoder"])
    assert all(any(np.array_equal(leaf, other) for other in trained) for leaf in leaves)
    first = models.build(source, num_layers=1)
    before = models.init_from_pretrained(first, source, jax.random.key(0), row)
    moved = [
        np.abs(a - b).max() for a, b in zip(leaves, jax.tree.leaves(before["encoder"]), strict=True)
    ]
    assert 0 < max(moved) < 0.01
    assert report["held_out"]["loss"] > 0 and 0 <= report["held_out"]["accuracy"] <= 1


def test_dev_and_test_are_never_read(run):
    folder, report = run
    prepared = prepare.prepare(smoke(folder), views=("weak",))
    learned, held_out = masked_lm.texts_of(prepared, held_out=64, seed=0)
    ids = [[row["id"] for row in view.gather(range(len(view)))] for view in (learned, held_out)]
    views = (prepared.labelled, prepared.unlabelled)
    everything = [view[i]["id"] for view in views for i in range(len(view))]
    assert sorted(ids[0] + ids[1]) == sorted(everything)
    others = {view[i]["id"] for view in (prepared.dev, prepared.test) for i in range(len(view))}
    assert not others & set(everything)
    assert report["texts"] == {"learned": len(ids[0]), "held_out": 64}
    with pytest.raises(BadInput, match="config.mlm.held_out = 9999"):
        masked_lm.texts_of(prepared, held_out=9999, seed=0)


def test_an_interrupted_run_ends_bit_equal_and_a_finished_one_returns_at_once(run, monkeypatch):
    folder, report = run
    workdir, calls, count = folder / "interrupted", [], pipeline.token_counts

    def interrupt(batch):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return count(batch)

    monkeypatch.setattr(pipeline, "token_counts", interrupt)
    with pytest.raises(KeyboardInterrupt):
        masked_lm.pretrain(smoke(folder), workdir)
    monkeypatch.undo()
    assert masked_lm.pretrain(smoke(folder), workdir)["held_out"] == report["held_out"]
    assert timeless(workdir) == timeless(folder / "run")
    for ours, theirs in zip(
        final_checkpoint(workdir), final_checkpoint(folder / "run"), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    monkeypatch.setattr(masked_lm, "prepare", None)
    assert masked_lm.pretrain(smoke(folder), folder / "run") == report
    with pytest.raises(BadInput, match="another config: mlm.rate"):
        masked_lm.pretrain(smoke(folder, **{"mlm.rate": 0.2}), folder / "run")


@pytest.mark.parametrize("at", [3, None])
def test_a_signal_saves_and_the_run_goes_on_bit_equal(run, monkeypatch, at):
    """After step 3, between two checkpoints, or while the held-out texts are scored."""
    folder, report = run
    workdir = folder / f"signal-{at}"

    def signalled(step=None):
        if step == at:
            raise preemption.Preempted(15)

    monkeypatch.setattr(preemption, "check", signalled)
    with pytest.raises(preemption.Preempted):
        masked_lm.pretrain(smoke(folder), workdir)
    monkeypatch.undo()
    assert (workdir / "checkpoints" / str(at or 2) / "manifest.json").exists()
    assert masked_lm.pretrain(smoke(folder), workdir)["held_out"] == report["held_out"]
    assert timeless(workdir) == timeless(folder / "run")
    for ours, theirs in zip(
        final_checkpoint(workdir), final_checkpoint(folder / "run"), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_tokenizer_without_a_mask_token(run, monkeypatch, tmp_path):
    folder, _ = run
    prepared = prepare.prepare(smoke(folder), views=("weak",))
    monkeypatch.setattr(prepared.tokenizer, "mask_id", None)
    monkeypatch.setattr(masked_lm, "prepare", lambda config, views: prepared)
    with pytest.raises(BadInput, match="no mask token"):
        masked_lm.pretrain(smoke(folder), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_metrics_are_json_lines(run):
    folder, _ = run
    rows = read_jsonl(folder / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {"loss/mlm", "mlm/accuracy", "held_out/loss", "held_out/accuracy"} <= rows[-1].keys()
