"""Smooths scores over the nearest-neighbour graph of a pool of rows.

Nodes are rows whose texts may be used, labelled and unlabelled; W holds the cosine similarities of
their k nearest neighbours, each row divided by its sum. Scores s of the nodes are spread,

    f <- (1 - alpha) s + alpha W f,    which tends to (1 - alpha) (I - alpha W)^-1 s

(Zhou et al., Learning with local and global consistency, 2004, equation 4, with the random walk
in place of the symmetric Laplacian; with scores of a model in place of labels it is the smoothing
step of Huang et al., Combining label propagation and simple models out-performs graph neural
networks, 2021). A new row is no node: it reads (1 - alpha) s + alpha (weighted mean of f over its
neighbours), the inductive rule of Bengio, Delalleau and Le Roux, Label propagation and quadratic
criterion, 2006, section 11.4. So no score depends on other rows that are scored with it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse
from sklearn.preprocessing import normalize

from ssl_guard.evaluation.nearest import EXACT_ROWS, nearest


class Graph(NamedTuple):
    """Neighbours of rows among nodes.

    indices: int64 [rows, k]; weights: float [rows, k], of sum 1, or all 0 for a row without a
    neighbour of positive similarity.
    """

    indices: np.ndarray
    weights: np.ndarray


def join(features: Sequence):
    """Joins features, float32 [rows, sum of widths], so that cosines are the mean of the kinds'.

    features: one [rows, width] array for each kind; the result is sparse if one of them is.
    """
    stack = scipy.sparse.hstack if any(map(scipy.sparse.issparse, features)) else np.hstack
    joined = (stack([normalize(f) for f in features]) / len(features) ** 0.5).astype(np.float32)
    return joined.tocsr() if scipy.sparse.issparse(joined) else joined


def neighbours(nodes, k: int, rows=None, *, exact_rows: int = EXACT_ROWS) -> Graph:
    """Finds the k nearest nodes of every row by cosine, all nodes if there are fewer.

    nodes: [nodes, n]; rows: [rows, n], None for the nodes themselves, which are then no neighbours
    of their own; exact_rows: see `nearest`.
    """
    k = min(k, nodes.shape[0] - (rows is None))
    cosines, indices = nearest(nodes, k, rows, exact_rows=exact_rows)
    similarities = np.clip(cosines, 0, None)
    total = similarities.sum(axis=1, keepdims=True)
    return Graph(indices, similarities / np.where(total > 0, total, 1))


def smooth(scores: np.ndarray, graph: Graph, *, alpha: float, rounds: int) -> np.ndarray:
    """Smooths the scores of the nodes for a number of rounds: float64 [nodes]."""
    smoothed = scores
    for _ in range(rounds):
        smoothed = read(scores, graph, smoothed, alpha=alpha)
    return smoothed


def read(own: np.ndarray, graph: Graph, smoothed: np.ndarray, *, alpha: float) -> np.ndarray:
    """Computes (1 - alpha) own + alpha (mean of the neighbours' smoothed scores), float64 [rows].

    own: [rows]; graph: neighbours of the rows among the nodes; smoothed: [nodes]. A row without
    similar neighbours keeps its own score.
    """
    mean = (graph.weights * smoothed[graph.indices]).sum(axis=1)
    return np.where(graph.weights.any(axis=1), (1 - alpha) * own + alpha * mean, own)


def quantile(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Computes the share of the reference below each score, float64 [rows]; ties count half.

    reference: float [rows], sorted. A fixed map: a row's quantile depends on no other row.
    """
    below, upto = (np.searchsorted(reference, scores, side) for side in ("left", "right"))
    return (below + upto) / (2 * len(reference))
