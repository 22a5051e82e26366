"""Pools of several corpora: shares of a batch, and rows near other test sets."""

import itertools
import json

import numpy as np
import pytest

from ssl_guard.data import sampling
from ssl_guard.data.pipeline import train_batches
from ssl_guard.data.records import Rows
from ssl_guard.errors import BadInput
from ssl_guard.evaluation.prepare import prepare, read_split
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.train import gradient
from tests.tiny import TOPICS, smoke

CORPORA = np.array([0, 1, 0, 2, 1, 1, 2, 2, 2, 0, 1, 2, 2, 2, 1, 2])  # 3, 5 and 8 rows
SIZES = np.bincount(CORPORA)

# shares of a batch


def test_the_expected_rows_of_a_corpus_are_its_share_exactly(monkeypatch):
    """Averaged over all offsets k / 13, the counts of an epoch are those of the weights."""

    class Fixed(np.random.Generator):
        def random(self):
            return offset

    make = np.random.PCG64
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Fixed(make(list(seed))))
    weights, found = (3.0, 4.0, 6.0), []
    for k in range(13):
        offset = (k + 0.5) / 13
        order, size = sampling.weighted_orders(0, CORPORA, weights)
        found.append(np.bincount(CORPORA[order(1)], minlength=3))
    assert size == 13 and {tuple(counts) for counts in found} == {(3, 4, 6)}
    found, weights = [], (1.0, 2.0, 4.0)  # the epoch of 14 rows has 2, 4 and 8 of them
    order, size = sampling.weighted_orders(0, CORPORA, weights)
    assert size == 14 and np.bincount(CORPORA[order(0)]).tolist() == [2, 4, 8]
    weights = (5.0, 5.0, 3.0)  # 7 rows: 2.69, 2.69 and 1.62
    for k in range(13):
        offset = (k + 0.5) / 13
        order, size = sampling.weighted_orders(0, CORPORA, weights)
        found.append(np.bincount(CORPORA[order(1)], minlength=3))
    assert size == 7
    np.testing.assert_array_equal(np.sum(found, axis=0), 7 * np.array(weights))


@pytest.mark.parametrize("weights", [(1.0, 3.0, 0.7), (1e-3, 1.0, 1.0), (5.0, 0.1, 1e3)])
def test_every_place_has_a_row_of_a_corpus_with_its_probability(weights):
    order, size = sampling.weighted_orders(4, CORPORA, weights)
    shares = np.array(weights) / sum(weights)
    epochs = 3000
    drawn = np.array([CORPORA[order(epoch)] for epoch in range(epochs)])
    assert drawn.shape == (epochs, size) and (size * shares <= SIZES + 1e-9).all()
    for number, share in enumerate(shares):
        counts = (drawn == number).sum(axis=1)
        assert set(counts) <= {np.floor(size * share), np.ceil(size * share)}
        noise = 5 * np.sqrt(share / epochs)
        np.testing.assert_allclose((drawn == number).mean(axis=0), share, atol=noise)


def test_rows_of_a_corpus_take_turns():
    order, _ = sampling.weighted_orders(1, CORPORA, (1.0, 1.0, 2.0))  # 3, 3 and 6 of 12 rows
    visits = np.bincount(np.concatenate([order(epoch) for epoch in range(7)]))
    for corpus in range(3):
        own = visits[corpus == CORPORA]
        assert own.max() - own.min() <= 1


def test_one_corpus_is_seen_whole_in_every_epoch():
    order, size = sampling.weighted_orders(0, np.zeros(9, int), (0.3,))
    assert size == 9 and all(sorted(order(epoch)) == list(range(9)) for epoch in range(5))


def test_an_order_is_a_pure_function_of_seed_and_epoch():
    order, _ = sampling.weighted_orders(2, CORPORA, (1.0, 2.0, 3.0))
    expected = [order(epoch).tolist() for epoch in range(9)]
    for epoch in (8, 0, 5, 4):
        again, _ = sampling.weighted_orders(2, CORPORA, (1.0, 2.0, 3.0))
        assert again(epoch).tolist() == expected[epoch]
    other, _ = sampling.weighted_orders(3, CORPORA, (1.0, 2.0, 3.0))
    assert [other(epoch).tolist() for epoch in range(9)] != expected


def batches_of(**changes):
    rows = [
        {"id": str(i), "input_ids": np.full(3 + i % 5, i), "second": 1, "label": -1, "index": i}
        for i in range(len(CORPORA))
    ]
    settings = dict(seed=3, steps=60, labelled_batch=2, unlabelled_batch=5, buckets=(8,))
    how = settings | {"pool_corpora": CORPORA, "pool_weights": (1.0, 3.0, 4.0)} | changes
    return train_batches(Rows(rows), Rows(rows), None, pad_id=0, **how)


@pytest.mark.parametrize("position", [0, 1, 23])
@pytest.mark.parametrize("how", [{}, {"sort_by_length": True}, {"pack_groups": 1}])
def test_a_restored_iterator_goes_on_with_the_same_rows(position, how):
    iterator = iter(batches_of(**how))
    for _ in range(position):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    rest = [batch["index"].tolist() for batch in iterator]
    fresh = iter(batches_of(**how))
    fresh.set_state(state)
    assert [batch["index"].tolist() for batch in fresh] == rest
    counts = np.bincount(CORPORA[np.concatenate(rest)], minlength=3)
    np.testing.assert_allclose(counts / counts.sum(), np.array([1, 3, 4]) / 8, atol=0.04)


# a run's corpora


def sentence(rng):
    return " ".join(rng.choice(TOPICS, 12))


def jaccard(a, b):
    """Independent of data/duplicates.py: of sets of three words."""
    a, b = ({tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in (a.split(), b.split()))
    return len(a & b) / len(a | b)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The rows of tests/tiny.py, two corpora of more text, and three test sets.

    One test set is near rows of every corpus, one near rows of the first more, one near none.
    """
    folder = tmp_path_factory.mktemp("pool")
    smoke(folder, "uda")  # writes rows.jsonl
    rng = np.random.default_rng(5)
    own = [row["prompt"] for row in read_jsonl(folder / "rows.jsonl")]
    texts = {name: [sentence(rng) for _ in range(n)] for name, n in (("a", 30), ("b", 12))}
    sets = {
        "all": [f"{own[i]} garden" for i in range(40)] + texts["a"][:2] + texts["b"][:1],
        "some": [f"{texts['a'][i]} river" for i in (1, 2, 3)],
        "none": [sentence(rng) for _ in range(9)],
        "whole": texts["b"],
    }
    for name, prompts in (texts | sets).items():
        column = "response" if name in texts else "note"
        with (folder / f"{name}.jsonl").open("w") as file:
            for i, prompt in enumerate(prompts):
                row = {"id": f"{name}{i}", "prompt": prompt, column: "Of course."}
                file.write(json.dumps(row) + "\n")
    return folder


def config_of(folder, **changes):
    config = smoke(
        folder, "uda", **{"data.unlabelled_corpus": f"{folder}/a.jsonl,{folder}/b.jsonl"}
    )
    config.update_from_flattened_dict(changes)
    return config


def test_no_row_of_the_pool_is_near_another_test_set(folder):
    others = f"{folder}/all.jsonl, {folder}/some.jsonl,{folder}/none.jsonl"
    config = config_of(folder, **{"data.other_tests": others})
    plain, source = read_split(config_of(folder)), read_split(config)
    tests = [
        row["prompt"]
        for name in ("all", "some", "none")
        for row in read_jsonl(folder / f"{name}.jsonl")
    ]
    near = {
        example.id
        for example in plain.rows["unlabelled"]
        if any(jaccard(example.prompt, test) >= 0.5 for test in tests)
    }
    assert len(near) > 20 and {"a0", "a1", "a2", "a3", "b0"} <= near
    kept = [e.id for e in plain.rows["unlabelled"] if e.id not in near]
    assert [e.id for e in source.rows["unlabelled"]] == kept
    for side in ("labelled", "dev", "test"):  # other sides do not change
        assert source.rows[side] == plain.rows[side]
    assert source.split.name != plain.split.name
    assert read_split(config).split == source.split  # frozen
    prepared = prepare(config, views=("weak",))
    pool = prepared.summary["pool"]
    assert list(pool) == [str(folder / f"{name}.jsonl") for name in ("rows", "a", "b")]
    own = len([row_id for row_id in near if row_id.startswith("row")])
    assert [counts["near_test"] for counts in pool.values()] == [own, 4, 1]
    assert [counts["rows"] for counts in pool.values()] == [len(kept) - 26 - 11, 26, 11]
    found = np.bincount(prepared.pool_corpora).tolist()
    assert found == [counts["rows"] for counts in pool.values()]
    assert prepared.contamination["unlabelled"]["near_test"] == 0
    labelled = prepared.contamination["labelled"]
    near_labelled = sum(
        any(jaccard(e.prompt, test) >= 0.5 for test in tests) for e in source.rows["labelled"]
    )
    assert labelled == {"rows": 20, "near_test": near_labelled, "removed": 0} and near_labelled


def test_a_split_without_other_tests_is_what_it_was(folder):
    plain, none = (
        read_split(config_of(folder, **{"data.other_tests": tests}))
        for tests in ("", f"{folder}/none.jsonl")
    )
    assert plain.split.name == "rows-a-b.response_harm.0@20"
    assert none.rows == plain.rows and ".without-" in none.split.name
    path = folder / "data" / "splits" / f"{plain.split.name}.json"
    assert "other_tests" not in json.loads(path.read_text())


def test_a_published_test_set_may_be_labelled_for_another_task(folder):
    config = config_of(folder, **{"data.task": "prompt_harm"})
    config.data.other_tests = "human_scored_responses"
    source = read_split(config)
    assert len(source.other_tests) == 1077
    assert source.rows == read_split(config_of(folder, **{"data.task": "prompt_harm"})).rows


def test_a_run_draws_its_corpora_by_weight(folder):
    config = config_of(folder, **{"data.unlabelled_weights": (1.0, 2.0, 1.0)})
    prepared = prepare(config, views=("weak",))
    gradient._check_batches(config, prepared)
    order, size = sampling.weighted_orders(0, prepared.pool_corpora, (1.0, 2.0, 1.0))
    drawn = np.bincount(prepared.pool_corpora[np.concatenate([order(e) for e in range(40)])])
    np.testing.assert_allclose(drawn / drawn.sum(), [0.25, 0.5, 0.25], atol=0.02)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0), (1.0, 2.0, 3.0, 4.0)])
def test_a_weight_for_every_corpus(folder, weights):
    config = config_of(folder, **{"data.unlabelled_weights": weights})
    with pytest.raises(BadInput, match="must have 3 numbers, for .*rows.jsonl, .*a.jsonl, .*b"):
        prepare(config, views=("weak",))


def test_a_weight_of_a_corpus_whose_rows_are_all_near_a_test(folder):
    config = config_of(folder, **{"data.unlabelled_weights": (1.0, 1.0, 1.0)})
    config.data.other_tests = f"{folder}/whole.jsonl"
    with pytest.raises(BadInput, match="no row of .*b.jsonl is in the unlabelled pool"):
        prepare(config, views=("weak",))
    config.data.unlabelled_weights = ()
    assert prepare(config, views=("weak",)).summary["pool"][f"{folder}/b.jsonl"] == {
        "rows": 0,
        "near_test": 12,
    }


def test_a_batch_with_more_rows_of_a_corpus_than_there_are(folder):
    config = config_of(folder, **{"data.unlabelled_weights": (1.0, 1.0, 98.0)})
    config.train.unlabelled_batch = 16
    with pytest.raises(BadInput, match="a batch of 16 would repeat rows of corpus 3, of which 12"):
        gradient._check_batches(config, prepare(config, views=("weak",)))


@pytest.mark.parametrize(
    "key, names, words",
    [
        ("unlabelled_corpus", "a,b,a", "unlabelled_corpus names .*a.jsonl, which is already"),
        ("unlabelled_corpus", "rows", "unlabelled_corpus names .*rows.jsonl, which is already"),
        ("other_tests", "none,none", "other_tests names .*none.jsonl"),
        ("unlabelled_corpus", "a,empty", "unlabelled_corpus: .*empty.jsonl has no rows"),
        ("other_tests", "empty", "other_tests: .*empty.jsonl has no rows"),
        ("other_tests", "missing", "other_tests: .*missing.jsonl"),
    ],
)
def test_corpora_that_cannot_be_used(folder, key, names, words):
    (folder / "empty.jsonl").write_text("")
    listed = ",".join(f"{folder}/{name}.jsonl" for name in names.split(","))
    config = config_of(folder, **{f"data.{key}": listed})
    with pytest.raises(BadInput, match=words) as error:
        read_split(config)
    assert not any(topic in str(error.value) for topic in TOPICS)


def test_an_unknown_corpus_of_other_tests(folder):
    with pytest.raises(BadInput, match="config.data.other_tests: 'xtest' .*did you mean xstest"):
        read_split(config_of(folder, **{"data.other_tests": "xtest"}))


def test_rows_have_the_number_of_their_corpus(folder):
    names = [f"{folder}/a.jsonl", f"{folder}/b.jsonl"]
    for first, second in itertools.permutations(names):
        config = config_of(folder, **{"data.unlabelled_corpus": f"{first},{second}"})
        prepared = prepare(config, views=("weak",))
        of = np.array([0, *(1 if name == first else 2 for name in names)])
        expected = [of["ab".find(e.id[0]) + 1] for e in prepared.texts["unlabelled"]]
        assert prepared.pool_corpora.tolist() == expected
