"""Splits: no near-duplicate prompt on two sides, sizes and classes as asked, edits refused."""

import dataclasses
import hashlib
import json
import os
import random
import zlib
from pathlib import Path

import pytest
from datasketch import MinHash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_guard.data import assemble, corpora, duplicates, splits
from ssl_guard.data.schema import Example, make_corpus
from ssl_guard.data.splits import SplitSpec
from ssl_guard.errors import BadInput

WORDS = [a + b for a in "bdfgklmnprst" for b in ("a", "en", "ir", "o", "ul")]


def corpus_of(rows, name="kitchen"):
    """A corpus from (prompt, label) pairs, with ids that do not follow the order."""
    examples = [
        Example(f"{i * 7919 % 10007}", prompt, None, label, None, "made up", "none")
        for i, (prompt, label) in enumerate(rows)
    ]
    return make_corpus(name, "prompt_harm", examples, "none")


def alone(n, label):
    """n rows without near-duplicates."""
    return [(f"{label}dish{i} of{label}{i} the{i} day", label) for i in range(n)]


def sides(split):
    return {side: getattr(split, side) for side in (*splits.SIDES, "left_out")}


def group_of(corpus):
    groups = duplicates.near_duplicate_groups([example.prompt for example in corpus.examples])
    return {
        corpus.examples[position].id: number
        for number, positions in enumerate(groups)
        for position in positions
    }


# groups


def shingles(prompt):
    words = prompt.split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def jaccard(a, b):
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


@pytest.mark.parametrize(
    ("permutations", "band"), [(1, 1), (duplicates.PERMUTATIONS, duplicates.BAND)]
)
def test_groups_agree_with_all_pairs(monkeypatch, permutations, band):
    """Chains of edited prompts against a quadratic reference: what is linked, and nothing else."""
    monkeypatch.setattr(duplicates, "PERMUTATIONS", permutations)
    monkeypatch.setattr(duplicates, "BAND", band)
    rng = random.Random(0)
    prompts = []
    for _ in range(30):
        words = rng.choices(WORDS, k=rng.randint(12, 40))
        for _ in range(rng.randint(1, 10)):
            prompts.append(" ".join(words))
            for _ in range(rng.randint(1, 4)):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
    rng.shuffle(prompts)
    bands = []
    for prompt in prompts:
        sketch = MinHash(num_perm=permutations, seed=1, hashfunc=zlib.crc32)
        sketch.update_batch(" ".join(run).encode() for run in shingles(prompt))
        bands.append(sketch.hashvalues.reshape(-1, band))

    component = list(range(len(prompts)))
    for j in range(len(prompts)):
        for i in range(j):
            similarity = jaccard(prompts[i], prompts[j])
            proposed = (bands[i] == bands[j]).all(axis=1).any()
            assert proposed or similarity < 0.7 or permutations == 1, "a strong pair is missed"
            if proposed and similarity >= 0.5:
                old, new = component[j], component[i]
                component = [new if c == old else c for c in component]
    expected = {c: [i for i, d in enumerate(component) if d == c] for c in component}
    assert duplicates.near_duplicate_groups(prompts) == sorted(expected.values())


def test_equal_but_for_case_space_and_punctuation():
    prompts = [
        "How to bake?",
        "how  to\nBAKE",
        "How to boil?",
        "Bake!",
        "bake",
        "bake tea",
        "STRASSE",
    ]
    prompts += ["straße", "✓", "☂", " ☂ ", "お茶を入れて", "お茶を出して"]
    groups = duplicates.near_duplicate_groups(prompts)
    assert groups == [[0, 1], [2], [3, 4], [5], [6, 7], [8], [9, 10], [11], [12]]


def test_no_prompts():
    assert duplicates.near_duplicate_groups([]) == []


def test_a_template_is_one_group_in_little_time():
    start = "please write a long and careful story for a child about the number"
    prompts = [f"{start} {i} and why it matters to everyone" for i in range(3000)]
    assert len(duplicates.near_duplicate_groups(prompts)) == 1


# drawing


rows_strategy = st.lists(
    st.tuples(
        st.integers(0, 3),  # rows of a group that are harmful, safe, without label
        st.integers(0, 3),
        st.sampled_from([0, 0, 0, 1, 5]),
    ).filter(any),
    min_size=20,
    max_size=60,
)


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    groups=rows_strategy,
    seed=st.integers(0, 1000),
    labelled=st.integers(1, 6).map(lambda n: 2 * n),
    dev=st.integers(4, 15),
    test=st.integers(4, 15),
    calibration=st.sampled_from([0, 0, 6, 12]),
    balance=st.sampled_from(splits.BALANCES),
    stratified=st.booleans(),
)
def test_any_corpus_gives_a_sound_split_or_bad_input(
    monkeypatch, groups, seed, labelled, dev, test, calibration, balance, stratified
):
    monkeypatch.setattr(splits, "FIRST_BUDGET", 4)
    rows = [
        (f"dish{g} of{g} the{g} day{g}" + "!" * copy, label)
        for g, counts in enumerate(groups)
        for label, count in zip((1, 0, None), counts, strict=True)
        for copy in range(count)
    ]
    random.Random(0).shuffle(rows)
    corpus = corpus_of(rows)
    asked = {"seed": seed, "dev": dev, "test": test, "calibration": calibration}
    asked |= {"balance": balance, "stratified": stratified}
    try:
        split = splits.make_split(corpus, SplitSpec(labelled=labelled, **asked))
    except BadInput:
        return
    ids = sides(split)
    assert sorted(sum(ids.values(), ())) == sorted(example.id for example in corpus.examples)

    prompt = {example.id: example.prompt.strip("!") for example in corpus.examples}
    label = {example.id: example.label for example in corpus.examples}
    seen = [{prompt[row] for row in ids[side]} for side in splits.SIDES]
    assert len(set().union(*seen)) == sum(map(len, seen)), "a group is on two sides"

    assert bool(ids["calibration"]) == bool(calibration)
    for side, size in split.asked.items():
        found = [label[row] for row in ids[side]]
        assert 0.95 * size <= len(found) <= size
        assert set(found) == {0, 1}
        assert split.counts[side]["harmful"] == found.count(1)
    in_balance = labelled // 2 if balance == "balanced" else len(ids["labelled"])
    assert len(ids["labelled"]) == labelled
    assert 0 < split.counts["labelled"]["harmful"] <= in_balance
    beside = {prompt[row] for row in ids["labelled"]}
    for row in ids["left_out"]:
        assert label[row] is None or prompt[row] in beside, "a labelled row is lost"
    if stratified:
        share = sum(value == 1 for value in label.values()) / sum(
            value is not None for value in label.values()
        )
        for side in set(split.asked) - {"labelled"}:
            most = round(share * split.asked[side])
            assert most - 0.05 * split.asked[side] <= split.counts[side]["harmful"] <= most
    assert split == splits.make_split(corpus, SplitSpec(labelled=labelled, **asked))
    for fewer in range(2, labelled, 2):
        try:
            smaller = splits.make_split(corpus, SplitSpec(labelled=fewer, **asked))
        except BadInput:
            assert balance == "natural"  # the first rows are of one class
            continue
        assert set(smaller.labelled) < set(split.labelled)
        for side in ("dev", "test", "calibration"):
            assert getattr(smaller, side) == getattr(split, side)


def test_exact_sizes_and_everything_used():
    corpus = corpus_of(alone(60, 1) + alone(40, 0) + alone(7, None))
    split = splits.make_split(corpus, SplitSpec(seed=0, labelled=20, dev=20, test=30))
    assert {side: len(ids) for side, ids in sides(split).items()} == {
        "labelled": 20,
        "dev": 20,
        "test": 30,
        "unlabelled": 37,
        "calibration": 0,
        "left_out": 0,
    }
    assert split.counts["labelled"] == {"rows": 20, "harmful": 10, "safe": 10, "unknown": 0}
    assert split.counts["unlabelled"]["unknown"] == 7
    assert split.name == "kitchen.prompt_harm.0@20"


def test_sides_keep_corpus_order_and_seeds_differ():
    corpus = corpus_of(alone(100, 1) + alone(100, 0))
    place = {example.id: i for i, example in enumerate(corpus.examples)}
    asked = {"labelled": 20, "dev": 30, "test": 50}
    first, second = (splits.make_split(corpus, SplitSpec(seed=seed, **asked)) for seed in (0, 1))
    for ids in sides(first).values():
        assert [place[row] for row in ids] == sorted(place[row] for row in ids)
    assert set(first.test) != set(second.test)


def test_prior_of_dev_and_test_is_natural():
    corpus = corpus_of(alone(900, 1) + alone(300, 0))
    for seed in range(3):
        split = splits.make_split(corpus, SplitSpec(seed=seed, labelled=20, dev=200, test=400))
        assert abs(split.counts["test"]["harmful"] / 400 - 0.75) < 0.08
        assert abs(split.counts["dev"]["harmful"] / 200 - 0.75) < 0.1


def test_rows_without_label_do_not_follow_their_group_to_a_labelled_side():
    rows = [(prompt + "!" * i, i and label) for prompt, label in alone(20, 1) for i in range(2)]
    rows = [(p, None if i % 2 == 0 else 1) for i, (p, _) in enumerate(rows)] + alone(20, 0)
    split = splits.make_split(corpus_of(rows), SplitSpec(seed=0, labelled=10, dev=10, test=10))
    in_use = sum(split.counts[side]["harmful"] for side in ("labelled", "dev", "test"))
    assert split.counts["left_out"] == {"rows": in_use, "harmful": 0, "safe": 0, "unknown": in_use}


BUDGET = {"labelled": 10, "dev": 10, "test": 10}


@pytest.mark.parametrize(
    ("rows", "change", "said"),
    [
        (alone(40, 1), {}, "has 40 harmful and 0 safe rows"),
        (alone(40, None), {}, "has 0 harmful and 0 safe rows.*config.data.columns.label"),
        (alone(15, 1) + alone(14, 0) + alone(50, None), {}, "= 30 is more than the 29 rows"),
        (alone(40, 1) + alone(40, 0), {"labelled": 7}, "labelled even"),
        (alone(40, 1) + alone(40, 0), {"labelled": 0}, "each must be at least 2"),
        (alone(40, 1) + alone(40, 0), {"dev": 0}, "each must be at least 2"),
        (alone(40, 1) + alone(40, 0), {"test": -5}, "each must be at least 2"),
        (alone(40, 1) + alone(40, 0), {"test": 100}, "= 120 is more than the 80 rows"),
        (alone(40, 1) + alone(40, 0), {"calibration": 1}, "calibration = 1 must be at least 2"),
        (alone(40, 1) + alone(40, 0), {"calibration": -2}, "calibration = -2 must be at least 2"),
        (
            alone(40, 1) + alone(40, 0),
            {"calibration": 51},
            r"labelled \+ dev \+ test \+ calibration = 81 is more than the 80 rows",
        ),
        (alone(90, 1) + alone(4, 0), {}, "labelled = 10 cannot be filled with both classes"),
        ([("the same cake", i % 2) for i in range(90)], {}, "test = 10 cannot be .* in 1 groups"),
        (alone(90, 1) + alone(1, 0), {}, "dev = 10 cannot be filled .* 0 safe rows are left"),
    ],
)
def test_impossible_requests(rows, change, said):
    with pytest.raises(BadInput, match=said):
        splits.make_split(corpus_of(rows), SplitSpec(seed=0, **BUDGET | change))


# frozen files


@pytest.fixture
def corpus():
    return corpus_of(alone(40, 1) + alone(40, 0) + alone(3, None))


def freeze(corpus, folder, **change):
    return splits.load_or_freeze(corpus, folder, SplitSpec(**{"seed": 0, **BUDGET, **change}))


def test_frozen_once_then_read(corpus, tmp_path, monkeypatch):
    split = freeze(corpus, tmp_path / "splits")
    [path] = (tmp_path / "splits").iterdir()
    assert path.name == "kitchen.prompt_harm.0@10.json"
    assert path == splits.freeze(split, tmp_path / "splits")
    monkeypatch.setattr(splits, "make_split", None)
    assert freeze(corpus, tmp_path / "splits") == split


def test_overwriting_is_refused(corpus, tmp_path):
    path = splits.freeze(freeze(corpus, tmp_path), tmp_path)
    before = path.read_bytes()
    other = dataclasses.replace(
        splits.make_split(corpus, SplitSpec(seed=1, **BUDGET)), name=path.stem
    )
    with pytest.raises(BadInput, match="holds another split"):
        splits.freeze(other, tmp_path)
    assert path.read_bytes() == before


def test_other_sizes_are_refused(corpus, tmp_path):
    freeze(corpus, tmp_path)
    with pytest.raises(BadInput, match="drawn with dev = 10 and test = 10, not 12 and 10"):
        freeze(corpus, tmp_path, dev=12)
    freeze(corpus, tmp_path, labelled=12, dev=12)  # another name


def test_changed_corpus_is_refused(corpus, tmp_path):
    freeze(corpus, tmp_path)
    first = corpus.examples[0]
    for change in ({"prompt": "another dish"}, {"label": 0}, {"id": "another"}):
        changed = (dataclasses.replace(first, **change), *corpus.examples[1:])
        with pytest.raises(BadInput, match="drawn from other rows than kitchen has now"):
            freeze(make_corpus("kitchen", "prompt_harm", changed, "none"), tmp_path)


def move(content):
    content["unlabelled"].append(content["test"].pop())


def put_on_two_sides(content):
    content["labelled"].append(content["test"][0])


def repeat(content):
    content["test"].append(content["test"][0])


def invent(content):
    content["test"][0] = "unknown"


def forget(content):
    content["unlabelled"].pop()


EDITS = [move, put_on_two_sides, repeat, invent, forget]


@pytest.mark.parametrize("edit", EDITS)
def test_edits_are_refused(corpus, tmp_path, edit):
    path = splits.freeze(freeze(corpus, tmp_path), tmp_path)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="is not a split that this program wrote"):
        freeze(corpus, tmp_path)


@pytest.mark.parametrize("edit", EDITS[1:])
def test_edits_with_a_new_hash_are_refused(corpus, tmp_path, edit):
    path = splits.freeze(freeze(corpus, tmp_path), tmp_path)
    content = json.loads(path.read_text())
    edit(content)
    del content["sha256"]
    text = json.dumps(content, sort_keys=True)
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="does not hold every id of kitchen exactly once"):
        freeze(corpus, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"sha256": 1}', "\0", "[" * 100_000])
def test_damaged_files_are_refused(corpus, tmp_path, text):
    path = splits.freeze(freeze(corpus, tmp_path), tmp_path)
    path.write_text(text)
    with pytest.raises(BadInput, match="is not a split that this program wrote"):
        freeze(corpus, tmp_path)


def test_a_failed_write_leaves_no_split(corpus, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        freeze(corpus, tmp_path)
    assert not list(tmp_path.glob("*.json"))


# the calibration side


def test_calibration_rows_leave_dev_and_test_as_they_are(corpus, tmp_path):
    without = freeze(corpus, tmp_path)
    split = freeze(corpus, tmp_path, calibration=20)
    assert split.name == "kitchen.prompt_harm.0@10+20" and len(split.calibration) == 20
    assert (split.dev, split.test) == (without.dev, without.test)
    assert freeze(corpus, tmp_path, calibration=20) == split != freeze(corpus, tmp_path)
    assert freeze(corpus, tmp_path, labelled=12, calibration=20).calibration == split.calibration
    path = tmp_path / f"{split.name}.json"
    content = json.loads(path.read_text())
    content["calibration"].append(content["dev"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="is not a split that this program wrote"):
        freeze(corpus, tmp_path, calibration=20)


def test_a_split_without_calibration_rows_is_what_it_was_before_there_were_any(corpus, tmp_path):
    """Hashes of a file and of its content, from the program that knew no such side."""
    split = freeze(corpus, tmp_path)
    [path] = tmp_path.iterdir()
    assert splits.content_sha256(split).startswith("a75960980f9f7f679305d690368c5fda")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest.startswith("63d1e5f766b0e107a293b5fb269d896e")


# the corpus of the quick start


def test_real_corpus(tmp_path):
    corpus = corpora.load("human_scored_responses", task="response_harm", data_dir=tmp_path)
    split = splits.make_split(corpus, SplitSpec(seed=0, labelled=100, dev=150, test=250))
    counts = {side: (found["harmful"], found["safe"]) for side, found in split.counts.items()}
    assert counts["labelled"] == (50, 50)
    assert sum(counts["dev"]) == 150 and sum(counts["test"]) == 250
    assert sum(counts["unlabelled"]) == 577 and counts["left_out"] == (0, 0)
    group = group_of(corpus)
    seen = [{group[row] for row in ids} for ids in sides(split).values()]
    assert len(set().union(*seen)) == sum(map(len, seen))
    report = json.loads(Path("experiments/first_light/supervised-0.json").read_text())["report"]
    assert splits.content_sha256(split) == report["provenance"]["split_sha256"]
    ids = " ".join(split.test + split.dev + split.labelled)
    assert hashlib.sha256(ids.encode()).hexdigest()[:16] == "7212bd0240d4267c", (
        "seed 0 no longer gives the rows that published numbers were measured on: groups or the "
        "order of drawing changed, so raise SCHEMA_VERSION and measure again"
    )


# a test corpus of its own


def test_given_test_rows_are_the_test_side_and_their_near_duplicates_are_left_out(tmp_path):
    pool = corpus_of(alone(40, 0) + alone(40, 1), "pool")
    twin = f"{pool.examples[7].prompt} again"  # a near-duplicate of a row of the pool
    rows = [*[(f"test{i} row{i} number {i} here", i % 2) for i in range(10)], (twin, 0)]
    examples = [
        Example(f"t{i}", prompt, None, label, None, "made up", "none")
        for i, (prompt, label) in enumerate(rows)
    ]
    unlabelled = Example("t-unknown", "who knows what this is", None, None, None, "made up", "none")
    test = make_corpus("exam", "prompt_harm", [*examples, unlabelled], "none")
    both, ids = assemble.with_test(pool, test)
    assert both.name == "pool-exam" and len(both.examples) == 91 and len(ids) == 11
    split = splits.load_or_freeze(
        both, tmp_path, SplitSpec(seed=0, labelled=10, dev=10, test=250), given_test=ids
    )
    assert set(split.test) == ids
    assert split.left_out == (pool.examples[7].id,)
    assert len(split.labelled) == 10 and len(split.dev) == 10 and len(split.unlabelled) == 59
    again = splits.load_or_freeze(
        both, tmp_path, SplitSpec(seed=0, labelled=10, dev=10, test=3), given_test=ids
    )
    assert again == split  # `test` is unread


def test_a_test_corpus_must_have_ids_of_its_own_and_both_classes():
    pool = corpus_of(alone(4, 0) + alone(4, 1), "pool")
    with pytest.raises(BadInput, match="share 8 ids"):
        assemble.with_test(pool, pool)
    with pytest.raises(BadInput, match="needs harmful and safe rows"):
        assemble.with_test(pool, corpus_of(alone(4, 0), "exam"))


# another corpus for the unlabelled pool


def test_the_rows_of_an_unlabelled_corpus_are_in_the_pool_or_left_out_and_their_labels_unread():
    pool = corpus_of(alone(40, 0) + alone(40, 1), "pool")
    rows = [(f"more{i} text{i} number {i} there", i % 2) for i in range(30)]
    rows += [(f"{example.prompt} again", 1) for example in pool.examples]  # near-duplicates
    more = make_corpus(
        "more",
        "prompt_harm",
        [
            Example(f"m{i}", prompt, None, label, "weapons", "made up", "other")
            for i, (prompt, label) in enumerate(rows)
        ],
        "other",
    )
    both = assemble.with_unlabelled(pool, more)
    assert both.name == "pool-more" and both.licence == "none and other"
    assert both.examples[:80] == pool.examples and both.sha256 != pool.sha256
    assert {(e.label, e.category) for e in both.examples[80:]} == {(None, None)}
    split = splits.make_split(both, SplitSpec(seed=0, labelled=10, dev=10, test=20))
    alone_split = splits.make_split(pool, SplitSpec(seed=0, labelled=10, dev=10, test=20))
    for side in ("labelled", "dev", "test"):  # the same rows with and without more text
        assert getattr(split, side) == getattr(alone_split, side)
    beside = {f"m{30 + i}" for i, e in enumerate(pool.examples) if e.id in alone_split.unlabelled}
    assert set(split.unlabelled) - set(alone_split.unlabelled) == beside | {
        f"m{i}" for i in range(30)
    }
    assert len(split.left_out) == 40  # copies of labelled, dev and test rows


def test_an_unlabelled_corpus_must_have_ids_of_its_own():
    pool = corpus_of(alone(4, 0) + alone(4, 1), "pool")
    with pytest.raises(BadInput, match="unlabelled corpus pool share 8 ids"):
        assemble.with_unlabelled(pool, pool)
