"""Fine-tuned text classifiers, read from PyTorch models of every architecture."""

import jax
import numpy as np
import pytest
import torch
import transformers

from ssl_guard.models import build, convert, load_sequence_classifier
from ssl_guard.models.architectures import ARCHITECTURES
from ssl_guard.models.heads import HF_HEADS
from ssl_guard.models.sequence_classification import probabilities
from tests.families import CASES, make_batch
from tests.parity.cases import TOLERANCE, assert_close

pytestmark = pytest.mark.parity

THREE = {"num_labels": 3, "problem_type": "single_label_classification"}
MULTI = {
    "id2label": {0: "toxic", 1: "threat", 2: "insult"},
    "problem_type": "multi_label_classification",
}
# The head's own options are switched on and off somewhere.
HEADED = {
    "bert": MULTI,
    "roberta": THREE,
    "xlm-roberta gelu_new": {"num_labels": 1},
    "camembert": {},
    "distilbert": MULTI,
    "electra narrow": {},
    "mpnet": THREE,
    "deberta v3": {},
    "deberta v2-xlarge": MULTI | {"pooler_hidden_act": "tanh"},
    "modernbert": {},
    "modernbert with biases": MULTI
    | {
        "classifier_bias": True,
        "classifier_activation": "silu",
        "classifier_pooling": "mean",
    },
}


@pytest.mark.parametrize("case", HEADED)
def test_logits_and_probabilities_are_those_of_pytorch(case, tmp_path):
    kind, options = CASES[case]
    if kind == "deberta-v2":
        options = options | {"pooler_hidden_size": options["hidden_size"]}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **options, **HEADED[case])
    theirs = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").touch()
    batch = make_batch(50, [24, 17, 3, 1], pad=config.pad_token_id or 0)
    ours = load_sequence_classifier(tmp_path)

    inputs = {name: torch.tensor(batch[name]).long() for name in ("input_ids", "attention_mask")}
    if getattr(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.tensor(batch["token_type_ids"]).long()
    with torch.no_grad():
        expected = theirs(**inputs).logits
    assert expected.shape == (4, len(ours.labels))
    assert expected.std(0).min() > 1e-2  # every output tells the rows apart
    assert_close(ours.apply(ours.params, batch), expected.numpy(), f"{case} logits")
    assert ours.labels == tuple(config.id2label[i] for i in range(config.num_labels))
    assert ours.multi_label == (HEADED[case].get("num_labels") == 1 or "id2label" in HEADED[case])
    normalise = torch.sigmoid if ours.multi_label else lambda x: torch.softmax(x, -1)
    found = probabilities(ours, ours.params, batch)
    np.testing.assert_allclose(found, normalise(expected).numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("case", [name for name in HEADED if name != "bert"] + ["bert relu"])
def test_a_written_classifier_has_the_same_logits_in_pytorch(case, tmp_path):
    kind, options = CASES[case]
    if kind == "deberta-v2":
        options = options | {"pooler_hidden_size": options["hidden_size"]}
    config = transformers.AutoConfig.for_model(kind, **options)
    config.save_pretrained(tmp_path / "source")
    pooling = "mean" if case == "modernbert" else "cls"
    model = build(tmp_path / "source", head="hf", pooling=pooling)
    batch = make_batch(50, [24, 17, 3, 1], pad=config.pad_token_id or 0)
    shapes, rng = jax.eval_shape(model.init, jax.random.key(0), batch), np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    labels = ("safe", "harmful")
    convert.save_classifier(tmp_path / "to", params, model, tmp_path / "source", labels=labels)
    theirs, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "to", output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert theirs.config.id2label == dict(enumerate(labels))
    inputs = {name: torch.tensor(batch[name]).long() for name in ("input_ids", "attention_mask")}
    if model.config.type_vocab_size > 1:
        inputs["token_type_ids"] = torch.tensor(batch["token_type_ids"]).long()
    with torch.no_grad():
        expected = theirs.eval()(**inputs).logits.numpy()
    found = model.apply(params, batch, None, False)[:, 0]
    assert expected.std(0).min() > 10 * TOLERANCE, "logits that do not vary compare nothing"
    assert_close(found, expected, f"{case} logits")


def test_every_architecture_has_a_head():
    assert set(HF_HEADS) == set(ARCHITECTURES) == {CASES[case][0] for case in HEADED}
