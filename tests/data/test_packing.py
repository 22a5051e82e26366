import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_guard.data import packing
from ssl_guard.data.pipeline import eval_batches, token_counts, train_batches
from ssl_guard.data.shards import open_shards, write_shards
from ssl_guard.errors import BadInput

LENGTH, PAD, COPIES = 24, 99, 2
BUCKETS = (LENGTH // 2, LENGTH)


def shortest_packing(lengths, rows):
    """The least longest row, by trying every assignment."""
    choices = itertools.product(range(rows), repeat=len(lengths))
    return min(np.bincount(choice, lengths, minlength=rows).max() for choice in choices)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, LENGTH), min_size=n, max_size=n), min_size=1)
    ),
    st.integers(1, 4),
)
def test_texts_lie_side_by_side_and_rows_are_balanced(lengths, rows):
    lengths = np.array(lengths, np.int32).T
    row, start, need = packing.balanced(lengths, rows)
    for group in range(len(lengths)):
        ends = np.zeros(rows, int)
        for text in np.lexsort((lengths[group], start[group])):
            assert start[group, text] == ends[row[group, text]]
            ends[row[group, text]] += lengths[group, text]
        assert need[group] == ends.max()
        assert need[group] <= lengths[group].max() * -(-lengths.shape[1] // rows)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, LENGTH), min_size=1, max_size=7), st.integers(1, 3))
def test_rows_are_nearly_as_short_as_possible(lengths, rows):
    (longest,) = packing.balanced(np.array([lengths]), rows)[2]
    assert longest <= (4 / 3 - 1 / (3 * rows)) * shortest_packing(lengths, rows) + 1e-9


def test_the_longest_text_goes_first_each_into_the_shortest_row():
    row, start, need = packing.balanced(np.array([[4, 20, 7, 17], [6, 6, 6, 6]]), 2)
    assert row.tolist() == [[0, 0, 1, 1], [0, 1, 0, 1]]
    assert start.tolist() == [[20, 0, 17, 0], [0, 0, 6, 6]]
    assert need.tolist() == [24, 12]


@pytest.mark.parametrize("count", [1, 2, 6, 16, 48])
def test_sorted_texts_are_spread_over_any_number_of_devices(count):
    order = packing.spread(count)
    assert sorted(order) == list(range(count))
    for groups in (2, 4, 8):
        if count % (2 * groups) == 0:  # every group gets as much as every other
            assert len(set(order.reshape(groups, -1).sum(axis=1))) == 1


def test_batches_are_dealt_texts_of_equal_total_in_every_view():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(100) for _ in range(5)])[:480]
    lengths = rng.geometric(0.03, 100)[rows]
    tokens = np.stack([lengths, (lengths * rng.uniform(1, 2, 480)).astype(int)], axis=1)
    places = packing.dealt(rows, lengths, tokens, 16)
    assert sorted(places.ravel()) == list(range(480))
    random = tokens[rng.permutation(480).reshape(30, 16)].sum(axis=1).std(axis=0)
    assert (tokens[places].sum(axis=1).std(axis=0) < 0.15 * random).all()
    assert all(len(set(rows[batch])) == 16 for batch in places), "no row meets itself"


def make_records(rng, count):
    lengths = np.minimum(LENGTH, 1 + rng.geometric(0.2, count))
    lengths[:3] = LENGTH, 1, LENGTH
    return [
        {
            "input_ids": rng.integers(100, 200, n).astype(np.int32),
            "second": int(rng.integers(0, n + 1)),
        }
        for n in lengths
    ]


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_packed_arrays_give_the_texts_back(groups):
    records = make_records(np.random.default_rng(groups), 16)
    lengths = [len(record["input_ids"]) for record in records]
    height = max(1, 4 // groups)  # rows of a group
    row, start, need = packing.balanced(np.array(lengths).reshape(groups, -1), height)
    view = packing.lay_out(
        records,
        (row + height * np.arange(groups)[:, None]).ravel(),
        start.ravel(),
        rows=height * groups,
        length=int(need.max()),
        pad_id=PAD,
        first_row=32,
    )
    assert all(x.dtype == np.int32 for x in view.values())
    assert view["row"].tolist() == list(range(32, 48))
    rows = height * groups
    assert view["text"].shape == (rows, need.max())
    for number, record in enumerate(records):
        row, place = np.nonzero(view["text"] == 32 + number)
        assert len(set(row)) == 1 and row[0] // (rows // groups) == number // (16 // groups)
        assert (np.diff(place) == 1).all(), "contiguous"
        np.testing.assert_array_equal(view["input_ids"][row, place], record["input_ids"])
        types = np.arange(len(row)) >= record["second"]
        np.testing.assert_array_equal(view["token_type_ids"][row, place], types)
    pads = view["text"] == -1
    np.testing.assert_array_equal(view["attention_mask"], ~pads)
    assert (view["input_ids"][pads] == PAD).all() and not view["token_type_ids"][pads].any()


def write_view(folder, name, size, copies=1):
    rng = np.random.default_rng(size)
    rows = [
        record | {"id": f"{name} {i} {copy}", "cut": 0, "label": i % 2, "index": i, "copy": copy}
        for i in range(size)
        for copy, record in enumerate(make_records(rng, copies + 3)[3:])
    ]
    write_shards(folder / name, name, rows, num_shards=2, made_from={})
    return open_shards(folder / name, name, made_from={}, rebuild="")


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    return (
        write_view(folder, "labelled", 20),
        write_view(folder, "pool", 90),
        write_view(folder, "strong", 90, COPIES),
    )


def batches_of(views, **changes):
    chosen = dict(
        seed=3,
        steps=48,
        labelled_batch=8,
        unlabelled_batch=16,
        buckets=BUCKETS,
        pad_id=PAD,
        copies=COPIES,
        window_steps=8,
        pack_groups=2,
    )
    return train_batches(*views, **(chosen | changes))


def texts_of(view):
    return [view["input_ids"][view["text"] == row].tolist() for row in view["row"]]


def test_a_packed_batch_is_the_records_of_its_index(views):
    labelled, weak, _ = views
    for batch in batches_of(views):
        for texts, records, index in (
            (texts_of(batch["weak"]), weak, batch["index"]),
            (texts_of(batch["labelled"]), labelled, batch["labelled"]["index"]),
        ):
            for text, record in zip(texts, records.gather(index), strict=True):
                assert text == record["input_ids"].tolist()
        assert batch["labelled"]["label"].tolist() == (batch["labelled"]["index"] % 2).tolist()
        assert batch["weight"].shape == batch["hidden_label"].shape == (16,)


def test_every_row_once_an_epoch(views):
    seen = np.zeros(90, int)
    for batch in batches_of(views, steps=45):  # 45 * 16 = 8 * 90, but whole windows only to 40
        np.add.at(seen, batch["index"], 1)
    assert abs(seen - 8).max() <= 1
    weights = [batch["weight"] for batch in batches_of(views)]
    assert np.mean(weights) == 1, "equal rows go to different batches"


def test_the_shapes_are_few_and_pad_less(views):
    packed, buckets = list(batches_of(views)), list(batches_of(views, pack_groups=0))
    shapes = {tuple(batch[v]["text"].shape for v in ("labelled", "weak")) for batch in packed}
    assert len(shapes) <= len(BUCKETS) and len({rows for (rows, _), _ in shapes}) == 1
    many = {
        tuple(batch[v]["text"].shape[1] for v in ("labelled", "weak", "strong"))
        for batch in batches_of(views, num_shapes=5)
    }
    assert len(shapes) < len(many) <= 5

    def padding(batches):
        real, computed = np.sum([token_counts(batch) for batch in batches], axis=0)
        return 1 - real / computed

    assert padding(packed) < padding(buckets) - 0.1


def test_the_slices_of_the_processes_make_up_the_global_batch(views):
    whole = batches_of(views, steps=12, pack_groups=4)
    parts = [
        batches_of(views, steps=12, pack_groups=4, process_index=i, process_count=2)
        for i in range(2)
    ]
    for batch, *pieces in zip(whole, *parts, strict=True):
        for name in ("labelled", "weak", "strong"):
            for key, value in batch[name].items():
                np.testing.assert_array_equal(
                    value, np.concatenate([piece[name][key] for piece in pieces])
                )
    with pytest.raises(BadInput, match="labelled batch of 8 texts .* 16 devices"):
        batches_of(views, pack_groups=16)
    with pytest.raises(BadInput, match="make it a multiple of the devices"):
        batches_of(views, pack_groups=2, process_count=4)


@pytest.mark.parametrize("batch_size", [2, 8, 90, 96])
def test_evaluation_sees_every_record_once(views, batch_size):
    _, weak, _ = views
    seen, shapes = [], set()
    chosen = dict(batch_size=batch_size, buckets=(LENGTH,), pad_id=PAD, pack_groups=2)
    for batch, positions in eval_batches(weak, **chosen):
        assert batch["weight"].tolist() == [1] * len(positions) + [0] * (
            batch_size - len(positions)
        )
        texts = texts_of(batch)
        assert texts[: len(positions)] == [weak[i]["input_ids"].tolist() for i in positions]
        seen += positions.tolist()
        shapes.add(batch["text"].shape)
    assert sorted(seen) == list(range(90))
    assert len(shapes) == 1
