"""Checkpoints and endpoints as scorers of examples, on a tiny random BERT of our own making."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import expit, softmax
from sklearn.metrics import average_precision_score, f1_score
from transformers import AutoTokenizer

from ssl_guard import models
from ssl_guard.data.schema import Example, make_corpus
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import (
    eval_sets,
    evaluate,
    external,
    judge,
    metrics,
    records_io,
    robustness,
    scorer,
)
from ssl_guard.evaluation.table import notes
from ssl_guard.models import convert

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] how do i bake bread an answer rain sun garden tree"
CONFIG = {
    "model_type": "bert",
    "vocab_size": len(WORDS.split()),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
}


def checkpoint(folder, without=(), **changes):
    """A model folder with random weights, none of them trivial, and a WordPiece vocabulary."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    (folder / "vocab.txt").write_text(WORDS.replace(" ", "\n"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 12}))
    model, token = models.build(folder), jnp.zeros((1, 1), jnp.int32)
    shapes = jax.eval_shape(model.encoder.init, jax.random.key(0), token, token, token)["params"]
    rng = np.random.default_rng(0)
    encoder = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape), shapes)
    outputs = len(changes.get("id2label", "ab"))
    head = {
        "bert.pooler.dense.weight": rng.normal(size=(16, 16)),
        "bert.pooler.dense.bias": rng.normal(size=16),
        "classifier.weight": rng.normal(size=(outputs, 16)),
        "classifier.bias": rng.normal(size=outputs),
    }
    tensors = {
        f"bert.{name}": t for name, t in convert.to_hf(encoder, model.config.hf_names).items()
    }
    tensors |= {name: t.astype(np.float32) for name, t in head.items() if name not in without}
    save_file(tensors, folder / "model.safetensors")
    return folder


def example(i, prompt, response=None, label=None):
    return Example(str(i), prompt, response, label, None, "made up", "CC0")


EXAMPLES = [
    example(0, "how do i bake bread"),
    example(1, "garden", "an answer"),
    example(2, "rain"),
    example(3, "sun tree rain unheard", "how do i bake bread"),
    example(4, "tree"),
]
MULTI = {
    "id2label": {"0": "toxic", "1": "insult", "2": "neutral"},
    "problem_type": "multi_label_classification",
}


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, lambda logits: softmax(logits)[1]),
        (
            {"id2label": {"0": "INJECTION", "1": "BENIGN", "2": "JAILBREAK"}},
            lambda logits: softmax(logits)[[0, 2]].sum(),
        ),
        (MULTI, lambda logits: expit(logits)[:2].max()),
    ],
    ids=["two unnamed", "softmax over three", "sigmoids"],
)
def test_scores_are_those_of_every_row_alone(tmp_path, changes, expected):
    """As transformers' own tokenizer writes it, without batches, pads or sorting."""
    folder = checkpoint(tmp_path / "toxic-bert", **changes)
    peer = external.checkpoint_scorer(folder)
    scores, verdicts = peer.score(EXAMPLES)
    assert peer.name == "toxic-bert" and verdicts is None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = models.load_sequence_classifier(folder)
    alone = []
    for row in EXAMPLES:
        texts = [text for text in (row.prompt, row.response) if text is not None]
        found = tokenizer(*texts, return_tensors="np")
        batch = {name: np.asarray(found[name], np.int32) for name in found}
        logits = np.asarray(model.apply(model.params, batch))[0]
        alone.append(expected(logits.astype(np.float64)))
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    assert np.std(alone) > 0.01


def test_a_tokenizer_that_does_not_mark_pairs_gives_no_types(tmp_path):
    folder = checkpoint(tmp_path / "one")
    types = checkpoint(tmp_path / "types")
    stated = {"model_max_length": 12, "model_input_names": ["input_ids", "attention_mask"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    unmarked = external.checkpoint_scorer(folder).score(EXAMPLES)[0]
    marked = external.checkpoint_scorer(types).score(EXAMPLES)[0]
    pairs = np.array([row.response is not None for row in EXAMPLES])
    np.testing.assert_allclose(unmarked[~pairs], marked[~pairs], atol=1e-6)
    assert np.abs(unmarked - marked)[pairs].min() > 1e-4


def test_long_texts_are_cut_at_the_checkpoints_own_length(tmp_path):
    """The tokenizer allows 12 tokens, so 10 of text: the last ones of a prompt."""
    peer = external.checkpoint_scorer(checkpoint(tmp_path / "short"))
    long = ["rain"] * 30 + ["how", "do", "i", "bake", "bread", "sun", "tree", "an", "answer"]
    scores, _ = peer.score([example(0, " ".join(long)), example(1, " ".join(long[-10:]))])
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@pytest.mark.parametrize(
    "labels, asked, multi, chosen",
    [
        (["LABEL_0", "LABEL_1"], [], False, [1]),
        (["LABEL_0"], [], True, [0]),
        (["BENIGN", "INJECTION", "JAILBREAK"], [], False, [1, 2]),
        (["neutral", "toxic"], [], False, [1]),
        (["Not-Toxic", "Severe Toxic"], [], False, [1]),
        (["toxic", "severe_toxic", "obscene", "threat"], [], True, [0, 1, 2, 3]),
        (["controversial", "s1", "s2"], ["s2", "s1"], False, [1, 2]),
        (["safe", "unsafe"], ["safe"], False, [0]),  # whoever asks gets it
    ],
)
def test_which_outputs_mean_harmful(labels, asked, multi, chosen):
    assert external.harmful_outputs(labels, asked, multi, "m") == chosen


@pytest.mark.parametrize(
    "labels, asked, multi",
    [
        (["LABEL_0", "LABEL_1", "LABEL_2"], [], False),  # unnamed, and more than two
        (["toxic", "male", "christian"], [], True),  # who is spoken of, not what is harmful
        (["safe", "neutral"], [], False),
        (["toxic", "insult"], [], False),  # a softmax that is always 1
        (["safe", "unsafe"], ["toxic"], False),
        (["safe", "unsafe"], ["safe", "unsafe"], False),
    ],
)
def test_labels_that_may_mean_either_are_listed(labels, asked, multi):
    with pytest.raises(BadInput, match=f"the labels {', '.join(labels)}.*--harmful_labels"):
        external.harmful_outputs(labels, asked, multi, "m")


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    cases = {
        "there is no folder": lambda: tmp_path / "nowhere",
        "no tensor bert.pooler.dense.bias": lambda: checkpoint(
            tmp_path / "a", without=("bert.pooler.dense.bias",)
        ),
        "problem_type='regression'": lambda: checkpoint(tmp_path / "b", problem_type="regression"),
        "does not name the outputs": lambda: checkpoint(
            tmp_path / "c", id2label={"0": "safe", "2": "toxic"}
        ),
        "must belong to one model": lambda: checkpoint(
            tmp_path / "d", id2label={"0": "safe", "1": "toxic", "2": "insult"}
        ),
    }
    for message, make in cases.items():
        folder = make()
        if message.startswith("must"):
            (folder / "config.json").write_text(json.dumps(CONFIG))  # two labels, three stored
        with pytest.raises(BadInput, match=message):
            external.checkpoint_scorer(folder)


def test_an_endpoint_reads_the_response_alone(monkeypatch):
    sent = []

    def moderate(url, texts, **how):
        sent.append((url, list(texts), how))
        return np.arange(len(texts)) / 10, np.arange(len(texts)) > 2

    monkeypatch.setattr(external.moderation, "moderate", moderate)
    peer = external.moderation_scorer("https://guard.example:8000/v1", key="k")
    scores, verdicts = peer.score(EXAMPLES)
    assert peer.name == "guard.example" and peer.sha256 is None
    assert sent[0][1] == [row.response or row.prompt for row in EXAMPLES]
    np.testing.assert_array_equal(verdicts, scores > 0.25)


def test_half_is_the_peers_own_verdict():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random(50), [1.0, 0.0, np.nan]])
    verdicts = np.concatenate([rng.random(50) < 0.5, [False, True, False]])
    folded = judge.at_half(scores, verdicts)
    known = ~np.isnan(scores)
    np.testing.assert_array_equal(np.isnan(folded), ~known)
    np.testing.assert_array_equal((folded >= 0.5)[known], verdicts[known])
    for verdict in (False, True):
        mine = known & (verdicts == verdict)
        np.testing.assert_array_equal(np.argsort(scores[mine]), np.argsort(folded[mine]))
    assert judge.at_half(scores, None) is scores


@pytest.fixture
def rows():
    """An exam of 38 prompts, of 3 and of 5 tokens in turn, as a run has tokenised it."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 40)
    examples = [
        Example(f"r{i}", f"prompt {i}", None, int(label), None, f"s{i % 2}", "")
        for i, label in enumerate(labels)
    ]
    exam = eval_sets.Exam(
        "test",
        make_corpus("exam", "prompt_harm", examples, ""),
        examples[2:],
        np.arange(2, 40) // 2,
        {},
        {"exact": 2, "near_duplicates": 0, "removed": True},
        None,
    )
    encoded = [{"input_ids": [0] * (3 + 2 * (i % 2)), "cut": 0} for i in range(2, 40)]
    return judge.rows_of(exam, Gathered(encoded), (4, 8))


class Gathered(list):
    def gather(self, places):
        return [self[i] for i in places]


def made_up(missing=(), flagged=None):
    """A peer whose scores follow from the row's number and whether it can read a word, and miss
    some rows."""

    def score(examples):
        numbers = np.array([int(e.id.strip("r")) for e in examples])
        read = np.array(["prompt" in e.prompt or e.prompt == "p" for e in examples])
        scores = (numbers * 37 % 101) / 101 * np.where(read, 1, 0.1)
        scores[np.isin(numbers, missing)] = np.nan
        return scores, None if flagged is None else np.isin(numbers, flagged)

    return scorer.Scorer("a/guard", "f" * 64, score)


HOW = {"attacks": ["leetspeak"], "resamples": 20}
DEV = [example(100 + i, "p", label=i % 3 == 0) for i in range(30)]


def written(workdir, policy):
    found = records_io.read_evaluations(workdir / "peers" / "a_guard")
    return next(e for e in found if e["cohort"]["threshold_policy"] == policy)


def test_a_peer_is_judged_on_the_rows_of_the_run(rows, tmp_path):
    exam, workdir = rows.exam, tmp_path
    peer = made_up(flagged=range(10))
    evaluate.evaluate_other(peer, [rows], DEV, workdir, **HOW)
    scores, flagged = peer.score(exam.examples)
    labels = np.array([example.label for example in exam.examples])
    dev_scores = peer.score(DEV)[0]
    threshold = metrics.best_f1_threshold(np.array([int(e.label) for e in DEV]), dev_scores)
    assert len(scores) == 38 and threshold != 0.5
    for policy, verdicts, at in (
        ("given", flagged, 0.5),
        ("dev_best_f1", scores >= threshold, threshold),
    ):
        found = written(workdir, policy)
        cohort = found["cohort"]
        assert cohort["corpus"] == "exam" and cohort["corpus_sha256"] == exam.corpus.sha256
        assert cohort["rows_sha256"] == make_corpus("x", "y", exam.examples, "z").sha256
        assert (cohort["rows"], cohort["harmful"]) == (38, labels.sum())
        assert cohort["task"] == "prompt_harm" and found["contamination"] is None
        assert (cohort["threshold_policy"], cohort["threshold"]) == (policy, {"raw": at})
        assert (cohort["checkpoint_sha256"], cohort["seed"], cohort["split"]) == (
            "f" * 64,
            None,
            None,
        )
        assert found["scorer"]["name"] == "a/guard" and found["missing"] == []
        assert found["times_read"] == 1  # scored once, judged twice
        assert found["scores"]["raw"]["f1"]["value"] == pytest.approx(f1_score(labels, verdicts))
        assert [row["id"] for row in found["rows"]] == [e.id for e in exam.examples]
        assert not any("ema" in row for row in found["rows"])
        assert set(found["slices"]) == {"category", "source", "length"}
        # Rows of 3 and of 5 tokens take turns, as the sources do.
        lengths = {name: part["rows"] for name, part in found["slices"]["length"].items()}
        assert lengths == {"up to 4 tokens": 19, "up to 8 tokens": 19}
        harmful = [e for e in exam.examples if e.label]
        attack = robustness.attack(harmful, "leetspeak")
        after, again = peer.score(attack.views)
        caught = peer.score(harmful)[1 if policy == "given" else 0] >= at
        before, still = caught[attack.places], (again if policy == "given" else after) >= at
        drop = found["robustness"]["leetspeak"]
        assert (drop["rows"], drop["recall"]) == (len(attack.views), still.mean())
        assert drop["drop"] == pytest.approx(before.mean() - still.mean())
        for start, source in enumerate(("s0", "s1")):
            sliced = found["slices"]["source"][source]
            assert sliced["f1"] == pytest.approx(f1_score(labels[start::2], verdicts[start::2]))
    chosen = written(workdir, "dev_best_f1")
    np.testing.assert_allclose([row["raw"] for row in chosen["rows"]], scores, atol=1e-6)
    assert chosen["scores"]["raw"]["auprc"]["value"] == pytest.approx(
        average_precision_score(labels, scores)
    )


def test_rows_that_failed_are_named_and_change_the_cohort(rows, tmp_path):
    evaluate.evaluate_other(made_up(), [rows], DEV, tmp_path, **HOW)
    whole = written(tmp_path, "dev_best_f1")["cohort"]
    failed = evaluate.evaluate_other(made_up(missing=(5, 7)), [rows], DEV, tmp_path, **HOW)
    found = written(tmp_path, "dev_best_f1")
    assert any("2 rows failed" in note for note in notes(failed))
    assert found["missing"] == ["r5", "r7"]
    assert found["cohort"]["rows"] == 36 == len(found["rows"])
    assert found["cohort"]["rows_sha256"] != whole["rows_sha256"]
    assert "r5" not in [row["id"] for row in found["rows"]]


def test_no_threshold_from_a_dev_without_answers(rows, tmp_path):
    with pytest.raises(BadInput, match="too few dev rows"):
        evaluate.evaluate_other(made_up(missing=range(200)), [rows], DEV, tmp_path, **HOW)


def test_a_scorer_that_fails_is_left_out_and_stops_no_other(rows, tmp_path, capsys):
    def refuses():
        raise BadInput("the endpoint is down.")

    makers = [refuses, made_up, made_up]
    found = evaluate.evaluate_others(makers, [rows], DEV, tmp_path, **HOW)
    assert [e["scorer"]["name"] for e in found] == ["a/guard", "a/guard"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "the endpoint is down" in told[0]
    assert "two scorers are called a/guard" in told[1]


def test_specs():
    peer = external.open_scorer("moderation:http://localhost:1/v1", harmful=(), model="x", key="")
    assert peer.name == "x"
    for spec in ("hf:", "toxic-bert", "openai:https://host/v1"):
        with pytest.raises(BadInput, match="neither hf:FOLDER nor moderation:URL"):
            external.open_scorer(spec, harmful=(), model="", key="")


def test_published_numbers_are_whole_and_say_what_they_are():
    published = json.loads(Path("experiments/peers/published.json").read_text())
    assert published["marked"] == "as published, not re-run"
    for table in published["tables"]:
        assert table["source"] and table["metric"] and table["rows"]
        for name, row in table["rows"].items():
            assert len(row) == len(table["columns"]), name
            for value in row:
                assert value is None or 0 < value <= (100 if "%" in table["metric"] else 1), name
