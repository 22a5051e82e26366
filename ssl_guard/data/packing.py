"""Packs several short texts into one row, to compute less padding.

A packed view differs from an ordinary one (data/pipeline.py) in the encoder's inputs alone:

    input_ids, attention_mask, token_type_ids: int32 [rows, length]
    text: int32 [rows, length], the `row` of the text that a token belongs to, -1 for pads
    states: float32 [rows, length, width], if the records have them (data/activations.py)

with fewer rows than texts. Arrays per text, such as `row`, are unchanged. A text is contiguous and
never split.

The number of rows of a view is fixed; their length depends on the batch. Texts are dealt to rows of
similar total length. The texts of a batch form one equal group for each device, packed into that
device's share of the rows, so that no device needs another's rows.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from ssl_guard.errors import BadInput


def rows_for(texts: int, mean: float, longest: int) -> int:
    """Returns the number of rows, as long as the longest text, for texts of `mean` tokens."""
    return max(1, int(texts * mean / longest))


def balanced(lengths: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Packs the texts of every group into `rows` rows of nearly equal length.

    lengths: int [groups, texts]. Returns the row of every text within its group and its first place
    in the row, int [groups, texts] each, and the length of the longest row, int [groups]. Longest
    texts first, each goes into the row that is shortest so far. The longest row of any packing is
    at least 3/4 of this one's (Graham, Bounds on Multiprocessing Timing Anomalies, 1969). No row is
    longer than the longest text times the texts per row, rounded up.
    """
    row, start = np.empty_like(lengths), np.empty_like(lengths)
    filled = np.zeros((len(lengths), rows), lengths.dtype)
    groups = np.arange(len(lengths))
    for text in np.argsort(-lengths, axis=1, kind="stable").T:
        shortest = filled.argmin(axis=1)
        row[groups, text], start[groups, text] = shortest, filled[groups, shortest]
        filled[groups, shortest] += lengths[groups, text]
    return row, start, filled.max(axis=1)


def lay_out(
    records: list[dict],
    row: np.ndarray,
    start: np.ndarray,
    *,
    rows: int,
    length: int,
    pad_id: int,
    first_row: int,
) -> dict[str, np.ndarray]:
    """Builds the view (see above) of records, in the batch's order.

    row, start: int [texts], where each text begins; first_row: the first value of `row`.
    """
    lengths = np.array([len(record["input_ids"]) for record in records])
    second = np.array([record["second"] for record in records])
    number = np.repeat(np.arange(len(records)), lengths)  # of the text of each token
    place = np.arange(len(number)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    cells = (np.asarray(row) * length + start)[number] + place
    input_ids = np.full((rows, length), pad_id, np.int32)
    token_type_ids, text = np.zeros_like(input_ids), np.full_like(input_ids, -1)
    input_ids.ravel()[cells] = np.concatenate([record["input_ids"] for record in records])
    token_type_ids.ravel()[cells] = place >= second[number]
    text.ravel()[cells] = first_row + number
    states = {}
    if "states" in records[0]:
        found = np.concatenate([record["states"] for record in records])
        placed = np.zeros((rows * length, found.shape[1]), found.dtype)
        placed[cells] = found
        states["states"] = placed.reshape(rows, length, -1)
    return {
        "input_ids": input_ids,
        "attention_mask": (text >= 0).astype(np.int32),
        "token_type_ids": token_type_ids,
        "text": text,
        "row": np.arange(first_row, first_row + len(records), dtype=np.int32),
    } | states


class Layout(NamedTuple):
    """Places of the texts of a view in some steps.

    need: int [steps], the length that each step needs. row, start: int [steps, batch], the row of
    each text and its first place there. rows: of a step, device by device. packed: whether a row
    may hold several texts.
    """

    need: np.ndarray
    row: np.ndarray
    start: np.ndarray
    rows: int
    packed: bool


def layout(lengths: np.ndarray, rows: int, groups: int) -> Layout:
    """Lays out texts in rows.

    lengths: int [steps, batch]; rows: of a step; groups: of texts to pack, 0 for one text a row.
    """
    if not groups:
        row = np.broadcast_to(np.arange(rows), lengths.shape)
        return Layout(lengths.max(axis=1), row, np.zeros_like(row), rows, packed=False)
    row, start, need = balanced(lengths.reshape(len(lengths) * groups, -1), rows // groups)
    row += np.tile(np.arange(0, rows, rows // groups), len(lengths))[:, None]
    need = need.reshape(-1, groups).max(axis=1)
    return Layout(need, row.reshape(lengths.shape), start.reshape(lengths.shape), rows, packed=True)


def own_slice(size: int, process_index: int, process_count: int) -> slice:
    """Returns the part of `size` things that belongs to a process."""
    share = size // process_count
    return slice(process_index * share, (process_index + 1) * share)


def view(
    records: list[dict],
    layout: Layout,
    step: int,
    length: int,
    pad_id: int,
    process_index: int,
    process_count: int,
) -> dict[str, np.ndarray]:
    """Builds the view of a process's records of a step: `lay_out` and `task`, int32 [records].

    records: in the batch's order; step: of the layout; length: of the padded rows.
    """
    texts = own_slice(layout.row.shape[1], process_index, process_count)
    rows = own_slice(layout.rows, process_index, process_count)
    found = lay_out(
        records,
        layout.row[step, texts] - rows.start,
        layout.start[step, texts],
        rows=rows.stop - rows.start,
        length=length,
        pad_id=pad_id,
        first_row=texts.start,
    )
    if not layout.packed:
        del found["text"]
    return found | {"task": tasks_of(records)}


def tasks_of(records: list[dict]) -> np.ndarray:
    """Returns the place in schema.TASKS of every record's task, int32 [records]."""
    return np.array([row["second"] < len(row["input_ids"]) for row in records], np.int32)


def check_groups(groups: int, processes: int, **batch_sizes: int) -> None:
    """Raises BadInput for batches that do not divide into that many equal groups."""
    for name, size in batch_sizes.items():
        if size % groups or groups % processes:
            raise BadInput(
                f"a packed {name} batch of {size} texts cannot be dealt to {groups} devices in "
                f"{processes} processes; make it a multiple of the devices."
            )


def dealt(rows: np.ndarray, lengths: np.ndarray, tokens: np.ndarray, batch: int) -> np.ndarray:
    """Deals texts to batches of similar total length in every view: int [len / batch, batch].

    rows: int [texts], of a pool; lengths: [texts], the same at every occurrence of a row; tokens:
    int [texts, views].
    Sorted by length, texts are dealt round by round, one to each batch, so that the squares of the
    batches' totals add up to the least. Occurrences of one row of the pool stand side by side and
    go to different batches.
    """
    rounds = np.lexsort((rows, lengths))[::-1].reshape(batch, -1)
    tokens = tokens / tokens.mean(axis=0)
    totals, places = np.zeros((rounds.shape[1], tokens.shape[1])), np.empty_like(rounds)
    for number, texts in enumerate(rounds):
        cost = totals @ tokens[texts].T
        if number:  # occurrences of a row may continue in the next round
            again = rows[places[number - 1]][:, None] == rows[texts]
            cost[again] = 1 + cost.max() * len(cost)
        _, chosen = linear_sum_assignment(cost)
        places[number] = texts[chosen]
        totals += tokens[places[number]]
    return places[spread(batch)].T


def spread(count: int) -> np.ndarray:
    """Orders sorted items, int [count], so that both halves have similar sizes, recursively.

    So each device gets long and short texts, for any number of devices."""
    parts = [np.arange(count)]
    while len(parts[0]) % 2 == 0:
        inner = np.isin(np.arange(len(parts[0])) % 4, (1, 2))
        parts = [half for part in parts for half in (part[~inner], part[inner])]
    return np.concatenate(parts)
