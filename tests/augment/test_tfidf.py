import math
import re
from collections import Counter

import numpy as np
import pytest

from ssl_guard.augment import recipe, tfidf
from ssl_guard.augment.gates import Text
from ssl_guard.augment.make import distinct_texts
from ssl_guard.augment.ops import build
from ssl_guard.augment.run import Row, augment
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput

TEXTS = [
    "the cat sat on the mat",
    "the dog sat on the log",
    "a bird in the hand is worth two in the bush",
    "the quick brown fox jumps over the lazy dog",
    "bread needs flour and water and salt",
    "the bread is on the table",
]


def example(i, prompt, response, label=None):
    return Example(f"row {i}", prompt, response, label, None, "made up", "CC0")


POOL = [example(i, text, TEXTS[-1 - i]) for i, text in enumerate(TEXTS)]


def run(examples=POOL, *, fit_on=POOL, op="tfidf", copies=3, seed=0, **args):
    args = args or ({"p": 0.5} if op == "tfidf" else {})
    rewrite = build(op, distinct_texts(fit_on), args)
    rows = [Row(e.id, Text(e.prompt, e.response), "unknown") for e in examples]
    rewrites = [{op: rewrite}] * 2
    views, _ = augment(rows, recipe.parse((op,)), rewrites, (), copies=copies, seed=seed)
    by_id = {e.id: e for e in examples}
    return [(by_id[view.id], view.copy, *view.text) for view in views]


def test_statistics_of_a_corpus_by_hand():
    model = tfidf.fit(["A b, b", "a C"])
    assert model.words == ("a", "b", "c")
    assert model.idf == {"a": 0.0, "b": math.log(2), "c": math.log(2)}
    assert model.unknown_idf == math.log(2)
    # S = 2 * 0, 2 log 2, log 2; max S - S is proportional to 2, 0, 1.
    np.testing.assert_allclose(model.cumulative, [2 / 3, 2 / 3, 1])
    # tfidf of "a b b c": 0, 2/4 log 2 twice, 1/4 log 2; C - tfidf is 2, 0, 0, 1 quarters of log 2.
    found = tfidf.replacement_probability(model, ["a", "b", "b", "c"], 0.3)
    np.testing.assert_allclose(found, [0.3 * 2 / 0.75, 0, 0, 0.3 / 0.75])
    np.testing.assert_allclose(
        tfidf.replacement_probability(model, ["a", "b", "b", "c"], 0.6), [1, 0, 0, 0.8]
    )


def reference(texts, words, p):
    """Computes appendix A.2: replacement probability of each word, and their distribution."""
    split = [text.split() for text in texts]
    vocabulary = sorted({word for text in split for word in text})
    count = np.array([[text.count(word) for word in vocabulary] for text in split])
    idf = np.log(len(texts) / (count > 0).sum(0))
    score = count.sum(0) * idf
    draw = (score.max() - score) / (score.max() - score).sum()
    own = np.array([words.count(word) / len(words) * idf[vocabulary.index(word)] for word in words])
    below = own.max() - own
    return np.minimum(p * below / below.mean(), 1), dict(zip(vocabulary, draw, strict=True))


@pytest.mark.parametrize("p", [0.1, 0.3, 0.9])
def test_words_are_replaced_at_the_rates_of_the_paper(p):
    text, times = "the bread and the cat and the bird in a hand on the table", 4000
    words = text.split()
    model, rng = tfidf.fit(TEXTS), np.random.default_rng(0)
    changed, drawn = np.zeros(len(words)), Counter()
    for _ in range(times):
        new = tfidf.replace(model, text, p=p, rng=rng).split()
        assert len(new) == len(words)
        changed += [a != b for a, b in zip(new, words, strict=True)]
        drawn[new[0]] += 1  # "the"
    probability, draw = reference(TEXTS, words, p)
    # A word that draws itself does not change.
    expected = probability * (1 - np.array([draw[word] for word in words]))
    error = np.sqrt(expected * (1 - expected) / times)
    assert (np.abs(changed / times - expected) <= 5 * error).all()
    assert len(np.unique(probability)) >= 3
    rates = {w: probability[0] * q + (w == "the") * (1 - probability[0]) for w, q in draw.items()}
    for word, rate in rates.items():
        assert abs(drawn[word] / times - rate) <= 5 * math.sqrt(rate * (1 - rate) / times)


def test_p_is_the_share_of_words_replaced():
    model = tfidf.fit(TEXTS)
    for text in TEXTS:
        words = text.split()
        assert tfidf.replacement_probability(model, words, 0.2).mean() == pytest.approx(0.2)


def test_casing_punctuation_and_white_space_stay():
    model = tfidf.fit(["x", "alpha beta"])
    text = '\t(Hello),  WORLD!\n\n"don\'t" -- GPT-4: I naïve...  '
    skeleton = re.compile(r"\w(?:\S*\w)?")
    seen = set()
    for seed in range(50):
        new = tfidf.replace(model, text, p=1.0, rng=np.random.default_rng(seed))
        assert skeleton.sub("_", new) == skeleton.sub("_", text)
        words = skeleton.findall(new)
        for old, word in zip(skeleton.findall(text), words, strict=True):
            if word == old:
                continue
            assert word.lower() in ("x", "alpha", "beta")
            if old in ("WORLD", "GPT-4"):
                assert word == word.upper()
            elif old in ("Hello", "I"):
                assert word == word.capitalize()
            else:
                assert word == word.lower()
            seen.add(old)
    # "two naïve-like" words of one text share a tf-idf, so some of them are never replaced.
    assert seen <= set(skeleton.findall(text))


def test_the_case_of_a_replaced_word_is_kept():
    model = tfidf.fit(["common rare", "common other", "common thing"])
    words = set()
    for seed in range(200):
        new = tfidf.replace(
            model, "COMMON Common common unseen", p=1.0, rng=np.random.default_rng(seed)
        ).split()
        assert new[3] == "unseen", "the word of the largest tf-idf stays"
        words |= {(place, word) for place, word in enumerate(new[:3])}
    for place, cased in enumerate([str.upper, str.capitalize, str.lower]):
        assert {word for at, word in words if at == place} >= {cased(word) for word in ("common",)}
        assert all(word == cased(word) for at, word in words if at == place)


@pytest.mark.parametrize("texts", [[], [""], ["..."], ["word"], ["a a a", "a"], ["a b", "b a"]])
@pytest.mark.parametrize("text", ["", " \n", "?! --", "one", "one one", "a b", "日本語 🙂"])
@pytest.mark.parametrize("p", [0, 0.5, 1])
def test_corpora_and_texts_with_little_in_them_work(texts, text, p):
    model = tfidf.fit(texts)
    new = tfidf.replace(model, text, p=p, rng=np.random.default_rng(0))
    assert len(new.split()) == len(text.split())
    if len(set(text.split())) < 2 or p == 0 or not model.words:
        assert new == text


def test_a_long_text_is_fast():
    model = tfidf.fit(TEXTS)
    text = "a" + "!" * 100_000 + " " + "b." * 50_000
    assert tfidf.replace(model, text, p=0.3, rng=np.random.default_rng(0)).count("!") == 100_000


def test_copies_come_in_order_and_differ():
    rows = run()
    assert [(row[0].id, row[1]) for row in rows] == [
        (e.id, copy) for e in POOL for copy in range(3)
    ]
    assert all(row[0] is POOL[i // 3] for i, row in enumerate(rows))
    prompts = [row[2] for row in rows]
    assert len(set(prompts)) > 12
    assert all(
        p.count(" ") == row[0].prompt.count(" ") for p, row in zip(prompts, rows, strict=True)
    )


def test_a_row_depends_on_seed_id_and_copy_only():
    def results(rows):
        return {(row[0].id, row[1]): row[2:] for row in rows}

    expected = results(run())
    assert results(run()) == expected
    assert results(run(POOL[::-1])) == expected
    assert results(run(POOL[2:3])).items() <= expected.items()
    assert results(run(copies=5)).items() >= expected.items()
    assert results(run(seed=1)) != expected


def test_prompt_and_response_have_their_own_randomness():
    same = [example(i, TEXTS[3], TEXTS[3]) for i in range(20)]
    rows = run(same, copies=1)
    assert sum(prompt != response for _, _, prompt, response in rows) > 15
    assert len({row[2] for row in rows}) > 10
    assert len({row[3] for row in rows}) > 10
    prompts_only = [example(i, TEXTS[3], None) for i in range(20)]
    alone = run(prompts_only, copies=1)
    assert [row[2] for row in alone] == [row[2] for row in rows]
    assert all(row[3] is None for row in alone)


def test_a_prompt_that_was_answered_often_counts_once():
    often = [example(i, TEXTS[0], response) for i, response in enumerate(TEXTS)]
    model = tfidf.fit(TEXTS)
    rng = np.random.default_rng(0)
    (found,) = build("tfidf", dict.fromkeys([TEXTS[0], *TEXTS]), {"p": 0.5})([TEXTS[3]], [rng])
    assert found == tfidf.replace(model, TEXTS[3], p=0.5, rng=np.random.default_rng(0))
    assert run(fit_on=often) == run(fit_on=often[:1] + often[1:])
    once = [example(i, text, None) for i, text in enumerate(TEXTS)]
    assert run(fit_on=often) == run(fit_on=once)


def test_identity_changes_nothing():
    for row, copy, prompt, response in run(op="identity", copies=2):
        assert (prompt, response) == (row.prompt, row.response)
        assert copy in (0, 1)


def test_bad_operations_and_arguments_are_refused_at_the_call():
    def start(op, args):
        build(op, distinct_texts(POOL), args)

    with pytest.raises(BadInput, match="no augmentation 'synonyms'; choose one of identity"):
        start("synonyms", {})
    with pytest.raises(BadInput, match="'tfidf' cannot be used: missing a required .*'p'"):
        start("tfidf", {})
    with pytest.raises(BadInput, match="unexpected keyword argument 'q'"):
        start("tfidf", {"p": 0.1, "q": 1})
    for p in (-0.1, 1.5, math.nan):
        with pytest.raises(BadInput, match="a share, 0 to 1"):
            start("tfidf", {"p": p})
