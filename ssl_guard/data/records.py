"""Tokenised records: the interface of all views, and the ways to combine them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ssl_guard.data.schema import Example


class Records:
    """A sequence of tokenised records (dicts, see data/shards.py). Base class.

    lengths: int32 [records], the tokens of each, known without reading it. manifest: of the view.
    """

    lengths: np.ndarray
    manifest: dict

    def gather(self, indices: Iterable[int]) -> list[dict]:
        """Returns the records at these positions (0 <= i < len), in this order."""
        raise NotImplementedError

    def subset(self, indices: Iterable[int]) -> "Records":
        """Returns the records at these positions, as Records."""
        return Subset(self, indices)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> dict:
        return self.gather([range(len(self))[i]])[0]  # range raises IndexError

    def __iter__(self) -> Iterator[dict]:
        return (self[i] for i in range(len(self)))


class Subset(Records):
    """The records at some positions of others."""

    def __init__(self, records: Records, indices: Iterable[int]):
        self._records, self._indices = records, np.asarray(list(indices), np.int64)
        self.lengths, self.manifest = records.lengths[self._indices], records.manifest

    def gather(self, indices: Iterable[int]) -> list[dict]:
        """Returns the records at these positions, in this order."""
        return self._records.gather(self._indices[i] for i in indices)


class Concat(Records):
    """The records of several views, one view after the other; the manifest is the first one's."""

    def __init__(self, views: Sequence[Records]):
        self.views, self.manifest = tuple(views), views[0].manifest
        self.lengths = np.concatenate([view.lengths for view in views])
        self._starts = np.cumsum([0, *map(len, views)])

    def gather(self, indices: Iterable[int]) -> list[dict]:
        """Returns the records at these positions, in this order."""
        places = np.asarray(list(indices), np.int64)
        owners = np.searchsorted(self._starts, places, side="right") - 1
        rows: list = [None] * len(places)
        for number, view in enumerate(self.views):
            mine = np.flatnonzero(owners == number)
            for i, row in zip(mine, view.gather(places[mine] - self._starts[number]), strict=True):
                rows[i] = row
        return rows


class Rows(Records):
    """Records in memory, and the examples behind them, if given.

    Raises ValueError for no records.
    """

    def __init__(self, records: Iterable[dict], examples: Sequence[Example] = ()):
        self._records, self.examples = list(records), list(examples)
        if not self._records:
            raise ValueError("there are no records to hold")
        self.lengths = np.array([len(record["input_ids"]) for record in self._records], np.int32)
        self.manifest = {"view": "memory"}

    def subset(self, indices: Iterable[int]) -> "Rows":
        """Returns the records at these positions, and their examples, as Rows."""
        indices = list(indices)
        return Rows(self.gather(indices), [self.examples[i] for i in indices if self.examples])

    def gather(self, indices: Iterable[int]) -> list[dict]:
        """Returns the records at these positions, in this order."""
        return [self._records[i] for i in indices]
