"""Two tasks in one model: each row is answered by the heads of its own."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_guard import config as config_module
from ssl_guard import models
from ssl_guard.data import assemble, pipeline
from ssl_guard.data.schema import TASKS, Example, make_corpus
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import prepare
from ssl_guard.models import heads
from ssl_guard.train import run as train_run
from tests.tiny import smoke


def test_the_logits_of_the_own_task():
    logits = np.arange(5 * 6 * 2, dtype=np.float32).reshape(5, 6, 2)
    task = np.array([0, 2, 1, 2, 0])
    found = heads.of_task(jnp.asarray(logits), jnp.asarray(task), 3)
    expected = [logits[i, 2 * t : 2 * t + 2] for i, t in enumerate(task)]
    np.testing.assert_array_equal(found, expected)


def test_a_row_gets_what_a_model_of_its_task_alone_says(tmp_path):
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=24)
    config = {"model_type": "bert", "vocab_size": 40, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    both = models.build(tmp_path, num_heads=2, num_tasks=2)
    alone = models.build(tmp_path, num_heads=2)
    ids = np.random.default_rng(0).integers(1, 40, (4, 6)).astype(np.int32)
    batch = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
        "row": np.arange(4, dtype=np.int32),
        "task": np.array([1, 0, 0, 1], np.int32),
    }
    shapes = jax.eval_shape(both.init, jax.random.key(0), batch)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    found = both.apply(params, batch, None, False)
    assert found.shape == (4, 2, 2)

    def of(task):
        names = {
            f"{kind}_{i}": f"{kind}_{2 * task + i}" for kind in ("dense", "output") for i in (0, 1)
        }
        head = {mine: params["head"][theirs] for mine, theirs in names.items()}
        return alone.apply({"encoder": params["encoder"], "head": head}, batch, None, False)

    expected = np.where(batch["task"][:, None, None] == 1, of(1), of(0))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(of(0) - of(1)).min() > 1e-7

    def loss(params):
        return both.apply(params, batch, None, False)[1:3].sum()

    gradient = jax.grad(loss)(params)["head"]
    assert not gradient["output_2"]["kernel"].any() and gradient["output_1"]["kernel"].any()


def example(name, response, label=1):
    return Example(name, f"prompt {name}", response, label, None, "test", "unstated")


def test_corpora_that_do_not_go_together():
    pairs = make_corpus("pairs", "response_harm", [example("a", "yes")], "x")
    prompts = make_corpus("prompts", "prompt_harm", [example("b", None)], "y")
    joined = assemble.with_prompts(pairs, prompts)
    assert [e.id for e in joined.examples] == ["a", "b"] and joined.licence == "x and y"
    with pytest.raises(BadInput, match="pairs and the prompt corpus pairs share 1 ids, such as a"):
        assemble.with_prompts(pairs, pairs)
    with pytest.raises(BadInput, match="rows without a response"):
        assemble.with_prompts(prompts, pairs)


def test_content_moderation_is_a_text_alone(tmp_path):
    lines = [{"text": f"comment {i} about pond {i * 7}", "toxic": i % 2} for i in range(120)]
    lines = [line | {"response": "never read"} for line in lines]
    path = tmp_path / "comments.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    changes = {"data.corpus": str(path), "data.task": "content_moderation"}
    changes |= {"data.columns.prompt": "text", "data.columns.label": "toxic"}
    config = smoke(tmp_path, "supervised", **changes)
    config_module.check(config)
    found = prepare.prepare(config, views=())
    assert found.summary["task"] == "content_moderation"
    assert found.summary["licence"] == "unstated" and found.summary["commercial_use"] is None
    assert {TASKS[number] for number in pipeline.tasks_of(found.test)} == {"prompt_harm"}
    alone = found.tokenizer.encode([e.prompt for e in found.texts["test"]], [None] * 30)
    for record, expected in zip(found.test.gather(range(30)), alone, strict=True):
        np.testing.assert_array_equal(record["input_ids"], expected.input_ids)


def test_a_run_of_two_tasks_reports_each(tmp_path):
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(200)]
    lines = [
        {
            "id": f"p{i}",
            "prompt": " ".join(rng.choice(words, 12)),
            "label": ["safe", "unsafe"][i % 2],
        }
        for i in range(600)
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    changes = {"data.prompt_corpus": str(path), "train.steps": 2, "data.test": 40}
    result = train_run.train_and_evaluate(
        smoke(tmp_path, "supervised", **changes), tmp_path / "run"
    )
    assert result["data"]["task"] == "both"
    assert set(result["test_by_task"]) == {"prompt_harm", "response_harm"}
    for scores in result["test_by_task"].values():
        assert 0 <= scores["raw"]["f1"]["value"] <= 1
    with pytest.raises(BadInput, match="vat works inside the model .* config.data.prompt_corpus"):
        train_run.train_and_evaluate(smoke(tmp_path, "vat", **changes), tmp_path / "other")
