"""The global batch is the same for any number of processes, at any step, after any resume."""

import json

import grain
import numpy as np
import pytest

from ssl_guard.data.pipeline import eval_batches, train_batches
from ssl_guard.data.records import Rows
from ssl_guard.data.view_mixture import Mixture
from ssl_guard.errors import BadInput

POOL, STEPS, BUCKETS = 37, 30, (8, 16, 24)


class Watched(Rows):
    """Rows that note which of them were read."""

    def __init__(self, records):
        super().__init__(records)
        self.read = []

    def gather(self, indices):
        indices = [int(i) for i in indices]
        self.read += indices
        return super().gather(indices)


def make_view(size, copies=1):
    rng = np.random.default_rng(size * copies)
    return Watched(
        {
            "input_ids": np.r_[i, copy, rng.integers(99, size=rng.integers(22))].astype(np.int32),
            "second": 2,
            "label": i % 2,
            "index": i,
        }
        for i in range(size)
        for copy in range(copies)
    )


@pytest.fixture(scope="module")
def views():
    labelled, weak = make_view(11), make_view(POOL)
    return labelled, weak, Mixture([make_view(POOL, 2), make_view(POOL, 3)], rows=POOL)


WAYS = {
    "plain": {"window_steps": 1},
    "windows": {"window_steps": 7, "sort_by_length": True},
    "shapes": {"window_steps": 7, "sort_by_length": True, "num_shapes": 3},
    "one length": {"num_shapes": 3, "one_length": True, "strata": np.arange(11) % 3},
    "packed": {"window_steps": 7, "pack_groups": 4},
    "packed shapes": {"window_steps": 8, "pack_groups": 4, "num_shapes": 1},
    "supervised": {"window_steps": 7},
    "no strong view": {"window_steps": 7, "pack_groups": 4},
}


def batches_of(views, way, **changes):
    labelled, weak, strong = views
    if way == "supervised":
        weak = strong = None
    if way == "no strong view":
        strong = None
    chosen = dict(labelled_batch=8, unlabelled_batch=12, buckets=BUCKETS, pad_id=0)
    return train_batches(
        labelled, weak, strong, seed=5, steps=STEPS, **chosen | WAYS[way] | changes
    )


def join(pieces):
    if isinstance(pieces[0], dict):
        return {name: join([piece[name] for piece in pieces]) for name in pieces[0]}
    return np.concatenate(pieces)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        if isinstance(a[name], dict):
            assert_same(a[name], b[name])
        else:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("way", WAYS)
def test_processes_make_up_the_global_batch_also_after_a_resume_at_any_step(views, way):
    whole = list(batches_of(views, way))
    assert len(whole) == STEPS
    for count in (1, 2, 4):
        parts = [batches_of(views, way, process_index=i, process_count=count) for i in range(count)]
        iterators = [iter(part) for part in parts]
        for step, batch in enumerate(whole):
            states = [json.loads(json.dumps(iterator.get_state())) for iterator in iterators]
            assert_same(batch, join([next(iterator) for iterator in iterators]))
            resumed = [iter(part) for part in parts]
            for iterator, state in zip(resumed, states, strict=True):
                iterator.set_state(state)
            for expected in whole[step : step + 2]:
                assert_same(expected, join([next(iterator) for iterator in resumed]))


@pytest.mark.parametrize("way", ["windows", "shapes", "packed"])
def test_a_process_reads_its_own_rows_only(views, way):
    labelled, weak, strong = views
    whole = list(batches_of(views, way))
    for process in range(4):
        for view in (labelled, weak, *strong.views):
            view.read.clear()
        list(batches_of(views, way, process_index=process, process_count=4))
        assert weak.read == [i for b in whole for i in b["index"][3 * process :][:3]]
        assert labelled.read == [
            i for b in whole for i in b["labelled"]["index"][2 * process :][:2]
        ]
        assert sum(len(view.read) for view in strong.views) == 3 * STEPS


@pytest.mark.parametrize("depth", [1, 5])
@pytest.mark.parametrize("way", ["shapes", "packed"])
def test_the_stream_is_the_same_for_any_prefetch_depth(views, way, depth):
    whole = list(batches_of(views, way))
    ahead = grain.experimental.ThreadPrefetchIterDataset(
        batches_of(views, way), prefetch_buffer_size=depth
    )
    iterator = iter(ahead)
    for step, batch in enumerate(whole):
        state = json.loads(json.dumps(iterator.get_state()))
        assert_same(batch, next(iterator))
        if step % 6 == 0:
            resumed = iter(ahead)
            resumed.set_state(state)
            rest = list(resumed)
            assert len(rest) == STEPS - step
            for expected, found in zip(whole[step:], rest, strict=True):
                assert_same(expected, found)


@pytest.mark.parametrize("groups", [0, 4])
@pytest.mark.parametrize("count", [2, 4])
def test_processes_evaluate_the_global_batch(views, groups, count):
    _, weak, _ = views
    chosen = dict(batch_size=16, buckets=BUCKETS, pad_id=0, pack_groups=groups)
    whole = list(eval_batches(weak, **chosen))
    parts = [
        list(eval_batches(weak, **chosen, process_index=i, process_count=count))
        for i in range(count)
    ]
    for (batch, positions), *pieces in zip(whole, *parts, strict=True):
        assert_same(batch, join([piece for piece, _ in pieces]))
        assert all((places == positions).all() for _, places in pieces)
    with pytest.raises(BadInput, match="16 rows cannot be split over 3"):
        next(eval_batches(weak, **chosen | {"pack_groups": 0}, process_count=3))
