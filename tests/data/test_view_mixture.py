import json

import numpy as np
import pytest

from ssl_guard.data.pipeline import train_batches
from ssl_guard.data.shards import open_shards, write_shards
from ssl_guard.data.view_mixture import Mixture
from ssl_guard.errors import BadInput

ROWS, COPIES, WEIGHTS = 30, (4, 2), (3.0, 1.0)


def make_view(folder, name, copies, size=ROWS):
    """Records whose tokens are the pool index, the copy, and the view's number of copies."""
    rng = np.random.default_rng(copies)
    rows = [
        {
            "id": f"{name} {i}",
            "input_ids": np.r_[i, copy, copies, rng.integers(9, size=rng.integers(20))],
            "second": 1,
            "cut": 0,
            "label": -1,
            "index": i,
            "copy": copy,
        }
        for i in range(size)
        for copy in range(copies)
    ]
    write_shards(folder / name, name, rows, num_shards=3, made_from={})
    return open_shards(folder / name, name, made_from={}, rebuild="")


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    return [make_view(folder, name, n) for name, n in (("pool", 1), ("a", 4), ("b", 2))]


def batches_of(views, strong=None, **changes):
    pool, *sets = views
    strong = strong or Mixture(sets, rows=ROWS, weights=WEIGHTS)
    settings = dict(seed=3, steps=120, labelled_batch=2, unlabelled_batch=5, buckets=(24,))
    return train_batches(pool, pool, strong, pad_id=0, **(settings | changes))


def shown(views, **changes):
    """(row, copy, copies of the set) in the order of the visits to each row: {row: list}."""
    visits = {row: [] for row in range(ROWS)}
    # A window of one step keeps the visits in order; 120 steps of 5 rows are 20 epochs.
    for batch in batches_of(views, window_steps=1, **changes):
        for index, ids in zip(batch["index"], batch["strong"]["input_ids"], strict=True):
            assert ids[0] == index
            visits[index].append((int(ids[1]), int(ids[2])))
    return visits


def test_records_of_all_views_in_one_order(views):
    _, a, b = views
    mixture = Mixture([a, b], rows=ROWS)
    assert mixture.copies == COPIES and len(mixture) == 180
    order = np.random.default_rng(0).permutation(180)
    for i, record in zip(order, mixture.gather(order), strict=True):
        expected = a[i] if i < 120 else b[i - 120]
        np.testing.assert_array_equal(record["input_ids"], expected["input_ids"])
        assert record["id"] == expected["id"] and mixture.lengths[i] == len(record["input_ids"])
    assert mixture[-1]["id"] == b[59]["id"] and len(list(mixture)) == 180
    with pytest.raises(IndexError):
        mixture[180]
    np.testing.assert_allclose(
        Mixture([a, b], rows=ROWS, weights=WEIGHTS).mean_lengths(),
        0.75 * a.lengths.reshape(-1, 4).mean(1) + 0.25 * b.lengths.reshape(-1, 2).mean(1),
        rtol=1e-12,
    )


def test_sets_are_drawn_by_weight_and_their_copies_in_turn(views):
    visits = shown(views)
    assert all(len(row) == 20 for row in visits.values())
    sets = np.array([[copies == 4 for _, copies in row] for row in visits.values()])
    assert abs(sets.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 600)
    assert len({tuple(row) for row in sets}) == ROWS, "every row draws for itself"
    starts = {4: set(), 2: set()}
    for row in visits.values():
        for copies in COPIES:
            mine = [copy for copy, number in row if number == copies]
            assert mine == [(mine[0] + turn) % copies for turn in range(len(mine))]
            starts[copies].add(mine[0])
    assert starts == {4: {0, 1, 2, 3}, 2: {0, 1}}


def test_one_set_is_what_it_always_was(views):
    """The copy of a row in an epoch: (a random first one + epoch) modulo copies."""
    pool, a, _ = views
    visits = shown([pool, a], strong=a, copies=4)
    first = np.random.default_rng([3, 3]).integers(4, size=ROWS)
    for row, seen in visits.items():
        assert [copy for copy, _ in seen] == [(first[row] + epoch) % 4 for epoch in range(20)]


@pytest.mark.parametrize("position", [0, 1, 7, 59])
def test_a_restored_iterator_goes_on_with_the_same_views(views, position):
    def rest(iterator):
        return [batch["strong"]["input_ids"].tolist() for batch in iterator]

    iterator = iter(batches_of(views))
    for _ in range(position):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = rest(iterator)
    fresh = iter(batches_of(views))
    fresh.set_state(state)
    assert rest(fresh) == expected
    iterator.set_state(state)  # backwards
    assert rest(iterator) == expected


def test_a_choice_is_a_pure_function(views):
    mixture = Mixture(views[1:], rows=ROWS, weights=WEIGHTS)
    rows, epochs = np.tile(np.arange(ROWS), 9), np.repeat(np.arange(9), ROWS)
    expected = mixture.chooser(3)(rows, epochs)
    choose = mixture.chooser(3)
    for i in np.random.default_rng(0).permutation(len(rows)):
        assert choose(rows[i : i + 1], epochs[i : i + 1]) == expected[i]
    assert (mixture.chooser(4)(rows, epochs) != expected).any()


def test_packed_batches_see_the_same_rows(views):
    weak, sets = views[0], Mixture(views[1:], rows=ROWS, weights=WEIGHTS)
    for batch in batches_of(views, steps=12, pack_groups=1):
        strong = batch["strong"]["input_ids"][batch["strong"]["attention_mask"] > 0]
        assert set(batch["index"]) <= set(range(len(weak)))
        assert len(strong) <= sum(sorted(sets.lengths)[-5:])


def test_views_of_another_pool_are_refused(views):
    pool, a, b = views
    with pytest.raises(BadInput, match="120 records, which is not 3 copies of each of the 30"):
        Mixture([a], rows=ROWS, copies=[3])
    with pytest.raises(BadInput, match="60 records, which is not 2 copies of each of the 29"):
        Mixture([b], rows=29)
    with pytest.raises(BadInput, match="of 15 rows and the unlabelled view is not"):
        batches_of(views, strong=Mixture([a], rows=15))
    with pytest.raises(BadInput, match="must increase up to max_length"):
        batches_of(views, buckets=(4,))
