"""Several short texts in one row of fixed length, instead of one text and padding.

A packed view differs from an ordinary one (data/pipeline.py) in the encoder's inputs alone:

    input_ids, attention_mask, token_type_ids: int32 [rows, length]
    text: int32 [rows, length], the `row` of the text that a token belongs to, -1 for pads

with fewer rows than texts; `row` and whatever else is per text stay as they are. A text is
contiguous and has at most `length` tokens, so it is never split.

The texts of a batch are packed in as many equal groups as there are devices, each into its own
equal share of the rows: no device needs another's rows.
"""

import bisect
import math
from collections.abc import Sequence

import numpy as np

from ssl_guard.errors import BadInput

# Rows as shares of the texts. A step takes the first that suffices, so this table bounds the number
# of compiled shapes; with share 1 every text could have a row of its own.
SHARES = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 5 / 16, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 1.0)


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Places of the texts in each row: the longest text first, into the fullest row that has room
    (best-fit decreasing, at most 11/9 of the fewest rows possible and one more)."""
    rows, room = [], []  # room: (free tokens, row), rising
    for place in np.argsort(-np.asarray(lengths), kind="stable"):
        at = bisect.bisect_left(room, (lengths[place], 0))
        if at == len(room):
            rows.append([])
            free, row = capacity, len(rows) - 1
        else:
            free, row = room.pop(at)
        rows[row].append(int(place))
        bisect.insort(room, (free - lengths[place], row))
    return rows


def plan(lengths: np.ndarray, capacity: int, groups: int) -> list[list[list[int]]]:
    """best_fit of each of `groups` equal slices of the texts: places within the slice."""
    return [best_fit(mine, capacity) for mine in np.split(np.asarray(lengths), groups)]


def share_for(plans: dict[str, list[list[list[int]]]], texts: dict[str, int]) -> float:
    """The smallest of SHARES that holds all plans; texts: how many a group of each plan has."""
    needed = max(len(rows) / texts[name] for name, plan in plans.items() for rows in plan)
    return next(share for share in SHARES if share >= needed)


def pack(
    records: list[dict],
    plan: list[list[list[int]]],
    *,
    share: float,
    length: int,
    pad_id: int,
    first_row: int,
) -> dict[str, np.ndarray]:
    """The view (see above) of records, in the batch's order, as `plan` packs them.

    share: rows per text, at least share_for's; first_row: the number that `row` begins with.
    """
    texts = len(records) // len(plan)
    height = math.ceil(share * texts)
    input_ids = np.full((len(plan) * height, length), pad_id, np.int32)
    token_type_ids, text = np.zeros_like(input_ids), np.full_like(input_ids, -1)
    for group, rows in enumerate(plan):
        for row, places in enumerate(rows, start=group * height):
            start = 0
            for place in places:
                number = group * texts + place
                ids, second = records[number]["input_ids"], records[number]["second"]
                end = start + len(ids)
                input_ids[row, start:end] = ids
                token_type_ids[row, start + second : end] = 1
                text[row, start:end] = first_row + number
                start = end
    return {
        "input_ids": input_ids,
        "attention_mask": (text >= 0).astype(np.int32),
        "token_type_ids": token_type_ids,
        "text": text,
        "row": np.arange(first_row, first_row + len(records), dtype=np.int32),
    }


def check_groups(groups: int, processes: int, **batch_sizes: int) -> None:
    """Raises BadInput for batches that cannot be packed in that many equal groups."""
    for name, size in batch_sizes.items():
        if size % groups or groups % processes:
            raise BadInput(
                f"a packed {name} batch of {size} texts cannot be dealt to {groups} devices in "
                f"{processes} processes; make it a multiple of the devices."
            )


def dealt(rows: np.ndarray, lengths: np.ndarray, batch: int) -> np.ndarray:
    """Deals texts, rows of a pool, to batches of like total length: places, [len / batch, batch].

    Sorted by length, each of n batches takes every n-th text, so all need about the same number of
    rows. Occurrences of one row of the pool stand side by side and go to different batches.
    """
    return np.lexsort((rows, lengths)).reshape(batch, -1).T
