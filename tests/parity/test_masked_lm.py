"""The head that names masked words, read from PyTorch models that have one."""

import jax
import numpy as np
import pytest
import torch
import transformers

from ssl_guard.models import build_masked_lm
from tests.families import CASES, make_batch
from tests.parity.cases import TOLERANCE

pytestmark = pytest.mark.parity

WITH_HEAD = (
    "bert relu",
    "roberta",
    "distilbert silu",
    "electra narrow",
    "mpnet",
    "deberta v3",
    "modernbert",
    "modernbert with biases",
)


@pytest.mark.parametrize("case", WITH_HEAD)
def test_logits_of_words_are_those_of_pytorch(case, tmp_path):
    kind, options = CASES[case]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **options)
    theirs = transformers.AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").touch()
    batch = make_batch(50, [12, 7, 1], pad=config.pad_token_id or 0)
    model = build_masked_lm(tmp_path, num_layers=0, dropout=0.0, dtype="float32")
    params = model.init(jax.random.key(0), batch)
    places = np.tile(np.arange(12, dtype=np.int32), (3, 1))
    ours = model.apply(params, batch, places, None, False)

    inputs = {name: torch.tensor(batch[name]).long() for name in ("input_ids", "attention_mask")}
    if getattr(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.tensor(batch["token_type_ids"]).long()
    with torch.no_grad():
        expected = theirs(**inputs).logits.numpy()
    real = batch["attention_mask"] > 0
    scale = np.abs(expected[real]).max()
    assert scale > 1  # nothing is trivially zero
    np.testing.assert_allclose(ours[real], expected[real], atol=TOLERANCE * max(1, scale))
