"""From shards to batches: shuffled, bucketed by length, resumable at any step.

A batch is a pure function of (seed, step), so the position of the data is one number, and a resumed
run sees what an uninterrupted one would have seen.
"""

import functools
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from ssl_guard.data import packing
from ssl_guard.data.mixing import Mixture
from ssl_guard.data.tfrecord import Records
from ssl_guard.errors import BadInput

# Independent random streams of one seed; mixing.py and mlm.py have further ones.
LABELLED, UNLABELLED, STEP_ORDER = range(3)


def train_batches(
    labelled: Records,
    weak: Records | None,
    strong: Records | Mixture | None,
    *,
    seed: int,
    steps: int,
    labelled_batch: int,
    unlabelled_batch: int,
    buckets: Sequence[int],
    pad_id: int,
    copies: int = 1,
    window_steps: int = 16,
    pack_groups: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset:
    """Batches of a training run: `iter()` gives an iterator with get_state and set_state.

    labelled, weak, strong: the views; weak is the unlabelled pool as it is, record i of it being
        row i of the pool, and strong its augmented copies, copy c of row i at i * copies + c, or
        several such views as a Mixture, which knows its copies. Both are None for a supervised run,
        strong alone for an algorithm that perturbs nothing.
    labelled_batch, unlabelled_batch: rows of a global batch. Of these a process gets its own slice,
        rows [process_index * B / process_count, (process_index + 1) * B / process_count).
    buckets: rising padded lengths, the last one no shorter than any record.
    window_steps: rows of so many consecutive steps are sorted by length and dealt out to batches,
        longest with longest; the steps of a window then come in random order.
    pack_groups: the number of devices packs several texts into one row of the last bucket's length,
        see data/packing.py; batches then get texts of all lengths. 0 gives every text a row.

    A batch is a dict of NumPy arrays (Bl, Bu: a process's rows; L: the step's bucket, one for all
    views, so the compiled shapes of a step are at most the buckets):
        labelled: {input_ids, attention_mask, token_type_ids: int32 [Bl, L], row, label, index (the
                   record's number): int32 [Bl], weight: float32 [Bl]}
        weak, strong: {input_ids, attention_mask, token_type_ids: int32 [Bu, L], row: int32 [Bu]}
        and in every view task: int32 [B], the place in schema.TASKS of what the row asks, which
        its having a response tells
        index: int32 [Bu], position in the pool; hidden_label: int32 [Bu], -1 where unknown
        weight: float32 [Bu], 0 where a pool row occurs in the global batch for the second time
    `row` is the place in the global batch.

    Every epoch visits each row once, in a new order, and takes the row's next strong copy, starting
    from a random one (of a set drawn by weight, see data/mixing.py). Batches run on across epochs;
    a pool smaller than a batch repeats within it.

    Raises BadInput for a record longer than the last bucket and for views that do not fit together.
    """
    if strong is not None and not isinstance(strong, Mixture):
        rows = 0 if weak is None else len(weak)
        strong = Mixture([strong], rows=rows, copies=[copies])
    views = {"labelled": labelled, "weak": weak, "strong": strong}
    views = {name: records for name, records in views.items() if records is not None}
    batch_sizes = {"labelled": labelled_batch, "weak": unlabelled_batch, "strong": unlabelled_batch}
    for records in (labelled, weak, *(strong.views if strong is not None else ())):
        if records is not None:
            _check_buckets(records, buckets)
    if strong is not None and (weak is None or strong.rows != len(weak)):
        raise BadInput(
            f"the strong views are of {strong.rows} rows and the unlabelled view is not; prepare "
            "the shards again."
        )
    for name in views:
        if batch_sizes[name] % process_count:
            raise BadInput(
                f"a batch of {batch_sizes[name]} rows cannot be split over {process_count} "
                "processes; make it a multiple."
            )
    if pack_groups:
        packing.check_groups(pack_groups, process_count, **{v: batch_sizes[v] for v in views})
    if strong is not None:
        choose, mean_lengths = strong.chooser(seed), strong.mean_lengths()

    def deal(rows, lengths, epoch, batch):
        if pack_groups:
            return packing.dealt(rows, lengths, batch)
        return _by_length(lengths, epoch, batch)

    @functools.lru_cache(maxsize=2)
    def plan(window: int) -> dict[str, np.ndarray]:
        """Record numbers of every step of a window: {view: int [window_steps, batch]}."""
        order = np.random.default_rng([seed, STEP_ORDER, window]).permutation(window_steps)
        size = window_steps * labelled_batch
        rows, epoch = _stream(seed, LABELLED, len(labelled), window * size, size)
        numbers = {"labelled": rows[deal(rows, labelled.lengths[rows], epoch, labelled_batch)]}
        if weak is not None:
            size = window_steps * unlabelled_batch
            rows, epoch = _stream(seed, UNLABELLED, len(weak), window * size, size)
            lengths, augmented = weak.lengths[rows], rows
            if strong is not None:
                augmented = choose(rows, epoch)
                # Padded together, the longer one counts; packed, the occurrences of a row must tie.
                other = mean_lengths[rows] if pack_groups else strong.lengths[augmented]
                lengths = lengths + other if pack_groups else np.maximum(lengths, other)
            dealt = deal(rows, lengths, epoch, unlabelled_batch)
            numbers |= {"weak": rows[dealt], "strong": augmented[dealt]}
        return {name: numbers[name][order] for name in views}

    def batch_of(step: int) -> dict:
        window, place = divmod(step, window_steps)
        numbers = {name: table[place] for name, table in plan(window).items()}
        longest = max(views[name].lengths[numbers[name]].max() for name in views)
        length = buckets[np.searchsorted(buckets, longest)]
        if pack_groups:
            length = buckets[-1]
            lengths = {name: views[name].lengths[numbers[name]] for name in views}
            plans = {name: packing.plan(lengths[name], length, pack_groups) for name in views}
            rows_per_text = packing.share_for(
                plans, {name: batch_sizes[name] // pack_groups for name in views}
            )
            groups = pack_groups // process_count
        batch = {}
        for name, records in views.items():
            share = batch_sizes[name] // process_count
            mine = slice(process_index * share, (process_index + 1) * share)
            rows = records.gather(numbers[name][mine])
            if pack_groups:
                batch[name] = packing.pack(
                    rows,
                    plans[name][process_index * groups : (process_index + 1) * groups],
                    share=rows_per_text,
                    length=length,
                    pad_id=pad_id,
                    first_row=mine.start,
                )
            else:
                batch[name] = _pad(rows, length, pad_id, first_row=mine.start)
            batch[name]["task"] = _tasks(rows)
            if name == "labelled":
                batch[name]["label"] = np.array([row["label"] for row in rows], np.int32)
                batch[name]["weight"] = np.ones(len(rows), np.float32)
                batch[name]["index"] = numbers[name][mine].astype(np.int32)
                continue
            index = numbers["weak"][mine]
            if any(row["index"] != i for row, i in zip(rows, index, strict=True)):
                raise BadInput(
                    "the unlabelled and strong views hold other rows than their order says; "
                    "prepare the shards again."
                )
            if name == "weak":
                batch["hidden_label"] = np.array([row["label"] for row in rows], np.int32)
                batch["index"] = index.astype(np.int32)
                batch["weight"] = _first_occurrence(numbers["weak"])[mine]
        return batch

    return (
        grain.MapDataset.range(steps)
        .map(batch_of)
        # Reader threads would fight over the interpreter: records are small.
        .to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    )


def eval_batches(
    records: Records,
    *,
    batch_size: int,
    buckets: Sequence[int],
    pad_id: int,
    pack_groups: int = 0,
) -> Iterator[tuple[dict, np.ndarray]]:
    """Every record once: (batch like "labelled" above, positions int64 [rows]).

    Rows are sorted by length, each batch is padded to the bucket of its longest row, and the last
    one filled up with rows of weight 0. positions are the records of the rows that count, which
    come first: `scores[positions] = predictions[: len(positions)]`. With pack_groups (see
    train_batches) a batch is `batch_size` texts of all lengths, packed.
    """
    _check_buckets(records, buckets)
    order = np.argsort(records.lengths, kind="stable")
    count = -(-len(order) // batch_size)
    if pack_groups:
        packing.check_groups(pack_groups, 1, evaluation=batch_size)
        parts = [order[i::count] for i in range(count)]
    else:
        parts = [order[i * batch_size :][:batch_size] for i in range(count)]
    for positions in parts:
        rows = records.gather(positions)
        rows += [rows[-1]] * (batch_size - len(rows))
        if pack_groups:
            lengths, length = [len(row["input_ids"]) for row in rows], buckets[-1]
            plan = packing.plan(lengths, length, pack_groups)
            share = packing.share_for({"": plan}, {"": batch_size // pack_groups})
            batch = packing.pack(rows, plan, share=share, length=length, pad_id=pad_id, first_row=0)
        else:
            length = buckets[np.searchsorted(buckets, records.lengths[positions[-1]])]
            batch = _pad(rows, length, pad_id, first_row=0)
        batch["task"] = _tasks(rows)
        batch["label"] = np.array([row["label"] for row in rows], np.int32)
        batch["weight"] = (np.arange(batch_size) < len(positions)).astype(np.float32)
        yield batch, positions


def tasks_of(records: Records) -> np.ndarray:
    """int32 [rows]: the place in schema.TASKS of every record's task."""
    return _tasks(records.gather(range(len(records))))


def _tasks(rows: list[dict]) -> np.ndarray:
    return np.array([row["second"] < len(row["input_ids"]) for row in rows], np.int32)


def token_counts(batch: dict) -> tuple[int, int]:
    """(real tokens, tokens computed) over all views; 1 - real / computed is the padding share."""
    views = [view for view in batch.values() if isinstance(view, dict)] or [batch]
    masks = [view["attention_mask"] for view in views]
    return sum(int(mask.sum()) for mask in masks), sum(mask.size for mask in masks)


def _check_buckets(records: Records, buckets: Sequence[int]) -> None:
    if list(buckets) != sorted(set(buckets)) or records.lengths.max() > buckets[-1]:
        raise BadInput(
            f"the buckets {tuple(buckets)} must rise and end at max_length; the longest record of "
            f"the view {records.manifest['view']!r} has {records.lengths.max()} tokens."
        )


def _stream(
    seed: int, stream: int, size: int, start: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and epochs, int64 [count], at places start.. of an endless shuffle of `size` rows."""
    epoch, place = np.divmod(np.arange(start, start + count), size)
    rows = [
        _permutation(seed, stream, int(e), size)[place[epoch == e]]
        for e in range(epoch[0], epoch[-1] + 1)
    ]
    return np.concatenate(rows), epoch


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, stream: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, stream, epoch]).permutation(size)


def _by_length(lengths: np.ndarray, epoch: np.ndarray, batch: int) -> np.ndarray:
    """Deals rows to batches of similar length, shortest batch first: int [len / batch, batch].

    Epochs stay apart, else a row's occurrences, being equally long, would meet in one batch.
    """
    batches = np.lexsort((lengths, epoch)).reshape(-1, batch)
    return batches[np.argsort(lengths[batches].max(axis=1), kind="stable")]


def _first_occurrence(index: np.ndarray) -> np.ndarray:
    """float32 [batch]: 1 where a value occurs for the first time, else 0."""
    weight = np.zeros(len(index), np.float32)
    weight[np.unique(index, return_index=True)[1]] = 1
    return weight


def _pad(rows: list[dict], length: int, pad_id: int, *, first_row: int) -> dict[str, np.ndarray]:
    """The encoder's inputs, int32 [rows, length], and `row`, int32 [rows]."""
    input_ids = np.full((len(rows), length), pad_id, np.int32)
    for i, row in enumerate(rows):
        input_ids[i, : len(row["input_ids"])] = row["input_ids"]
    ends = np.array([[len(row["input_ids"])] for row in rows])
    second = np.array([[row["second"]] for row in rows])
    real = np.arange(length) < ends
    return {
        "input_ids": input_ids,
        "attention_mask": real.astype(np.int32),
        "token_type_ids": (real & (np.arange(length) >= second)).astype(np.int32),
        "row": np.arange(first_row, first_row + len(rows), dtype=np.int32),
    }
