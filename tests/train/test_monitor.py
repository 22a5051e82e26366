"""Metrics and alarms against plain NumPy and hand-made rows, then failures injected into runs."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from configs import fixmatch, supervised
from ssl_guard import algorithms, steps
from ssl_guard.algorithms import Target
from ssl_guard.augment import ops
from ssl_guard.errors import BadInput
from ssl_guard.runtime import sharding
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.steps import diagnostics
from ssl_guard.train import monitor, neighbour_views
from ssl_guard.train import run as train_run

SETTINGS = dict(
    prior=np.array([0.5, 0.5]),
    repeated=0.0,
    idle_steps=30,
    window_steps=20,
    max_kl=0.5,
)


@pytest.mark.parametrize("heads, with_weak", [(1, True), (3, True), (1, False)])
def test_pseudo_label_metrics_count_as_a_loop_does(heads, with_weak):
    rng = np.random.default_rng(0)
    rows, classes = 40, 3
    logits = rng.normal(0, 3, (rows, heads, classes + 1)).astype(np.float32)  # one extra output
    probs = np.asarray(jax.nn.softmax(rng.normal(0, 2, (rows, heads, classes))), np.float32)
    weight = (rng.random((rows, heads)) < 0.4).astype(np.float32)
    valid = (rng.random(rows) < 0.8).astype(np.float32)
    hidden = rng.integers(-1, classes, rows)
    found = diagnostics.pseudo_label_metrics(
        Target(jnp.asarray(probs), jnp.asarray(weight)),
        jnp.asarray(logits) if with_weak else None,
        jnp.asarray(valid),
        jnp.asarray(hidden),
    )

    label = [int(np.argmax(probs[i].mean(axis=0))) for i in range(rows)]
    used = [valid[i] > 0 and weight[i].max() > 0 for i in range(rows)]

    def expected(rows_counted, value):
        counted = [i for i in range(rows) if valid[i] > 0 and rows_counted(i)]
        return sum(value(i) for i in counted), len(counted)

    def confidence(i):
        if with_weak:
            z = np.exp(logits[i, :, :classes] - logits[i, :, :classes].max(axis=1, keepdims=True))
            return (z / z.sum(axis=1, keepdims=True)).max(axis=1).mean()
        return probs[i].max(axis=1).mean()

    def same(name, pair):
        for ours, theirs in zip(found[f"pseudo/{name}"], pair, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=name)

    same("mask_rate", expected(lambda i: True, lambda i: not used[i]))
    same("confidence", expected(lambda i: True, confidence))
    same(
        "accuracy", expected(lambda i: used[i] and hidden[i] >= 0, lambda i: label[i] == hidden[i])
    )
    for c in range(classes):
        of_class = functools.partial(lambda i, c: label[i] == c, c=c)
        same(f"share_{c}", expected(lambda i: used[i], of_class))
        same(f"mask_rate_{c}", expected(of_class, lambda i: not used[i]))
        same(f"confidence_{c}", expected(of_class, confidence))
        same(
            f"accuracy_{c}",
            expected(
                lambda i, of_class=of_class: of_class(i) and used[i] and hidden[i] >= 0,
                lambda i, c=c: hidden[i] == c,
            ),
        )
        if not with_weak:
            assert f"pseudo/margins_{c}" not in found
            continue
        mine = [i for i in range(rows) if valid[i] > 0 and of_class(i)]
        top = np.sort(logits[mine].mean(axis=1)[:, :classes], axis=1)
        counts, _ = np.histogram(top[:, -1] - top[:, -2], [*diagnostics.MARGINS, np.inf])
        same(f"margins_{c}", (counts, len(mine)))


def test_margins_of_labels_add_up_in_the_state():
    """Two steps with the same row twice, a padded row and a row that never comes."""
    params = jnp.asarray([[1.0, -2.0], [0.5, 0.25], [3.0, -1.0]])  # logits of tokens 0, 1, 2

    def apply(params, batch, rng, train):
        return params[batch["input_ids"][:, 0]][:, None]

    algorithm, tx = algorithms.build("supervised"), optax.sgd(0.0)
    state = steps.init_state(
        jax.random.key(0), params, algorithm=algorithm, tx=tx, pool_size=0, num_classes=2,
        num_heads=1, labelled_size=3,
    )  # fmt: skip
    labelled = {
        "input_ids": jnp.asarray([[0], [1], [2], [0]]),
        "label": jnp.asarray([0, 0, 1, 1]),
        "index": jnp.asarray([2, 0, 0, 1]),
        "weight": jnp.asarray([1.0, 1.0, 1.0, 0.0]),
    }
    for _ in range(2):
        state, _ = steps.train_step(
            state, {"labelled": labelled}, apply=apply, algorithm=algorithm, tx=tx, total_steps=2
        )
    np.testing.assert_allclose(state.watch.margin_sum, [2 * (0.25 - 4.0), 0.0, 2 * 3.0], rtol=1e-6)
    np.testing.assert_array_equal(state.watch.visits, [4, 0, 2])
    suspects = monitor.suspect_labels(state.watch.margin_sum, state.watch.visits, limit=5)
    assert suspects == [(0, pytest.approx(-1.875))]


def test_the_brake_takes_the_unlabelled_loss_out():
    """With the brake on, FixMatch's update is the supervised one; its metrics go on."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(10, 1, 2)), jnp.float32)}

    def apply(params, batch, rng, train):
        return params["w"][batch["input_ids"]].sum(axis=1)

    def view(rows):
        return {"input_ids": jnp.asarray(rng.integers(0, 10, (rows, 3)))}

    batch = {
        "labelled": view(4) | {"label": jnp.asarray([0, 1, 1, 0]), "weight": jnp.ones(4),
                               "index": jnp.arange(4)},
        "weak": view(6), "strong": view(6), "index": jnp.arange(6), "weight": jnp.ones(6),
        "hidden_label": jnp.zeros(6, jnp.int32),
    }  # fmt: skip
    tx, after, metrics = optax.sgd(0.1), {}, {}
    for name, brake in (("supervised", 0.0), ("fixmatch", 1.0), ("fixmatch", 0.0)):
        arguments = {"threshold": 0.0} if name == "fixmatch" else {}
        algorithm = algorithms.build(name, **arguments)
        state = steps.init_state(
            jax.random.key(0), params, algorithm=algorithm, tx=tx, pool_size=6, num_classes=2,
            num_heads=1, labelled_size=4,
        )  # fmt: skip
        state = state._replace(watch=state.watch._replace(brake=jnp.float32(brake)))
        after[name, brake], metrics[name, brake] = steps.train_step(
            state, batch, apply=apply, algorithm=algorithm, tx=tx, total_steps=2
        )
    twin = after["supervised", 0.0].params["w"]
    np.testing.assert_array_equal(after["fixmatch", 1.0].params["w"], twin)
    assert np.abs(after["fixmatch", 0.0].params["w"] - twin).max() > 1e-3
    total, supervised_loss = (
        metrics["fixmatch", 1.0][name][0] for name in ("loss/total", "loss/supervised")
    )
    assert total == supervised_loss / 4
    assert metrics["fixmatch", 1.0]["loss/unlabelled"][0] > 0
    assert metrics["fixmatch", 1.0]["pseudo/mask_rate"] == (0.0, 6.0)
    assert metrics["fixmatch", 1.0]["pseudo/used"] == (6.0, 1.0)


def test_prior_divergence_is_scipys():
    row = {"pseudo/share_0": 0.9, "pseudo/share_1": 0.1}
    prior = np.array([0.3, 0.7])
    assert monitor.prior_divergence(row, prior) == pytest.approx(
        scipy.stats.entropy([0.9, 0.1], prior)
    )
    alone = monitor.prior_divergence({"pseudo/share_0": 1.0, "pseudo/share_1": 0.0}, prior)
    assert alone == pytest.approx(-np.log(0.3))
    assert monitor.prior_divergence({"pseudo/share_0": 1.0}, prior) is None


def test_shadow_precision_is_of_the_most_confident_rows():
    labels = np.array([1, 0, 1, 0, 0])
    scores = np.array(
        [0.9, 0.05, 0.2, 0.45, 0.6]
    )  # by confidence: right, right, wrong, wrong, right
    assert monitor.precision_at(labels, scores, 0.4) == (1.0, 2)
    assert monitor.precision_at(labels, scores, 0.6) == (pytest.approx(2 / 3), 3)
    assert monitor.precision_at(labels, scores, 0.0) is None
    shadow = functools.partial(monitor.shadow, step=30, labels=labels, scores=scores)
    row, curve = {"pseudo/mask_rate": 0.4}, [1, 1, 1, 1, 1, 2 / 3, 0.5, 0.5, 0.5, 0.6]
    curve[4], curve[6], curve[8] = 1.0, 0.5, 0.5  # round(2.5) = 2, round(3.5) = 4, round(4.5) = 4
    alone = shadow(row, twin=None)
    assert alone == {
        "shadow/curve": pytest.approx(curve),
        "shadow/precision": pytest.approx(2 / 3),
        "shadow/reference": pytest.approx(0.6),  # the larger class of dev
        "shadow/rows": 3,
    }
    # The twin's curve of the same step, or of the last one before, at coverage 0.6.
    twin = {20: [0.9] * 5 + [0.8] + [0.7] * 4, 40: [0.1] * 10}
    assert shadow(row, twin=twin)["shadow/reference"] == pytest.approx(0.8 - (2 / 9 / 3) ** 0.5)
    assert shadow(row, twin={40: [0.1] * 10}) == alone
    assert shadow({}, twin=None).keys() == {"shadow/curve"}  # a supervised run
    assert shadow({"pseudo/mask_rate": 1.0}, twin=None).keys() == {"shadow/curve"}


def rows_of(*changes):
    """Healthy rows at steps 10, 20, ..., each with changes."""
    healthy = {
        "pseudo/mask_rate": 0.5, "pseudo/used": 8.0, "pseudo/share_0": 0.4, "pseudo/share_1": 0.6,
        "shadow/precision": 0.9, "shadow/reference": 0.8,
    }  # fmt: skip
    return [{"step": 10 * n} | healthy | change for n, change in enumerate(changes, start=1)]


IDLE = {"pseudo/mask_rate": 1.0, "pseudo/used": 0.0}
ONE = {"pseudo/share_0": 0.99, "pseudo/share_1": 0.01}


@pytest.mark.parametrize(
    "rows, settings, expected",
    [
        (rows_of({}, {}, {}), {}, set()),
        (rows_of({}, IDLE, IDLE), {}, set()),  # 20 steps are not yet 30
        (rows_of({}, IDLE, IDLE, IDLE), {}, {"nothing_selected"}),
        (rows_of(IDLE, IDLE, IDLE), {}, {"nothing_selected"}),  # never anything
        (rows_of(IDLE, IDLE, IDLE, {}), {}, set()),  # and it is over
        (rows_of({}, ONE, ONE), {}, {"one_class"}),
        (rows_of(ONE, {}, {}), {}, set()),  # out of the window
        (rows_of({}, ONE | {"pseudo/used": 0.9}), {"window_steps": 10}, set()),  # 9 rows are few
        (rows_of(ONE, ONE), {"prior": np.array([0.98, 0.02])}, set()),  # as the labelled rows are
        (rows_of({}, {"shadow/precision": 0.79}), {}, {"shadow_precision"}),
        (rows_of({"shadow/precision": 0.79}, {}), {}, set()),
        (rows_of({}), {"repeated": 0.5}, {"repeated_views"}),
    ],
)  # fmt: skip
def test_alarms(rows, settings, expected):
    found = monitor.alarms(rows, **(SETTINGS | settings))
    assert {name for name, up in found.items() if up} == expected
    assert found.keys() == set(monitor.ALARMS)


def test_a_run_without_pseudo_labels_has_no_alarms():
    assert monitor.alarms([{"step": 5, "loss/total": 1.0}], **SETTINGS) == {}


def test_no_pseudo_label_is_missed_before_there_are_any():
    """A supervised start of 60 steps is no idle time; the 30 steps after it are."""
    supervised = [{"step": step, "loss/total": 1.0} for step in range(10, 70, 10)]
    rows = [row | {"step": row["step"] + 60} for row in rows_of(IDLE, IDLE, IDLE)]
    assert not monitor.alarms([*supervised, *rows[:2]], **SETTINGS)["nothing_selected"]
    assert monitor.alarms([*supervised, *rows], **SETTINGS)["nothing_selected"]


def test_an_evaluation_lasts_until_the_next_one():
    rows = rows_of({"shadow/precision": 0.1}, {})
    del rows[1]["shadow/precision"]
    assert monitor.alarms(rows, **SETTINGS)["shadow_precision"]


def test_history_counts_steps():
    up = {"alarm/one_class": 1.0}
    rows = rows_of({}, up | {"brake": 0.0}, up | {"brake": 1.0}, {"brake": 1.0})
    rows[1]["step"], rows[2]["step"], rows[3]["step"] = 25, 30, 50
    assert monitor.history(rows) == {
        "alarms": {"one_class": {"first_step": 25, "steps": 20, "at_the_end": False}},
        "braked_steps": 25,
    }


def test_most_uncertain_are_the_nearest_to_a_half():
    assert monitor.most_uncertain(np.array([0.9, 0.45, 0.5, 0.1]), 2) == [(2, 0.5), (1, 0.45)]


# Failures injected into whole runs: one encoder layer, one device, made-up texts that are easy to
# tell apart.

WORDS = {0: "bread garden music river", 1: "storm danger blade poison"}


def write_corpus(path, harmful, safe):
    rng = np.random.default_rng(0)
    labels = rng.permutation([1] * harmful + [0] * safe).tolist()
    with path.open("w") as file:
        for number, label in enumerate(labels):
            words = rng.choice(WORDS[label].split(), 3)
            text = (
                f"{words[0]} {words[1]} number {number} {words[2]} item {number * 7} line {number}"
            )
            file.write(json.dumps({"prompt": text, "label": label}) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("observatory")
    write_corpus(folder / "even.jsonl", 120, 120)
    write_corpus(folder / "rare.jsonl", 17, 600)
    one_device = functools.partial(sharding.make_mesh, jax.devices()[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", one_device)
        yield folder


def run(folder, name, corpus="even", module=fixmatch, **changes):
    config = module.get_config("smoke")
    config.data.dir, config.data.corpus = str(folder / "data"), str(folder / f"{corpus}.jsonl")
    config.data.task, config.data.max_length, config.data.buckets = "prompt_harm", 32, (32,)
    config.train.steps, config.train.eval_every_steps, config.train.log_every_steps = 36, 12, 6
    config.eval.bootstrap_samples = 10
    config.optim.lr, config.optim.layer_lr_decay, config.monitor.disable_unlabelled_on_alarm = (
        1e-3,
        1.0,
        True,
    )
    config.data.labelled = 14
    if "fixmatch" in config:
        config.fixmatch.threshold = 0.6
    config.monitor.window_steps = 12
    config.update_from_flattened_dict(changes)
    report = train_run.train_and_evaluate(config, folder / name)
    return report["observatory"], read_jsonl(folder / name / "metrics.jsonl")


@pytest.fixture(scope="module")
def twin(folder):
    run(folder, "twin", module=supervised)
    return folder / "twin"


def test_a_healthy_run_raises_nothing(folder, twin):
    """Nothing at the end: the first steps of an untrained head may well raise an alarm."""
    found, rows = run(folder, "healthy", **{"monitor.baseline_run": str(twin)})
    assert not any(alarm["at_the_end"] for alarm in found["alarms"].values())
    assert rows[-1]["brake"] == 0.0
    assert rows[-1]["pseudo/accuracy"] == 1.0 and rows[-1]["shadow/precision"] == 1.0
    shares = [rows[-1][f"pseudo/share_{c}"] for c in (0, 1)]
    assert rows[-1]["pseudo/kl_to_prior"] == pytest.approx(
        scipy.stats.entropy(shares, [0.5, 0.5]), abs=1e-6
    )
    assert len(found["label_next"]) == 20
    assert all(row.keys() == {"id", "score"} for row in found["label_next"])


def test_flipped_labels_are_noticed_and_braked(folder, twin, monkeypatch):
    """The labelled rows lie, dev does not: precision on it falls under the honest twin's."""

    class Flipped:
        def __init__(self, records):
            self.records, self.lengths = records, records.lengths

        def __len__(self):
            return len(self.records)

        def gather(self, numbers):
            return [row | {"label": 1 - row["label"]} for row in self.records.gather(numbers)]

    honest = neighbour_views.prepare

    def flipped(*arguments, **options):
        prepared = honest(*arguments, **options)
        return prepared._replace(labelled=Flipped(prepared.labelled))

    monkeypatch.setattr(neighbour_views, "prepare", flipped)
    found, rows = run(folder, "flipped", **{"monitor.baseline_run": str(twin)})
    assert found["alarms"]["shadow_precision"]["at_the_end"]
    assert found["braked_steps"] >= 12
    assert rows[-1]["brake"] == 1.0 and rows[-1]["pseudo/mask_rate"] < 1.0


def test_a_pool_of_one_percent_harmful_is_noticed(folder):
    found, rows = run(folder, "rare", corpus="rare", **{"data.dev": 60, "data.test": 60})
    assert rows[-1]["pseudo/share_0"] > 0.9
    assert found["alarms"]["one_class"]["at_the_end"] and found["braked_steps"] > 0


def test_a_constant_augmentation_is_noticed(folder, monkeypatch):
    def constant(texts):
        return ops.each(lambda text, rng: "sorry, not this")

    monkeypatch.setitem(ops.OPS, "refusal", constant)
    changes = {"augment.name": "refusal", "augment.ops": ("refusal",)}
    found, _ = run(folder, "constant", **changes)
    assert found["alarms"]["repeated_views"] == {"first_step": 6, "steps": 36, "at_the_end": True}
    assert found["braked_steps"] == 30  # all but the first rows, which nothing had judged yet


def test_suspect_labels_are_the_flipped_ones(folder, monkeypatch):
    """Three labelled rows carry the wrong label: they top the list of a supervised run."""
    honest, wrong = neighbour_views.prepare, []

    class Mislabelled:
        def __init__(self, records):
            self.records, self.lengths = records, records.lengths
            wrong[:] = [records[i]["id"] for i in (0, 5, 9)]

        def __len__(self):
            return len(self.records)

        def gather(self, numbers):
            rows = self.records.gather(numbers)
            return [r | {"label": 1 - r["label"]} if r["id"] in wrong else r for r in rows]

    def mislabelled(*arguments, **options):
        prepared = honest(*arguments, **options)
        return prepared._replace(labelled=Mislabelled(prepared.labelled))

    monkeypatch.setattr(neighbour_views, "prepare", mislabelled)
    changes = {
        "data.labelled": 60,
        "train.eval_every_steps": 36,
    }  # read when all were seen four times
    found, _ = run(folder, "mislabelled", module=supervised, **changes)
    assert {row["id"] for row in found["suspect_labels"][:3]} == set(wrong)


def test_a_twin_must_be_finished_and_have_the_same_dev_rows(folder, twin):
    with pytest.raises(BadInput, match="baseline_run: there is no run .*nowhere"):
        run(folder, "no_twin", **{"monitor.baseline_run": str(folder / "nowhere")})
    with pytest.raises(BadInput, match="other dev rows"):
        run(folder, "other_twin", **{"monitor.baseline_run": str(twin), "seed": 1})
