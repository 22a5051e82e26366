"""MarginMatch: its parts against NumPy, and whole epochs against loops over examples in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import (
    POOL,
    UNLABELLED,
    clock_of,
    compiled,
    mean_consistency,
    mean_cross_entropy,
    random_step,
    value,
)
from scipy.special import softmax

from ssl_guard import algorithms, steps
from ssl_guard.algorithms import marginmatch
from ssl_guard.errors import BadInput

TAU, SMOOTHNESS, WARMUP = 0.9, 0.9, 0.05


def assert_close(actual, expected):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5), actual, expected
    )


def margin_of(logits):
    """The pseudo-margin of every class, a class at a time."""
    return [z - max(np.delete(logits, c)) for c, z in enumerate(logits)]


def test_pseudo_margins():
    logits = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    logits[0] = [-3, -5, -4, -9]  # a negative second-largest logit is no zero
    logits[1] = [2, 1, 2, 0]  # a tie: nobody leads
    pseudo_margins = jax.jit(marginmatch.pseudo_margins)
    expected = [margin_of(row) for row in logits]
    np.testing.assert_allclose(pseudo_margins(logits), expected, rtol=1e-6)
    binary = np.asarray(pseudo_margins(logits[:, :2]))
    np.testing.assert_array_equal(binary[:, 0], -binary[:, 1])


def test_quantiles_equal_numpys():
    """The linear method over a part of the values, for sizes from one up."""
    rng = np.random.default_rng(0)
    quantile = jax.jit(marginmatch.masked_quantile)
    values = np.round(rng.normal(size=1000) * 20).astype(np.float32) / 4  # with ties
    for size in (1, 2, 3, 20, 21, 999, 1000):
        mask = np.zeros(1000, bool)
        mask[rng.permutation(1000)[:size]] = True
        for q in (0.0, 0.05, 0.25, 0.5, 0.95, 1.0):
            expected = np.quantile(values[mask].astype(float), q, method="linear")
            assert quantile(values, mask, q) == pytest.approx(expected, rel=1e-5, abs=1e-4)
    assert quantile(values, np.zeros(1000, bool), 0.05) == 0


def test_the_bits_of_a_float_are_in_its_order():
    """Signs, both zeros, numbers that are not normal, infinities: any rank is that of a sort."""
    values = np.array([0.0, -0.0, 1e-40, -1e-40, 3.5, -3.5, np.inf, -np.inf, 1e30], np.float32)
    mask = np.arange(9) != 4
    statistic = jax.jit(marginmatch.order_statistic)
    found = [float(statistic(values, mask, rank)) for rank in range(8)]
    assert found == np.sort(values[mask]).tolist()


def test_an_empty_class_does_not_stop_the_others():
    margins = np.random.default_rng(1).normal(size=(30, 2, 3)).astype(np.float32)
    agreed = np.array([0, 2, -1] * 10)
    cut = jax.jit(marginmatch.agreement_cutoffs)(margins, agreed, 0.05)
    chosen = [margins[agreed == c, :, c].ravel() for c in range(3)]
    expected = [np.quantile(v, 0.05) if v.size else 0.0 for v in chosen]
    np.testing.assert_allclose(cut, expected, rtol=1e-5)
    assert expected[1] == 0 and expected[0] != 0 and expected[2] != 0


def test_the_recurrence_is_the_arithmetic_mean_when_delta_is_1():
    algorithm, call = compiled("marginmatch", smoothness=1.0)
    state, visits = algorithm.init_state(POOL, 3, 1), [[] for _ in range(POOL)]
    rng = np.random.default_rng(4)
    for step in range(12):
        logits, batch = random_step(rng)
        state, *_ = call(state, logits, batch, clock_of(step, 3))
        for row in np.flatnonzero(batch["weight"]):
            visits[batch["index"][row]].append(margin_of(logits["weak"][row, 0]))
    np.testing.assert_array_equal(state["visits"], [len(v) for v in visits])
    expected = [np.mean(v, axis=0) if v else np.zeros(3) for v in visits]
    np.testing.assert_allclose(state["margins"][:, 0], expected, rtol=1e-5, atol=1e-5)
    assert max(len(v) for v in visits) > 4


class Loops:
    """The equations for one example, head and class at a time."""

    def __init__(self, threshold, heads, classes, quantile):
        self.threshold, self.quantile = threshold, quantile
        self.heads, self.classes = range(heads), range(classes)
        self.selected = np.full((POOL, heads), -1)
        self.margins, self.visits = np.zeros((POOL, heads, classes)), np.zeros(POOL, int)
        self.cutoff = np.full((heads, classes), 1.5 if threshold == "fixed" else 0.0)
        self.agreed = np.full((POOL, heads), -1)
        self.virtual = {}  # pool index -> its visits as a member of E, each one margin per head

    def step(self, logits, batch, *, erroneous=(), masks=True, epoch_ends=False):
        """(pseudo-labels, weights, weights of the virtual class), each [row, head, ...]."""
        z, classes, heads = logits["weak"], len(self.classes), len(self.heads)
        q = softmax(z[..., :classes].astype(float), axis=-1)
        confident = np.zeros((UNLABELLED, heads))
        for row in range(UNLABELLED):
            for head in self.heads:
                tau = self.flexmatch_threshold(head, q[row, head].argmax())
                confident[row, head] = q[row, head].max() > tau
        ordinary = [
            row
            for row, i in enumerate(batch["index"])
            if batch["weight"][row] > 0 and i not in erroneous
        ]
        for row in ordinary:
            self.visit(batch["index"][row], z[row], q[row])
        labels, passes = q.argmax(-1), np.ones((UNLABELLED, heads))
        for row, i in enumerate(batch["index"]):
            for head in self.heads:
                c = labels[row, head]
                if masks:
                    passes[row, head] = self.margins[i, head, c] >= self.cutoff[head, c]
                both = c if z[row, head].argmax() == logits["strong"][row, head].argmax() else -1
                if batch["weight"][row] > 0:
                    self.agreed[i, head] = both
            if batch["weight"][row] > 0 and i in erroneous:
                margins = [margin_of(z[row, head].astype(float))[-1] for head in self.heads]
                self.virtual.setdefault(i, []).append(margins)
        keep = confident * passes
        share = keep[ordinary].mean(axis=0) if ordinary else np.zeros(heads)
        member = np.isin(batch["index"], list(erroneous))[:, None]
        if epoch_ends:
            self.recalibrate()
        return np.eye(classes)[labels], keep * ~member, member * share

    def flexmatch_threshold(self, head, c):
        count = np.array([(self.selected[:, head] == k).sum() for k in self.classes])
        most = max(count.max(), (self.selected[:, head] == -1).sum())
        beta = count[c] / most
        return TAU * beta / (2 - beta)

    def visit(self, i, z, q):
        s = SMOOTHNESS / (1 + self.visits[i])
        for head in self.heads:
            new = np.array(margin_of(z[head].astype(float)))[: len(self.classes)]
            self.margins[i, head] = s * new + (1 - s) * self.margins[i, head]
            if q[head].max() > TAU:
                self.selected[i, head] = q[head].argmax()
        self.visits[i] += 1

    def virtual_margins(self):
        """{pool index: margins of the virtual class, one per head} of the visited members of E."""
        averages = {}
        for i, visits in self.virtual.items():
            average = np.zeros(len(self.heads))
            for t, margins in enumerate(visits):
                s = SMOOTHNESS / (1 + t)
                average = s * np.array(margins) + (1 - s) * average
            averages[i] = average
        return averages

    def recalibrate(self):
        for head in self.heads:
            if self.threshold == "agreement":
                for c in self.classes:
                    chosen = self.margins[self.agreed[:, head] == c, head, c]
                    cut = np.quantile(chosen, self.quantile) if chosen.size else 0.0
                    self.cutoff[head, c] = max(cut, 0.0)
            if self.threshold == "virtual" and self.virtual:
                averages = [average[head] for average in self.virtual_margins().values()]
                self.cutoff[head] = np.quantile(averages, self.quantile)

    def assert_state(self, state):
        assert_close(state["margins"], self.margins)
        assert_close(state["cutoff"], self.cutoff)
        np.testing.assert_array_equal(state["visits"], self.visits)
        np.testing.assert_array_equal(state["flexmatch"]["selected"], self.selected)
        if self.threshold == "agreement":
            np.testing.assert_array_equal(state["agreed"], self.agreed)
        if self.threshold == "virtual":
            rows = list(self.virtual)
            current = np.asarray(state["virtual_draw"]) == int(state["draw"]["number"])
            assert set(np.flatnonzero(current)) == set(rows)
            counts = [len(visits) for visits in self.virtual.values()]
            np.testing.assert_array_equal(state["virtual_visits"][np.array(rows, int)], counts)
            for i, average in self.virtual_margins().items():
                assert_close(state["virtual_margin"][i], average)


def common_part(rng, heads, classes):
    """Logits that an example keeps over its visits and views."""
    return rng.normal(size=(POOL, heads, classes)) * 3


@pytest.mark.parametrize("threshold, heads, classes", [("fixed", 1, 2), ("agreement", 2, 3)])
def test_epochs_with_recalibration(threshold, heads, classes):
    hyper = {"threshold": threshold, "cutoff": 1.5, "agreement_quantile": 0.4}
    hyper |= {"confidence": TAU, "smoothness": SMOOTHNESS, "unlabelled_weight": 2.0}
    algorithm, call = compiled("marginmatch", **hyper)
    loops = Loops(threshold, heads, classes, 0.4)
    state, rng = algorithm.init_state(POOL, classes, heads), np.random.default_rng(5)
    nature, used, cutoffs = common_part(rng, heads, classes), [], []
    for step in range(16):
        logits, batch = random_step(rng, classes, heads)
        for view in ("weak", "strong"):
            logits[view] = (logits[view] + nature[batch["index"]]).astype(np.float32)
        state, target, terms, gradient = call(state, logits, batch, clock_of(step, 4))
        probs, weight, _ = loops.step(logits, batch, epoch_ends=step % 4 == 3)
        loops.assert_state(state)
        np.testing.assert_array_equal(target.probs, probs)
        np.testing.assert_array_equal(target.weight, weight)
        expected = 2 * mean_consistency(logits["strong"], probs, weight, batch["weight"])
        assert value(terms["unlabelled"]) == pytest.approx(expected, rel=1e-5)
        expected = mean_cross_entropy(logits["labelled"], *batch["labelled"].values())
        assert value(terms["supervised"]) == pytest.approx(expected, rel=1e-5)
        moved = np.abs(gradient).max(-1) > 0
        np.testing.assert_array_equal(moved, weight * batch["weight"][:, None] > 0)
        used.append(weight)
        cutoffs.append(loops.cutoff.copy())
    assert 0 < np.mean(used) < 1
    assert len(np.unique(cutoffs, axis=0)) == (1 if threshold == "fixed" else 5)


VIRTUAL = dict(threshold="virtual", virtual_share=0.3, virtual_quantile=0.6, redraw_epochs=2)
VIRTUAL |= dict(warmup=WARMUP, confidence=TAU, smoothness=SMOOTHNESS)


def test_the_virtual_class_over_epochs_and_draws():
    """Warm-up until step 5 of 100, epochs of 4 steps, two epochs per draw, the end at step 90."""
    heads, classes = 2, 2
    algorithm, call = compiled("marginmatch", **VIRTUAL)
    loops = Loops("virtual", heads, classes, 0.6)
    state, rng = algorithm.init_state(POOL, classes, heads), np.random.default_rng(6)
    nature, sets, cutoffs = common_part(rng, heads, classes + 1), [], []
    for step in [*range(24), *range(86, 92)]:
        logits, batch = random_step(rng, classes + 1, heads)
        logits["weak"] = (logits["weak"] + nature[batch["index"]]).astype(np.float32)
        batch["labelled"]["label"] %= classes
        clock = clock_of(step, 4)
        before = None if step == 0 else int(state["draw"]["number"])
        state, target, terms, _ = call(state, logits, batch, clock)

        if int(state["draw"]["number"]) != before:  # a new set E, of which nothing is known
            assert int(state["draw"]["number"]) == step // 8
            loops.virtual = {}
            drawn = marginmatch.is_drawn(jnp.arange(POOL), state["draw"]["seed"], 0.3)
            sets.append(set(np.flatnonzero(drawn)))
        active = 5 <= step < 90
        probs, weight, virtual = loops.step(
            logits,
            batch,
            erroneous=sets[-1] if active else (),
            masks=step >= 5,
            epoch_ends=active and step % 4 == 3,
        )
        loops.assert_state(state)
        np.testing.assert_array_equal(target.probs, probs)
        np.testing.assert_array_equal(target.weight, weight)
        assert_close(target.extra, virtual)

        # Pseudo-labels and the virtual class are answers among all C + 1 outputs.
        padded = np.concatenate([probs, np.zeros((*probs.shape[:2], 1))], axis=-1)
        expected = mean_consistency(logits["strong"], padded, weight, batch["weight"])
        assert value(terms["unlabelled"]) == pytest.approx(expected, rel=1e-5)
        last = np.broadcast_to(np.eye(classes + 1)[-1], padded.shape)
        expected = mean_consistency(logits["strong"], last, virtual, batch["weight"])
        assert value(terms["virtual"]) == pytest.approx(expected, rel=1e-5, abs=1e-7)
        expected = mean_cross_entropy(logits["labelled"], *batch["labelled"].values())
        assert value(terms["supervised"]) == pytest.approx(expected, rel=1e-5)
        cutoffs.append(loops.cutoff.copy())
    assert len({frozenset(e) for e in sets}) == 5 and all(sets)
    assert (cutoffs[6] == 0).all() and len(np.unique(cutoffs, axis=0)) > 4


def test_the_random_set_has_its_share_and_stays():
    index = np.arange(20_000)
    drawn = jax.jit(marginmatch.is_drawn)
    first, again, other = (np.asarray(drawn(index, seed, 0.01)) for seed in (7, 7, 8))
    assert 150 < first.sum() < 250  # 200 are expected, 14 is the standard deviation
    np.testing.assert_array_equal(first, again)
    assert (first & other).sum() < 20


def test_with_cutoff_0_a_first_visit_is_flexmatch():
    rng = np.random.default_rng(7)
    algorithm, call = compiled("marginmatch", smoothness=1.0)
    flexmatch, flex_call = compiled("flexmatch")
    state, flex_state = algorithm.init_state(POOL, 3, 1), flexmatch.init_state(POOL, 3, 1)
    flipped = 0
    for step in range(8):
        logits, batch = random_step(rng)
        old = np.asarray(state["margins"][batch["index"], 0])
        counts = batch["weight"] > 0
        first = counts & (np.asarray(state["visits"])[batch["index"]] == 0)
        state, target, *_ = call(state, logits, batch, clock_of(step, 4))
        flex_state, flex, *_ = flex_call(flex_state, logits, batch, clock_of(step, 4))
        np.testing.assert_array_equal(target.weight[first], flex.weight[first])
        assert (np.asarray(target.weight) <= np.asarray(flex.weight)).all()
        flips = counts & (np.asarray(target.weight) < np.asarray(flex.weight))[:, 0]
        assert (old[flips].argmax(-1) != logits["weak"][flips, 0].argmax(-1)).all()
        flipped += flips.sum()
    assert flipped > 0


@pytest.mark.parametrize("threshold", ["agreement", "virtual"])
def test_a_second_copy_and_padding_touch_nothing(threshold):
    hyper = VIRTUAL if threshold == "virtual" else {"threshold": threshold}
    algorithm, call = compiled("marginmatch", **hyper)
    logits, batch = random_step(np.random.default_rng(8), 2 + algorithm.extra_classes, 2)
    batch["labelled"]["label"] %= 2
    batch["index"] = np.array([5, 5, 6, 5, 7, 8, 9, 0], np.int32)
    batch["weight"] = np.array([1, 0, 1, 0, 1, 1, 1, 0], np.float32)
    logits["weak"][[1, 3, 7]] = np.nan
    state = algorithm.init_state(POOL, 2, 2)
    after, target, _, gradient = call(state, logits, batch, clock_of(10, 11))
    seen = np.isin(np.arange(POOL), [5, 6, 7, 8, 9])
    visits = np.asarray(after["visits"])
    if threshold == "virtual":
        visits = visits + np.asarray(after["virtual_visits"])
        assert (np.asarray(target.extra) > 0).any()
    np.testing.assert_array_equal(visits, seen)
    assert (np.asarray(after["margins"])[~seen] == 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    used = np.asarray(target.weight) * batch["weight"][:, None] > 0
    np.testing.assert_array_equal(np.abs(gradient).max(-1) > 0, used)

    # Nobody counts: nothing moves, not even the cut-off at the end of an epoch that drew a new E,
    # and the loss is zero.
    batch["weight"] = np.zeros_like(batch["weight"])
    still, _, terms, gradient = call(after, logits, batch, clock_of(11, 4))
    if threshold == "virtual":
        assert still.pop("draw")["number"] != after.pop("draw")["number"]
        assert (np.asarray(after["cutoff"]) != 0).all()
    assert_close(still, jax.device_get(after))
    assert all(value(term) == 0 for name, term in terms.items() if name != "supervised")
    assert (np.asarray(gradient) == 0).all()


def test_predictions_leave_the_virtual_class_out():
    logits = jnp.array([[[1.0, 2.0, 9.0], [2.0, 2.0, 9.0]]])
    probs = steps.predict_step(None, {}, apply=lambda *_: logits, extra_classes=1)
    np.testing.assert_allclose(probs, softmax([[1.5, 2.0]], axis=-1), rtol=1e-6)


def test_a_model_without_the_virtual_class_and_unknown_thresholds_are_refused():
    logits, batch = random_step(np.random.default_rng(9), 2)
    algorithm = algorithms.build("marginmatch", threshold="virtual")
    state = algorithm.init_state(POOL, 2, 1)
    with pytest.raises(BadInput, match="needs 3 outputs"):
        algorithm.target(state, logits, batch, clock_of(0, 4), algorithms.NO_COLLECTIVES)
    with pytest.raises(BadInput, match="fixed, agreement, virtual"):
        algorithms.build("marginmatch", threshold="percentile")
