"""Makes batches from shards: random, padded to buckets, resumable at any step.

A batch is a pure function of (seed, step). The position of the data is therefore one number, and a
resumed run sees the same batches as an uninterrupted one.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from ssl_guard.data import bucketing, packing, sampling
from ssl_guard.data.records import Records
from ssl_guard.data.soft_labels import SoftLabels
from ssl_guard.data.view_mixture import Mixture
from ssl_guard.errors import BadInput

SAMPLED_STEPS = 2048  # first steps of a run, from whose lengths its shapes are chosen
MULTIPLE = 4  # chosen lengths are multiples of this, except that of the longest record


def train_batches(
    labelled: Records,
    weak: Records | None,
    strong: Records | Mixture | None,
    *,
    soft_labels: SoftLabels | None = None,
    seed: int,
    steps: int,
    labelled_batch: int,
    unlabelled_batch: int,
    buckets: Sequence[int],
    pad_id: int,
    copies: int = 1,
    window_steps: int = 16,
    sort_by_length: bool = False,
    strata: np.ndarray | None = None,
    pool_corpora: np.ndarray | None = None,
    pool_weights: Sequence[float] = (),
    num_shapes: int = 0,
    one_length: bool = False,
    pack_groups: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset:
    """Makes the batches of a training run; its iterators have get_state and set_state.

    labelled, weak, strong: the views. weak: record i is row i of the unlabelled pool. strong: copy
        c of row i at i * copies + c, or several such views as a Mixture. Both are None for a
        supervised run, strong for an algorithm without augmentation.
    soft_labels: of the rows of `weak`, for a method that learns from them.
    labelled_batch, unlabelled_batch: rows of a global batch. A process gets its own slice, rows
        [process_index * B / process_count, (process_index + 1) * B / process_count).
    buckets: increasing padded lengths; the last one is at least as long as any record.
    window_steps: rows of this many consecutive steps are dealt to batches together, to be packed or
        sorted; the steps of a window are then shuffled. Not used otherwise.
    sort_by_length: deals the longest rows of a window to one batch, and so on. This pads less, but
        batches are not random: if length depends on the class, a batch may lack a class.
    strata: int [labelled], such as the labels; each labelled batch has the shares of all labelled
        rows, to within a row. Not applied to sorted or packed batches; None for none.
    pool_corpora: int [pool], the number of each row's corpus, for pool_weights: the shares of the
        corpora in a batch, see sampling.weighted_orders; () draws every row once in an epoch.
    num_shapes: 0 pads all views of a step to the bucket of its longest row. Otherwise the number of
        compiled shapes, a length for each view (the same one with `one_length`), which are chosen
        from the run's first steps, see data/bucketing.py. A later step that fits none of them uses
        one more shape, that of the longest records.
    pack_groups: the number of devices, to pack several texts into one row, see data/packing.py.
        Batches then have texts of all lengths, and num_shapes = 0 chooses as many shapes as there
        are buckets. 0 gives every text its own row.

    A batch is a dict of NumPy arrays (Bl, Bu: a process's rows; L: the view's length in this step):
        labelled: {input_ids, attention_mask, token_type_ids: int32 [Bl, L], row, label, index (the
                   record's number): int32 [Bl], weight: float32 [Bl]}
        weak, strong: {input_ids, attention_mask, token_type_ids: int32 [Bu, L], row: int32 [Bu]}
        and in every view task: int32 [B], the place in schema.TASKS of the row's task, which
        depends on whether it has a response
        index: int32 [Bu], position in the pool; hidden_label: int32 [Bu], -1 where unknown
        weight: float32 [Bu], 0 where a pool row occurs in the global batch for the second time
        soft_label, soft_weight: float32 [Bu], with soft_labels
    `row` is the place in the global batch.

    Every epoch visits each row once (with pool_weights, at most once, but for a row at the end of
    its corpus's shuffle), in a new order, and uses the row's next strong copy, starting from a
    random one (of a set drawn by weight, see data/view_mixture.py). Batches continue across
    epochs; a pool smaller than a batch repeats within it.

    Raises BadInput for a record longer than the last bucket and for views that do not fit together.
    """
    for records in (labelled, weak, *(strong.views if isinstance(strong, Mixture) else (strong,))):
        if records is not None:
            _check_buckets(records, buckets)
    if strong is not None and not isinstance(strong, Mixture):
        rows = 0 if weak is None else len(weak)
        strong = Mixture([strong], rows=rows, copies=[copies])
    given: dict[str, Records | None] = {"labelled": labelled, "weak": weak, "strong": strong}
    views = {name: records for name, records in given.items() if records is not None}
    batch_sizes = {"labelled": labelled_batch, "weak": unlabelled_batch, "strong": unlabelled_batch}
    if strong is not None and (weak is None or strong.rows != len(weak)):
        raise BadInput(
            f"the strong views are of {strong.rows} rows and the unlabelled view is not; prepare "
            "the shards again."
        )
    batch_sizes = {name: batch_sizes[name] for name in views}
    _check_processes(process_count, *batch_sizes.values())
    if pack_groups:
        packing.check_groups(pack_groups, process_count, **batch_sizes)
    if not (sort_by_length or pack_groups):
        window_steps = 1  # a batch is the next rows of the shuffle
    plan = functools.lru_cache(maxsize=2)(
        sampling.planner(
            labelled,
            weak,
            strong,
            seed=seed,
            labelled_batch=labelled_batch,
            unlabelled_batch=unlabelled_batch,
            window_steps=window_steps,
            packed=pack_groups > 0,
            sort_by_length=sort_by_length,
            strata=strata,
            pool_corpora=pool_corpora,
            pool_weights=pool_weights,
            own_lengths=num_shapes > 0 and not one_length,
        )
    )
    longest = {name: int(records.lengths.max()) for name, records in views.items()}
    height = batch_sizes
    if pack_groups:
        means = {name: records.lengths.mean() for name, records in views.items()}
        if strong is not None:
            means["strong"] = strong.mean_lengths().mean()
        texts = {name: batch_sizes[name] // pack_groups for name in views}
        top = max(longest.values())
        height = {v: pack_groups * packing.rows_for(texts[v], means[v], top) for v in views}
        longest = {v: longest[v] * -(-batch_sizes[v] // height[v]) for v in views}
    elif one_length:
        longest = dict.fromkeys(views, max(longest.values()))

    @functools.lru_cache(maxsize=2)
    def layouts(window: int) -> dict[str, packing.Layout]:
        return {
            name: packing.layout(views[name].lengths[numbers], height[name], pack_groups)
            for name, numbers in plan(window).items()
        }

    def needs(window: int) -> np.ndarray:
        """Returns int [window_steps, views], the lengths that its steps ask for."""
        found = np.stack([layout.need for layout in layouts(window).values()], axis=1)
        if one_length:
            found[:] = found.max(axis=1, keepdims=True)
        return found

    if num_shapes or pack_groups:
        windows = range(-(-min(steps, SAMPLED_STEPS) // window_steps))
        sampled = -(-np.concatenate([needs(w) for w in windows]) // MULTIPLE) * MULTIPLE
        sampled, cost = np.minimum(sampled, list(longest.values())), np.array(list(height.values()))
        table = bucketing.choose(sampled, cost, num_shapes or len(buckets))
        table = np.vstack([table, list(longest.values())])
    else:
        table = np.repeat(np.array(buckets)[:, None], len(views), axis=1)

    def batch_of(step: int) -> dict:
        window, place = divmod(step, window_steps)
        lengths = bucketing.first_that_holds(table, needs(window)[place])
        batch: dict[str, Any] = {}
        for (name, records), length in zip(views.items(), lengths.tolist(), strict=True):
            numbers = plan(window)[name][place]
            mine = packing.own_slice(len(numbers), process_index, process_count)
            rows = records.gather(numbers[mine])
            layout = layouts(window)[name]
            batch[name] = packing.view(
                rows, layout, place, length, pad_id, process_index, process_count
            )
            if name == "labelled":
                batch[name]["label"] = np.array([row["label"] for row in rows], np.int32)
                batch[name]["weight"] = np.ones(len(rows), np.float32)
                batch[name]["index"] = numbers[mine].astype(np.int32)
                continue
            index = plan(window)["weak"][place]
            if any(row["index"] != i for row, i in zip(rows, index[mine], strict=True)):
                raise BadInput(
                    "the unlabelled and strong views hold other rows than their order says; "
                    "prepare the shards again."
                )
            if name == "weak":
                batch["hidden_label"] = np.array([row["label"] for row in rows], np.int32)
                batch["index"] = index[mine].astype(np.int32)
                batch["weight"] = _first_occurrence(index)[mine]
                if soft_labels is not None:
                    batch["soft_label"] = soft_labels.harmful[index[mine]]
                    batch["soft_weight"] = soft_labels.weight[index[mine]]
        return batch

    return (
        grain.MapDataset.range(steps)
        .map(batch_of)
        # Records are small: reader threads would only contend for the GIL.
        .to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    )


def eval_batches(
    records: Records,
    *,
    batch_size: int,
    buckets: Sequence[int],
    pad_id: int,
    pack_groups: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[tuple[dict, np.ndarray]]:
    """Yields every record once: (batch like "labelled" above, positions int64 [rows]).

    Rows are sorted by length, each batch is padded to the bucket of its longest row, and the last
    one is filled with rows of weight 0. positions are the records of the other rows, which come
    first: `scores[positions] = predictions[: len(positions)]`. With pack_groups (see train_batches)
    a batch is `batch_size` packed texts of all lengths, and all batches have one shape. A process
    gets its own slice of each global batch, and the positions of the whole batch.
    """
    _check_buckets(records, buckets)
    by_length = np.argsort(records.lengths, kind="stable")
    count = -(-len(by_length) // batch_size)
    _check_processes(process_count, batch_size)
    if pack_groups:
        packing.check_groups(pack_groups, process_count, evaluation=batch_size)
        columns = packing.spread(batch_size)
        parts = [by_length[i::count][::-1] for i in range(count)]
        parts = [part[columns[columns < len(part)]] for part in parts]
    else:
        parts = [by_length[i * batch_size :][:batch_size] for i in range(count)]
    filled = np.array([np.resize(part, batch_size) for part in parts])
    lengths = records.lengths[filled]
    height = batch_size
    if pack_groups:
        texts = batch_size // pack_groups
        height = pack_groups * packing.rows_for(texts, lengths.mean(), lengths.max())
    layout = packing.layout(lengths, height, pack_groups)
    mine = packing.own_slice(batch_size, process_index, process_count)
    for number, positions in enumerate(parts):
        rows = records.gather(filled[number, mine])
        need = layout.need.max() if pack_groups else layout.need[number]
        length = int(need if pack_groups else buckets[np.searchsorted(buckets, need)])
        batch = packing.view(rows, layout, number, length, pad_id, process_index, process_count)
        batch["label"] = np.array([row["label"] for row in rows], np.int32)
        batch["weight"] = (np.arange(batch_size) < len(positions)).astype(np.float32)[mine]
        yield batch, positions


def tasks_of(records: Records) -> np.ndarray:
    """Returns the place in schema.TASKS of every record's task, int32 [rows]."""
    return packing.tasks_of(records.gather(range(len(records))))


def token_counts(batch: dict) -> tuple[int, int]:
    """Counts (real tokens, computed tokens) of all views; the padding share is 1 - their ratio."""
    views = [view for view in batch.values() if isinstance(view, dict)] or [batch]
    masks = [view["attention_mask"] for view in views]
    return sum(int(mask.sum()) for mask in masks), sum(mask.size for mask in masks)


def _check_buckets(records: Records, buckets: Sequence[int]) -> None:
    if list(buckets) != sorted(set(buckets)) or records.lengths.max() > buckets[-1]:
        raise BadInput(
            f"the buckets {tuple(buckets)} must increase up to max_length; the longest record of "
            f"the view {records.manifest['view']!r} has {records.lengths.max()} tokens."
        )


def _first_occurrence(index: np.ndarray) -> np.ndarray:
    """Returns float32 [batch]: 1 where a value occurs for the first time, else 0."""
    weight = np.zeros(len(index), np.float32)
    weight[np.unique(index, return_index=True)[1]] = 1
    return weight


def _check_processes(count: int, *batch_sizes: int) -> None:
    for size in batch_sizes:
        if size % count:
            raise BadInput(
                f"a batch of {size} rows cannot be split over {count} processes; make it a "
                "multiple."
            )
