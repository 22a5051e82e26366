"""Finds nearest neighbours by cosine: from all pairs of rows, or approximately for large pools.

The approximate search is an inverted file (Jegou, Douze and Schmid, Product quantization for
nearest neighbor search, 2011, section IV) of whole vectors, faiss's IVF-Flat: spherical k-means
divides the nodes into lists, and a row is compared with the nodes of the lists nearest to it. The
seed of k-means is fixed, and the number of threads does not change results.
"""

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from ssl_guard.errors import BadInput

EXACT_ROWS = 100_000  # default of config.data.exact_neighbours
LISTS = 2  # lists per square root of the nodes
PROBES = 16  # lists that a row is compared with
TRAINED = 39  # nodes per list that k-means is trained on, the fewest without a warning of faiss


def nearest(
    nodes, k: int, rows=None, *, exact_rows: int = EXACT_ROWS
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest nodes of every row: cosines, float [rows, k], and nodes, int64 [rows, k].

    nodes: [nodes, n], dense or sparse; rows: [rows, n], None for the nodes themselves, which are
    then no neighbours of their own; k: at most the number of (other) nodes; exact_rows: nodes above
    which the search is approximate. The exact one computes blocks of scikit-learn's working memory
    (1 GiB). Raises BadInput if the approximate one gets sparse nodes or faiss is not installed.
    """
    if nodes.shape[0] > exact_rows:
        return _approximate(nodes, k, rows)
    search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(nodes)
    distances, indices = search.kneighbors(rows)
    return 1 - distances.astype(np.float64), indices


def _approximate(nodes, k: int, rows) -> tuple[np.ndarray, np.ndarray]:
    try:
        import faiss
    except ImportError as error:
        raise BadInput(
            f"{nodes.shape[0]} rows are too many for an exact search of neighbours: pip install "
            "ssl_guard[neighbours], or raise config.data.exact_neighbours."
        ) from error
    if not isinstance(nodes, np.ndarray):
        raise BadInput(
            f"{nodes.shape[0]} rows are too many for an exact search by TF-IDF: use the features "
            "lsa or encoder, or raise config.data.exact_neighbours."
        )
    unit = normalize(nodes.astype(np.float32), copy=False)
    count, width = unit.shape
    lists = max(1, min(int(LISTS * count**0.5), count // TRAINED))
    centres = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFFlat(centres, width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = TRAINED
    index.train(unit)
    index.add(unit)

    def search(queries: np.ndarray, probes: int) -> tuple[np.ndarray, np.ndarray]:
        index.nprobe = probes
        return index.search(queries, k + (rows is None))

    queries = unit if rows is None else normalize(rows.astype(np.float32), copy=False)
    cosines, indices = search(queries, min(PROBES, lists))
    if (short := np.flatnonzero((indices < 0).any(axis=1))).size:  # lists with too few nodes
        cosines[short], indices[short] = search(queries[short], lists)
    if rows is None:
        # The row itself leaves, or the last one if the row is not among equals.
        kept = indices != np.arange(count)[:, None]
        kept[kept.all(axis=1), -1] = False
        cosines, indices = cosines[kept].reshape(count, k), indices[kept].reshape(count, k)
    return cosines.astype(np.float64), indices
