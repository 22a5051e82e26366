"""The approximate search against scikit-learn's exact one: run by `make neighbours`."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.neighbors import NearestNeighbors

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import graph
from ssl_guard.evaluation.nearest import nearest

faiss = pytest.importorskip("faiss")


def clusters(rows, width=24, seed=0, noise=0.7):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(rows // 40, 1), width))
    x = centres[rng.integers(len(centres), size=rows)] + noise * rng.normal(size=(rows, width))
    return (x * rng.uniform(0.1, 9, size=(rows, 1))).astype(np.float32)  # of any length


def exact(nodes, k, rows=None):
    """The k nearest of every row by scikit-learn: cosines and indices."""
    search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(nodes)
    distances, indices = search.kneighbors(rows)
    return 1 - distances, indices


def approximate(nodes, k, rows=None):
    return nearest(nodes, k, rows, exact_rows=0)


@pytest.mark.parametrize("new", [None, clusters(6300)[6000:]], ids=["nodes", "rows"])
def test_recall_at_15(new):
    nodes = clusters(6300)[:6000]
    before = nodes.copy()
    cosines, indices = approximate(nodes, 15, new)
    _, expected = exact(nodes, 15, new)
    assert indices.shape == expected.shape and indices.dtype == np.int64
    shared = [len(set(a) & set(b)) for a, b in zip(indices, expected, strict=True)]
    assert np.mean(shared) / 15 > 0.95
    queries = nodes if new is None else new
    unit, q = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (nodes, queries))
    own = np.einsum("ij,ikj->ik", q, unit[indices])
    np.testing.assert_allclose(cosines, own, atol=1e-5)
    assert (np.diff(cosines, axis=1) <= 1e-6).all()
    np.testing.assert_array_equal(nodes, before)  # not normalised in place
    if new is None:
        assert (indices != np.arange(6000)[:, None]).all()


def test_few_nodes_are_found_exactly():
    """With at most PROBES lists every node is compared."""
    nodes, rows = clusters(400), clusters(30, seed=2)
    for new in (None, rows):
        (cosines, indices), (theirs, expected) = approximate(nodes, 7, new), exact(nodes, 7, new)
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_allclose(cosines, theirs, atol=1e-5)


def test_a_graph_is_that_of_the_exact_search():
    nodes, rows = clusters(400), clusters(30, seed=2)
    for new in (None, rows):
        found, expected = (graph.neighbours(nodes, 7, new, exact_rows=n) for n in (0, 400))
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.weights, expected.weights, atol=1e-5)


def test_fewer_nodes_than_neighbours():
    nodes = clusters(4)
    assert graph.neighbours(nodes, 15, exact_rows=0).indices.shape == (4, 3)
    found = graph.neighbours(nodes, 15, clusters(2, seed=3), exact_rows=0)
    assert [sorted(row) for row in found.indices] == [[0, 1, 2, 3]] * 2


def test_equal_rows_are_neighbours_of_each_other_never_of_themselves():
    nodes = np.vstack([np.repeat(clusters(20, seed=4), 100, axis=0), clusters(2000, seed=5)])
    cosines, indices = approximate(nodes, 15)
    assert (indices != np.arange(len(nodes))[:, None]).all()
    assert all(len(set(row)) == 15 for row in indices)
    np.testing.assert_allclose(cosines[:2000], 1, atol=1e-5)
    one = np.ones((50, 3), np.float32)  # all rows are equal
    _, indices = approximate(one, 15)
    assert all(len(set(row) - {i}) == 15 for i, row in enumerate(indices))


def test_zero_rows_have_no_weight():
    nodes = clusters(3000)
    nodes[::7] = 0
    found = graph.neighbours(nodes, 15, exact_rows=0)
    assert np.isfinite(found.weights).all() and (found.indices >= 0).all()
    assert not found.weights[::7].any() and found.weights[1::7].any()
    nothing = graph.neighbours(np.zeros((60, 5), np.float32), 4, exact_rows=0)
    assert not nothing.weights.any() and (nothing.indices != np.arange(60)[:, None]).all()


def test_lists_with_too_few_nodes():
    """More neighbours than the nearest lists have nodes: all lists are searched."""
    nodes, rows = clusters(3000), clusters(5, seed=6)
    (cosines, indices), (theirs, _) = approximate(nodes, 2900, rows), exact(nodes, 2900, rows)
    assert all(len(set(row)) == 2900 for row in indices) and indices.min() >= 0
    np.testing.assert_allclose(cosines, theirs, atol=1e-5)


def test_threads_change_nothing():
    nodes, found = clusters(6000, width=50, noise=2), []
    threads = faiss.omp_get_max_threads()
    try:
        for number in (1, 2, 2):
            faiss.omp_set_num_threads(number)
            found.append(approximate(nodes, 15))
    finally:
        faiss.omp_set_num_threads(threads)
    for cosines, indices in found[1:]:
        np.testing.assert_array_equal(indices, found[0][1])
        np.testing.assert_array_equal(cosines, found[0][0])


def test_sparse_nodes_are_refused():
    with pytest.raises(BadInput, match="use the features lsa or encoder, or raise config.data"):
        nearest(scipy.sparse.csr_array(clusters(50)), 3, exact_rows=40)
