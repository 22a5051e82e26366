"""Records that are held in memory, with the interface of `tfrecord.Records`: for scoring."""

from collections.abc import Iterable, Sequence

import numpy as np

from ssl_guard.data.schema import Example


class Rows(Sequence):
    """Tokenised records in their order, and the examples behind them, one each.

    records: dicts as in tfrecord.py. Attributes: lengths (int32 [records], tokens of each),
    manifest and examples. Raises ValueError for no records.
    """

    def __init__(self, records: Iterable[dict], examples: Sequence[Example] = ()):
        self._records, self.examples = list(records), list(examples)
        if not self._records:
            raise ValueError("there are no records to hold")
        self.lengths = np.array([len(record["input_ids"]) for record in self._records], np.int32)
        self.manifest = {"view": "memory"}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> dict:
        return self._records[i]

    def subset(self, indices: Iterable[int]) -> "Rows":
        """The records of these numbers, and their examples, as Rows of their own."""
        indices = list(indices)
        return Rows(self.gather(indices), [self.examples[i] for i in indices if self.examples])

    def gather(self, indices: Iterable[int]) -> list[dict]:
        """The records at these positions, in this order."""
        return [self._records[i] for i in indices]
