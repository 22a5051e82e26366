"""Heads fitted before the first step, against scikit-learn called directly."""

import json

import jax
import numpy as np
import pytest
from scipy.special import erf, expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import inference, prepare, scorer
from ssl_guard.runtime import sharding
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.train import head_init, loop
from ssl_guard.train import run as train_run
from tests.tiny import ANSWERS, TOPICS, final_checkpoint, smoke, timeless

pytestmark = pytest.mark.usefixtures("shared_programs")
FITTED = {"model.head_init": "logistic"}


def pooled(model, params, records):
    """The features of each record, in a batch of its own without padding."""
    for record in records:
        tokens = record["input_ids"][None].astype(np.int32)
        second = (np.arange(tokens.shape[1]) >= record["second"])[None].astype(np.int32)
        batch = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        batch |= {"token_type_ids": second, "row": np.zeros(1, np.int32)}
        yield np.asarray(model.stages.features(params, batch, None, False))[0]


def reference(features, labels):
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000))
    return pipeline.fit(features.astype(np.float64), labels)


class Case:
    """A tiny model with pretrained weights, its data, and its fitted head."""

    def __init__(self, folder, name="supervised", extra_classes=0, change=lambda prep: prep, **of):
        self.config = smoke(folder, name, **FITTED, **of)
        prepared = prepare.prepare(self.config, views=())
        self.prepared = change(prepared)
        self.model = scorer.build_model(self.config, prepared.model_folder, extra_classes)
        self.params = scorer.initial_params(self.config, self.model, prepared.model_folder)
        mesh = sharding.make_mesh()
        self.head = head_init.logistic(self.config, self.model, self.params, self.prepared, mesh)
        self.labels = inference.labels_of(self.prepared.labelled)

    def features(self, side):
        found = pooled(self.model, self.params, getattr(self.prepared, side))
        return np.stack(list(found))

    def logits(self, features):
        """float64 [rows, heads, classes]."""
        params, rows = self.params | {"head": self.head}, np.arange(len(features))
        found = self.model.stages.classify(params, jax.numpy.asarray(features), rows, None, False)
        return np.asarray(found, np.float64)


def test_a_linear_head_gives_the_decision_function(folder):
    case = Case(folder, **{"model.head": "linear"})
    labelled, dev = case.features("labelled"), case.features("dev")
    expected = reference(labelled, case.labels).decision_function(dev.astype(np.float64))
    logits = case.logits(dev)[:, 0]
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(logits.sum(axis=1), 0, atol=1e-5)
    assert expected.std() > 0.1


def test_the_heads_of_an_mlp_differ_and_fit_their_own_hidden_layer(folder):
    case = Case(folder, "multihead_cotraining")
    labelled, dev = case.features("labelled"), case.features("dev")

    def hidden(x, number):
        layer = case.params["head"][f"dense_{number}"]
        x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        return (x * 0.5 * (1 + erf(x / np.sqrt(2)))).astype(np.float64)

    logits = case.logits(dev)
    for number in range(3):
        fitted = reference(hidden(labelled, number), case.labels)
        expected = fitted.decision_function(hidden(dev, number))
        np.testing.assert_allclose(np.diff(logits[:, number])[:, 0], expected, atol=1e-4)
        np.testing.assert_array_equal(
            case.head[f"dense_{number}"]["kernel"], case.params["head"][f"dense_{number}"]["kernel"]
        )
    assert np.abs(logits[:, 0] - logits[:, 1]).max() > 0.05


def test_an_extra_class_stays_random(folder):
    case = Case(folder, extra_classes=1, **{"model.head": "linear"})
    ours, theirs = case.head["output_0"], case.params["head"]["output_0"]
    np.testing.assert_array_equal(ours["kernel"][:, 2], theirs["kernel"][:, 2])
    assert ours["bias"].shape == (3,) and ours["bias"][2] == theirs["bias"][2]
    dev = case.features("dev")
    expected = reference(case.features("labelled"), case.labels).decision_function(dev)
    logits = case.logits(dev)[:, 0]
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-5)


def test_each_task_has_a_head_of_its_own_rows(folder, tmp_path):
    lines = [f"{' '.join(TOPICS[i % 29 :][:3])} {ANSWERS[i % 2]} {i}" for i in range(300)]
    rows = [{"id": f"p{i}", "prompt": line, "label": i % 2} for i, line in enumerate(lines)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    of = {"data.prompt_corpus": str(tmp_path / "prompts.jsonl"), "data.dir": str(tmp_path)}
    case = Case(folder, **of, **{"model.head": "linear", "data.labelled": 30})
    features, dev = case.features("labelled"), case.features("dev")
    has_answer = [record["second"] < len(record["input_ids"]) for record in case.prepared.labelled]
    logits = case.logits(dev)
    for task in (0, 1):
        mine = np.array(has_answer) == task
        expected = reference(features[mine], case.labels[mine]).decision_function(dev)
        np.testing.assert_allclose(np.diff(logits[:, task])[:, 0], expected, atol=1e-5)


def test_a_feature_without_variance():
    """Two rows, and columns that are the same number for both."""
    features = np.array([[1.0, 0.0, 5.0], [3.0, 0.0, 5.0]])
    weight, bias = head_init._fit(features, np.array([0, 1]))
    np.testing.assert_allclose(weight[1:], 0, atol=1e-12)
    expected = reference(features, [0, 1]).decision_function(features)
    np.testing.assert_allclose(features @ weight + bias, expected, atol=1e-12)


def test_rows_of_one_class_are_refused(folder):
    def one_class(prepared):
        harmful = np.flatnonzero(inference.labels_of(prepared.labelled))
        return prepared._replace(labelled=prepared.labelled.subset(harmful))

    with pytest.raises(BadInput, match="head 0 cannot be fitted, since its labelled rows"):
        Case(folder, change=one_class)


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("multimatch", {"model.head": "linear"}, "all 3 linear heads equal"),
        ("supervised", {"model.head_init": "zeros"}, "must be one of random, logistic"),
        ("setfit", {}, "the steps of setfit read no head"),
    ],
)
def test_settings_that_are_refused(folder, name, changes, words):
    config = smoke(folder, name, **FITTED | changes)
    with pytest.raises(BadInput, match=words):
        train_run.train_and_evaluate(config, folder / "refused")
    assert not (folder / "refused").exists()


def test_a_run_starts_from_the_fit(folder):
    """At a learning rate of 0, the scores of the run are those of its start."""
    changes = {"model.head": "linear", "optim.lr": 0.0, "train.steps": 1}
    auprc = {}
    for kind in ("random", "logistic"):
        config = smoke(folder, "supervised", **changes, **{"model.head_init": kind})
        report = train_run.train_and_evaluate(config, folder / f"start-{kind}")
        auprc[kind] = report["dev"]["raw"]["auprc"]
    assert auprc["logistic"] > auprc["random"] + 0.1
    case = Case(folder, **{"model.head": "linear"})
    decision = reference(case.features("labelled"), case.labels).decision_function
    rows = {
        row["id"]: row["raw"] for row in read_jsonl(folder / "start-logistic/predictions.jsonl")
    }
    found = [rows[record["id"]] for record in case.prepared.test]
    np.testing.assert_allclose(found, expit(decision(case.features("test"))), atol=1e-5)


def test_a_resumed_run_does_not_start_again(folder, monkeypatch):
    """Stopped in step 4 and resumed from the checkpoint of step 2, where a fit would be wrong."""
    config, calls = smoke(folder, "fixmatch", **FITTED), []
    whole = train_run.train_and_evaluate(config, folder / "whole")
    count, logistic = loop.pipeline.token_counts, head_init.logistic

    def interrupt(batch):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return count(batch)

    monkeypatch.setattr(loop.pipeline, "token_counts", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_run.train_and_evaluate(config, folder / "stopped")
    monkeypatch.undo()
    monkeypatch.setattr(
        head_init, "logistic", lambda *args: jax.tree.map(np.zeros_like, logistic(*args))
    )
    assert train_run.train_and_evaluate(config, folder / "stopped")["test"] == whole["test"]
    assert timeless(folder / "stopped") == timeless(folder / "whole")
    pairs = zip(*map(final_checkpoint, (folder / "stopped", folder / "whole")), strict=True)
    assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)
