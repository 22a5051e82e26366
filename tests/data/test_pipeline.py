import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_guard.data import pipeline, sampling
from ssl_guard.data.pipeline import eval_batches, token_counts, train_batches
from ssl_guard.data.shards import open_shards, write_shards
from ssl_guard.data.soft_labels import SoftLabels
from ssl_guard.errors import BadInput

BUCKETS, PAD, COPIES = (16, 24, 40), 99, 4


def make_view(folder, name, size, copies=1, order=None):
    """Records that say who they are: tokens 0 and 1 are the pool index and the copy."""
    rng = np.random.default_rng(size * copies)
    rows = []
    for i in range(size) if order is None else order:
        for copy in range(copies):
            length = min(40, 3 + rng.geometric(0.1))  # many short, some long, some at max_length
            ids = rng.integers(100, 200, length).astype(np.int32)
            ids[:2] = i, copy
            second = int(rng.integers(2, len(ids) + 1))
            rows.append(
                {
                    "id": f"{name} {i} {copy}",
                    "input_ids": ids,
                    "second": second,
                    "cut": 0,
                    "label": i % 3 - 1 if name == "pool" else i % 2,
                    "index": i,
                    "copy": copy,
                }
            )
    write_shards(folder / name, name, rows, num_shards=3, made_from={})
    return open_shards(folder / name, name, made_from={}, rebuild="")


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    return (
        make_view(folder, "labelled", 10),
        make_view(folder, "pool", 50),
        make_view(folder, "strong", 50, COPIES),
    )


def batches_of(views, **changes):
    settings = dict(
        seed=3,
        steps=100,
        labelled_batch=4,
        unlabelled_batch=6,
        buckets=BUCKETS,
        pad_id=PAD,
        copies=COPIES,
        window_steps=4,
    )
    return train_batches(*views, **(settings | changes))


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        if isinstance(a[name], dict):
            assert_same(a[name], b[name])
        else:
            np.testing.assert_array_equal(a[name], b[name])
            assert a[name].dtype == b[name].dtype


def test_batches_have_the_promised_fields_shapes_and_dtypes(views):
    batches = list(batches_of(views, steps=9))
    assert len(batches) == 9
    for batch in batches:
        assert batch.keys() == {"labelled", "weak", "strong", "index", "weight", "hidden_label"}
        length = batch["weak"]["input_ids"].shape[1]
        for name, rows in (("labelled", 4), ("weak", 6), ("strong", 6)):
            view = batch[name]
            for field in ("input_ids", "attention_mask", "token_type_ids"):
                assert (view[field].shape, view[field].dtype) == ((rows, length), np.int32)
            assert (view["row"].tolist(), view["row"].dtype) == (list(range(rows)), np.int32)
        assert batch["labelled"]["label"].dtype == batch["index"].dtype == np.int32
        assert batch["hidden_label"].dtype == np.int32
        assert batch["weight"].dtype == batch["labelled"]["weight"].dtype == np.float32


def test_rows_of_the_three_views_are_the_right_ones_and_padded_right(views):
    labelled, weak, strong = views
    for batch in batches_of(views):
        for i, index in enumerate(batch["index"]):
            copy = batch["strong"]["input_ids"][i, 1]
            records = {"weak": weak[index], "strong": strong[index * COPIES + copy]}
            for name, record in records.items():
                assert record["index"] == index
                check_row(batch[name], i, record)
            assert batch["hidden_label"][i] == index % 3 - 1
        for i, index in enumerate(batch["labelled"]["input_ids"][:, 0]):
            check_row(batch["labelled"], i, labelled[index])
            assert batch["labelled"]["label"][i] == index % 2
            assert batch["labelled"]["weight"][i] == 1


@pytest.mark.parametrize("changes", [{}, {"pack_groups": 2}, {"sort_by_length": True}])
def test_soft_labels_are_those_of_the_rows(views, changes):
    rng = np.random.default_rng(0)
    soft = SoftLabels(rng.random(50, np.float32), rng.random(50, np.float32), "")
    for batch in batches_of(views, steps=20, soft_labels=soft, **changes):
        assert batch["soft_label"].dtype == batch["soft_weight"].dtype == np.float32
        np.testing.assert_array_equal(batch["soft_label"], soft.harmful[batch["index"]])
        np.testing.assert_array_equal(batch["soft_weight"], soft.weight[batch["index"]])
    parts = [
        batches_of(views, steps=5, soft_labels=soft, process_index=i, process_count=2, **changes)
        for i in (0, 1)
    ]
    for batch, *halves in zip(
        batches_of(views, steps=5, soft_labels=soft, **changes), *parts, strict=True
    ):
        joined = np.concatenate([half["soft_label"] for half in halves])
        np.testing.assert_array_equal(joined, batch["soft_label"])


def check_row(view, i, record):
    ids, length = record["input_ids"], len(record["input_ids"])
    padding = view["input_ids"].shape[1] - length
    assert view["input_ids"][i].tolist() == [*ids, *[PAD] * padding]
    assert view["attention_mask"][i].tolist() == [1] * length + [0] * padding
    segments = [0] * record["second"] + [1] * (length - record["second"]) + [0] * padding
    assert view["token_type_ids"][i].tolist() == segments


def test_one_length_for_a_step_the_smallest_bucket_that_holds_its_longest_row(views):
    lengths = set()
    for batch in batches_of(views):
        longest = max(
            batch[name]["attention_mask"].sum(1).max() for name in ("labelled", "weak", "strong")
        )
        length = batch["weak"]["input_ids"].shape[1]
        assert length == min(bucket for bucket in BUCKETS if bucket >= longest)
        lengths.add(length)
    assert lengths == set(BUCKETS), "as many compiled shapes as buckets"


def shapes_of(batches):
    return [
        tuple(batch[name]["input_ids"].shape[1] for name in ("labelled", "weak", "strong"))
        for batch in batches
    ]


def test_chosen_shapes_are_few_rise_and_pad_less(views):
    def share(batches):
        real, computed = np.sum([token_counts(batch) for batch in batches], axis=0)
        return 1 - real / computed

    buckets, own, one = (
        list(batches_of(views, window_steps=10, sort_by_length=True, **way))
        for way in ({}, {"num_shapes": 6}, {"num_shapes": 6, "one_length": True})
    )
    assert share(own) < share(one) < share(buckets) - 0.03
    found = sorted(set(shapes_of(own)))
    assert len(found) <= 6 and (np.diff(found, axis=0) >= 0).all()
    assert any(len(set(lengths)) > 1 for lengths in found)
    assert len(set(shapes_of(one))) <= 6
    assert all(len(set(lengths)) == 1 for lengths in shapes_of(one))
    for a, b in zip(buckets, one, strict=True):
        assert a["index"].tolist() == b["index"].tolist(), "shapes do not choose the rows"
    for batch in own:
        for i, index in enumerate(batch["index"]):
            check_row(batch["weak"], i, views[1][index])


@pytest.mark.parametrize("pack_groups", [0, 2])
def test_a_step_that_fits_no_chosen_shape_gets_one_that_holds_everything(
    views, monkeypatch, pack_groups
):
    way = dict(
        num_shapes=2, window_steps=2, sort_by_length=True, pack_groups=pack_groups, labelled_batch=4
    )
    few = shapes_of(batches_of(views, **way))
    monkeypatch.setattr(pipeline, "SAMPLED_STEPS", 2)
    found = shapes_of(batches_of(views, **way))
    assert len(set(few)) == 2 and len(set(found)) == 3
    assert set(found[:2]) == set(sorted(set(found))[:2]), "chosen for the sampled steps"
    if not pack_groups:
        assert max(found) == tuple(view.lengths.max() for view in views)


def test_every_row_once_an_epoch_and_its_copies_in_turn(views):
    # 100 steps of 6 rows are 12 epochs of the pool's 50 rows, and end where a window ends.
    seen = np.zeros((50, COPIES), int)
    labelled = np.zeros(10, int)
    for batch in batches_of(views):
        np.add.at(seen, (batch["index"], batch["strong"]["input_ids"][:, 1]), 1)
        np.add.at(labelled, batch["labelled"]["input_ids"][:, 0], 1)
    assert (seen == 12 / COPIES).all()
    assert (labelled == 100 * 4 / 10).all()
    # Eight windows of 24 rows and the eight rows after them are four epochs of 50.
    first = [batch["index"] for batch in batches_of(views, unlabelled_batch=50, window_steps=1)]
    for index in first:
        assert sorted(index) == list(range(50))
    assert any((a != b).any() for a, b in zip(first, first[1:], strict=False))


def test_the_first_copy_of_a_row_is_random(views):
    batch = next(iter(batches_of(views, unlabelled_batch=50, window_steps=1)))
    copies = np.bincount(batch["strong"]["input_ids"][:, 1], minlength=COPIES)
    assert (copies >= 5).all()


@pytest.mark.parametrize("position", [0, 1, 3, 4, 17, 39, 40])
def test_a_restored_iterator_goes_on_with_the_same_batches(views, position):
    iterator = iter(batches_of(views, steps=40))
    for _ in range(position):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = list(iterator)
    restored = iter(batches_of(views, steps=40))
    restored.set_state(state)
    found = list(restored)
    assert len(found) == len(expected) == 40 - position
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)
    # Also backwards, on an iterator that has been used.
    iterator.set_state(state)
    for a, b in zip(iterator, expected, strict=True):
        assert_same(a, b)


def test_a_batch_depends_on_seed_and_step_only(views):
    def indices(**changes):
        return [batch["index"].tolist() for batch in batches_of(views, **changes)]

    assert indices(steps=10) == indices(steps=50)[:10]
    window = [set(sum(indices(steps=4, seed=seed), [])) for seed in (3, 4)]
    assert window[0] != window[1]  # not only the order of the same rows
    # A seed's second epoch is not the next seed's first, as it is in grain's own shuffle.
    settings = dict(steps=20, unlabelled_batch=5, window_steps=1)
    second, first = indices(**settings, seed=0)[10:], indices(**settings, seed=1)[:10]
    assert [set(index) for index in second] != [set(index) for index in first]


def test_the_second_occurrence_of_a_pool_row_weighs_nothing(tmp_path):
    views = (
        make_view(tmp_path, "labelled", 2),
        make_view(tmp_path, "pool", 5),
        make_view(tmp_path, "strong", 5, COPIES),
    )
    seen = np.zeros(5)
    for batch in batches_of(views, unlabelled_batch=8):
        index = batch["index"].tolist()
        expected = [float(i not in index[:place]) for place, i in enumerate(index)]
        assert batch["weight"].tolist() == expected
        np.add.at(seen, index, 1)
    assert (seen == 160).all()


def test_windows_that_cross_epochs_hardly_ever_repeat_a_row_in_a_batch(views):
    # Window of 96 rows, pool of 50: sorted by length alone, most batches would hold repetitions.
    weights = [
        batch["weight"]
        for batch in batches_of(views, window_steps=16, sort_by_length=True, steps=96)
    ]
    assert np.mean(weights) > 0.98


def test_the_slices_of_the_processes_make_up_the_global_batch(views):
    whole = batches_of(views, labelled_batch=8, unlabelled_batch=12, steps=20)
    parts = [
        batches_of(
            views,
            labelled_batch=8,
            unlabelled_batch=12,
            steps=20,
            process_index=process,
            process_count=4,
        )
        for process in range(4)
    ]

    def join(pieces):
        if isinstance(pieces[0], dict):
            return {name: join([piece[name] for piece in pieces]) for name in pieces[0]}
        return np.concatenate(pieces)

    for batch, *pieces in zip(whole, *parts, strict=True):
        assert_same(batch, join(pieces))
    with pytest.raises(BadInput, match="6 rows cannot be split over 4"):
        batches_of(views, process_count=4)


def test_without_unlabelled_or_without_strong_views(views):
    labelled, weak, _ = views
    both = list(batches_of(views, steps=8))
    supervised = list(batches_of((labelled, None, None), steps=8))
    assert all(batch.keys() == {"labelled"} for batch in supervised)
    assert [b["labelled"]["label"].tolist() for b in supervised] == [
        b["labelled"]["label"].tolist() for b in both
    ], "the labelled rows of a step do not depend on the unlabelled ones"
    for batch in batches_of((labelled, weak, None), steps=8):
        assert batch.keys() == {"labelled", "weak", "index", "weight", "hidden_label"}
        assert (batch["weak"]["input_ids"][:, 0] == batch["index"]).all()


@pytest.fixture(scope="module")
def long_is_harmful(tmp_path_factory):
    """Views in which the harmful rows are the long ones; a row's label is its index modulo 2."""
    folder = tmp_path_factory.mktemp("long_is_harmful")

    def view(name, size):
        rows = [
            {
                "id": f"{name} {i}",
                "input_ids": np.full((8, 30)[i % 2] + i % 5, i, np.int32),
                "second": 2,
                "cut": 0,
                "label": i % 2,
                "index": i,
                "copy": 0,
            }
            for i in range(size)
        ]
        write_shards(folder / name, name, rows, num_shards=1, made_from={})
        return open_shards(folder / name, name, made_from={}, rebuild="")

    return view("labelled", 64), view("pool", 640), view("strong", 640)


def test_batches_are_random_although_length_goes_with_the_class(long_is_harmful):
    def shares(**changes):
        """Harmful shares of the labelled and of the unlabelled batches, float [2, steps]."""
        sizes = dict(labelled_batch=16, unlabelled_batch=16, copies=1, steps=400, window_steps=16)
        batches = batches_of(long_is_harmful, **(sizes | changes))
        found = [[b["labelled"]["label"].mean(), b["hidden_label"].mean()] for b in batches]
        return np.array(found).T

    labels = np.arange(64) % 2
    labelled, unlabelled = shares(strata=labels)
    assert (labelled == 0.5).all(), "as many of each class in every batch"
    # A binomial of 16 draws has the deviation 0.125; 2% lie outside [1/4, 3/4].
    assert 0.11 < unlabelled.std() < 0.14 and (np.abs(unlabelled - 0.5) > 0.25).mean() < 0.04
    labelled, unlabelled = shares()
    assert 0.1 < labelled.std() < 0.14 and abs(np.corrcoef(labelled, unlabelled)[0, 1]) < 0.15
    labelled, unlabelled = shares(sort_by_length=True)
    assert min(labelled.std(), unlabelled.std()) > 0.4, "as the docstring warns"


def test_strata_are_spread_evenly_over_an_epoch(long_is_harmful):
    labels = np.arange(64) % 4 == 0  # a quarter
    batches = batches_of(long_is_harmful, strata=labels, labelled_batch=8, steps=24, copies=1)
    index = np.array([batch["labelled"]["index"] for batch in batches])
    assert (labels[index].sum(axis=1) == 2).all()
    for epoch in index.reshape(3, 64):
        assert sorted(epoch) == list(range(64))
    assert len({tuple(sorted(batch)) for batch in index}) == 24, (
        "batches differ from epoch to epoch"
    )


@given(st.lists(st.integers(0, 1), min_size=1, max_size=60), st.integers(1, 16))
def test_every_stretch_of_an_interleaved_order_has_the_shares_of_the_whole(strata, count):
    strata = np.array(strata)
    order = sampling.interleaved(strata)
    assert sorted(order) == list(range(len(strata)))
    for start in range(len(strata) - count + 1):
        found = strata[order[start : start + count]].sum()
        assert abs(found - count * strata.mean()) < 1 + 1e-9
    for stratum in (0, 1):
        kept = order[strata[order] == stratum]
        assert (np.diff(kept) > 0).all()


def test_sorting_within_windows_saves_padding(views):
    def share(window_steps):
        batches = batches_of(views, window_steps=window_steps, sort_by_length=True)
        counts = [token_counts(batch) for batch in batches]
        real, computed = np.sum(counts, axis=0)
        return 1 - real / computed

    batch = next(iter(batches_of(views)))
    masks = [batch[name]["attention_mask"] for name in ("labelled", "weak", "strong")]
    assert token_counts(batch) == (sum(m.sum() for m in masks), sum(m.size for m in masks))
    assert share(16) < share(1) - 0.05


def test_in_a_window_the_longest_rows_meet_and_its_steps_are_in_random_order(views):
    longest = np.array(
        [
            [batch[name]["attention_mask"].sum(1).max() for name in ("labelled", "weak", "strong")]
            for batch in batches_of(views, sort_by_length=True)
        ]
    ).reshape(25, 4, 3)
    labelled, unlabelled = longest[:, :, 0], longest[:, :, 1:].max(axis=2)
    for a, b in zip(labelled, unlabelled, strict=True):
        order = np.lexsort((b, a))
        assert (np.diff(a[order]) >= 0).all() and (np.diff(b[order]) >= 0).all()
    assert set(unlabelled.argmax(axis=1)) == {0, 1, 2, 3}


def test_views_that_do_not_fit_are_refused(views, tmp_path):
    labelled, weak, strong = views
    with pytest.raises(BadInput, match=r"buckets \(16, 24\) must increase up to .* has 40 tokens"):
        batches_of(views, buckets=(16, 24))
    with pytest.raises(BadInput, match="must increase"):
        batches_of(views, buckets=(24, 16, 40))
    with pytest.raises(BadInput, match="has 200 records, which is not 3 copies"):
        batches_of(views, copies=3)
    with pytest.raises(BadInput, match="not 4 copies"):
        batches_of((labelled, None, strong))
    shuffled = make_view(tmp_path, "strong", 50, COPIES, order=range(49, -1, -1))
    with pytest.raises(BadInput, match="hold other rows than their order says"):
        next(iter(batches_of((labelled, weak, shuffled))))


@pytest.mark.parametrize("batch_size", [1, 7, 10, 50, 64])
def test_evaluation_sees_every_record_once_in_few_shapes(views, batch_size):
    _, weak, _ = views
    scores, weights, computed = np.full(len(weak), np.nan), 0, 0
    for batch, positions in eval_batches(weak, batch_size=batch_size, buckets=BUCKETS, pad_id=PAD):
        assert batch["input_ids"].shape[0] == len(batch["weight"]) == batch_size
        assert batch["weight"].tolist() == [1] * len(positions) + [0] * (
            batch_size - len(positions)
        )
        length = batch["input_ids"].shape[1]
        longest = weak.lengths[positions].max()
        assert length == min(bucket for bucket in BUCKETS if bucket >= longest)
        for i, position in enumerate(positions):
            check_row(batch, i, weak[position])
            assert batch["label"][i] == weak[position]["label"]
        assert (batch["attention_mask"].sum(1) > 0).all(), "filling rows have tokens too"
        assert batch["row"].tolist() == list(range(batch_size))
        assert np.isnan(scores[positions]).all()
        scores[positions] = batch["input_ids"][: len(positions), 0]
        weights += batch["weight"].sum()
        computed += token_counts(batch)[1]
    assert scores.tolist() == list(range(50))
    assert weights == 50
    assert computed <= (50 + batch_size) * 40
    with pytest.raises(BadInput, match=f"{weak.lengths.max()} tokens"):
        next(eval_batches(weak, batch_size=4, buckets=(16,), pad_id=PAD))
