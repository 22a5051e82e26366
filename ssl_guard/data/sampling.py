"""Chooses the records of each step from their lengths, without reading them.

Rows come from an endless shuffle, epoch after epoch, and batches are consecutive rows of it. The
corpora of an unlabelled pool may have shares of it, see `weighted_orders`. For packing, the rows of
a window of steps are dealt to batches of similar total length. Sorting deals them by length: less
padding, but if length depends on the class, so do the batches.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from ssl_guard.data import packing
from ssl_guard.data.records import Records
from ssl_guard.data.view_mixture import Mixture

# Independent random streams of one seed; view_mixture.py and train/masked_lm.py use others.
LABELLED, UNLABELLED, STEP_ORDER, EPOCH = 0, 1, 2, 6


def planner(
    labelled: Records,
    weak: Records | None,
    strong: Mixture | None,
    *,
    seed: int,
    labelled_batch: int,
    unlabelled_batch: int,
    window_steps: int,
    packed: bool,
    sort_by_length: bool,
    strata: np.ndarray | None,
    pool_corpora: np.ndarray | None,
    pool_weights: Sequence[float],
    own_lengths: bool,
) -> Callable[[int], dict[str, np.ndarray]]:
    """Returns plan(window) -> record numbers of its steps, {view: int [window_steps, batch]}.

    A pure function, and fast for windows in increasing order. own_lengths: whether each view is
    padded to a length of its own. The other arguments are those of pipeline.train_batches.
    """
    labelled_order = _orders([seed, LABELLED], len(labelled), strata)
    if weak is not None:
        unlabelled_order, epoch_rows = _orders([seed, UNLABELLED], len(weak)), len(weak)
        if pool_weights:
            assert pool_corpora is not None
            unlabelled_order, epoch_rows = weighted_orders(seed, pool_corpora, pool_weights)
    scale = 1.0
    if weak is not None and strong is not None:
        choose, mean_lengths = strong.chooser(seed), strong.mean_lengths()
        if own_lengths:
            scale = mean_lengths.mean() / weak.lengths.mean()

    def deal(rows, epoch, tie, tokens: list[np.ndarray], batch: int) -> np.ndarray:
        """Places of the rows, [window_steps, batch]; tokens: of each view of them."""
        if packed:
            return packing.dealt(rows, tie, np.stack(tokens, axis=1), batch)
        if not sort_by_length:
            return np.arange(len(rows)).reshape(-1, batch)
        # The longer view decides, after the scale of strong views is removed.
        return _by_length(np.max([tokens[0] * scale, *tokens[1:]], axis=0), epoch, batch)

    def plan(window: int) -> dict[str, np.ndarray]:
        size = window_steps * labelled_batch
        rows, epoch = _stream(labelled_order, len(labelled), window * size, size)
        lengths = labelled.lengths[rows]
        numbers = {"labelled": rows[deal(rows, epoch, lengths, [lengths], labelled_batch)]}
        if weak is not None:
            size = window_steps * unlabelled_batch
            rows, epoch = _stream(unlabelled_order, epoch_rows, window * size, size)
            shown, tie = {"weak": rows}, weak.lengths[rows]
            tokens = [tie]
            if strong is not None:
                shown["strong"] = choose(rows, epoch)
                tokens.append(strong.lengths[shown["strong"]])
                tie = tie + mean_lengths[rows]  # the same for every copy of a row
            places = deal(rows, epoch, tie, tokens, unlabelled_batch)
            numbers |= {name: found[places] for name, found in shown.items()}
        order = np.random.default_rng([seed, STEP_ORDER, window]).permutation(window_steps)
        return {name: table[order] for name, table in numbers.items()}

    return plan


def _stream(
    order: Callable[[int], np.ndarray], size: int, start: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and epochs, int64 [count], from place `start` of an endless shuffle of `size` rows.

    order(epoch) -> the rows of an epoch.
    """
    epoch, place = np.divmod(np.arange(start, start + count), size)
    rows = [order(int(e))[place[epoch == e]] for e in range(epoch[0], epoch[-1] + 1)]
    return np.concatenate(rows), epoch


def interleaved(strata: np.ndarray) -> np.ndarray:
    """Orders rows, int [rows], so that strata are spread evenly; keeps the order within each.

    strata: int [rows]. Of any consecutive rows each stratum has its share of all rows, to within a
    row for two strata.
    """
    places = np.empty(len(strata))
    for stratum in np.unique(strata):
        own = strata == stratum
        places[own] = (np.arange(own.sum()) + 0.5) / own.sum()
    return np.argsort(places, kind="stable")


def weighted_orders(
    seed: int, corpora: np.ndarray, weights: Sequence[float]
) -> tuple[Callable[[int], np.ndarray], int]:
    """Returns order(epoch) -> rows, int64 [size], with corpora in shares; and size.

    corpora: int [rows], of the pool, below len(weights), each with a row; weights: positive. Every
    place of an epoch has a row of a corpus with probability weight / sum of weights: systematic
    sampling (Madow and Madow, 1944) draws how many rows a corpus has in the epoch, its share of
    `size` rounded down or up. They are the next ones of an endless shuffle of the corpus. An epoch
    ends when one corpus has been seen whole.
    """
    members = [np.flatnonzero(corpora == number) for number in range(len(weights))]
    shares = np.array(weights, np.float64) / sum(weights)
    size = int(min(len(rows) / share for rows, share in zip(members, shares, strict=True)))
    bounds = np.concatenate([[0], np.cumsum(shares[:-1]) * size, [size]])
    own = [_orders([seed, UNLABELLED, n], len(rows)) for n, rows in enumerate(members)]

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng([seed, EPOCH, epoch])
        counts = np.diff(np.floor(bounds + rng.random())).astype(int)
        drawn = [
            rows[_stream(shuffle, len(rows), int(epoch * size * share), count)[0]]
            for rows, shuffle, share, count in zip(members, own, shares, counts, strict=True)
            if count
        ]
        return rng.permutation(np.concatenate(drawn))

    return order, size


def _orders(
    stream: Sequence[int], size: int, strata: np.ndarray | None = None
) -> Callable[[int], np.ndarray]:
    """Returns order(epoch) -> a permutation of the rows, int64 [size], interleaved by strata.

    stream: the seed and the numbers of a random stream.
    """

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        rows = np.random.default_rng([*stream, epoch]).permutation(size)
        return rows if strata is None else rows[interleaved(strata[rows])]

    return order


def _by_length(lengths: np.ndarray, epoch: np.ndarray, batch: int) -> np.ndarray:
    """Deals rows to batches of similar length, shortest batch first: int [len / batch, batch].

    Epochs are kept apart; otherwise a row's occurrences, being equally long, would share a batch.
    """
    batches = np.lexsort((lengths, epoch)).reshape(-1, batch)
    return batches[np.argsort(lengths[batches].max(axis=1), kind="stable")]
