"""Mixes several augmentation sets of one pool by weights.

At each visit of a row, training draws a set by the weights, as a function of (seed, row, epoch).
It uses the row's next copy in that set, starting from a random one. With one set, these are the
row's copies in turn.
"""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from ssl_guard.data.records import Concat, Records
from ssl_guard.errors import BadInput

COPIES, SETS = 3, 5  # random streams of a seed; sampling.py and train/masked_lm.py use others


class Mixture(Concat):
    """The records of several strong views, and the drawing of a row's view.

    views: each with copy c of the pool's row i at i * copies + c. copies: int, of each view.
    weights: positive, of each view; normalised. Raises BadInput for copies that do not fit a pool
    of `rows` rows.
    """

    def __init__(
        self,
        views: Sequence[Records],
        *,
        rows: int,
        copies: Sequence[int] | None = None,
        weights: Sequence[float] = (),
    ):
        super().__init__(views)
        self.rows = rows
        self.copies = tuple(copies or (len(view) // rows for view in views))
        shares = np.array(weights or [1.0] * len(views), np.float64)
        self.weights = shares / shares.sum()
        for view, number in zip(self.views, self.copies, strict=True):
            if len(view) != rows * number:
                raise BadInput(
                    f"the strong view has {len(view)} records, which is not {number} copies of "
                    f"each of the {rows} unlabelled rows; prepare the shards again."
                )

    def mean_lengths(self) -> np.ndarray:
        """Returns the expected tokens of each row's strong view, float64 [rows]."""
        means = [
            view.lengths.reshape(-1, copies).mean(axis=1)
            for view, copies in zip(self.views, self.copies, strict=True)
        ]
        return sum(weight * mean for weight, mean in zip(self.weights, means, strict=True))

    def chooser(self, seed: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Returns choose(rows, epochs) -> records, int64 [n], of these rows in these epochs.

        A pure function, and fast for epochs in increasing order. rows, epochs: int [n].
        """
        first = [
            np.random.default_rng([seed, COPIES, number]).integers(copies, size=self.rows)
            for number, copies in enumerate(self.copies)
        ]
        bounds = np.cumsum(self.weights)[:-1]

        def drawn(epoch: int) -> np.ndarray:
            """Draws every row's set in an epoch, int [rows]."""
            if not len(bounds):
                return np.zeros(self.rows, np.int64)
            draws = np.random.default_rng([seed, SETS, epoch]).random(self.rows)
            return np.searchsorted(bounds, draws, side="right")

        every = np.arange(self.rows)
        seen, until = np.zeros((self.rows, len(self.views)), np.int64), 0
        lock = threading.Lock()  # prefetching iterators may share a chooser

        def turns(epoch: int) -> tuple[np.ndarray, np.ndarray]:
            """Returns (set of each row in an epoch, earlier visits to that set), int [rows]."""
            nonlocal until
            if epoch < until:
                seen[:], until = 0, 0
            while until < epoch:
                seen[every, drawn(until)] += 1
                until += 1
            chosen = drawn(epoch)
            return chosen, seen[every, chosen]

        def choose(rows: np.ndarray, epochs: np.ndarray) -> np.ndarray:
            records = np.empty(len(rows), np.int64)
            for epoch in np.unique(epochs):
                here = epochs == epoch
                with lock:
                    sets, turn = (values[rows[here]] for values in turns(int(epoch)))
                shown = np.empty(len(sets), np.int64)
                for number, copies in enumerate(self.copies):
                    mine = sets == number
                    row = rows[here][mine]
                    copy = (first[number][row] + turn[mine]) % copies
                    shown[mine] = self._starts[number] + row * copies + copy
                records[here] = shown
            return records

        return choose
