"""Uses nearest rows of the unlabelled pool as strong views: consistency between neighbours.

As in NNCLR (Dwibedi et al., arXiv 2104.14548, section 3.2), a view of a row is another row. There
the neighbours come from the trained embedding at every step. Here they come from features that no
training changes and are found once, so that the train step of every method is the same. The label
of a row holds for its neighbours where a topic has one class. It may not where harmful and safe
texts share their words.

Neighbours are rows of the unlabelled pool alone. Equal rows are neighbours of each other.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from ssl_guard.data.records import Records
from ssl_guard.data.view_mixture import Mixture
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import graph, scorer
from ssl_guard.evaluation import prepare as data


class Neighbours(Records):
    """The records of rows' neighbours: copy c of row i at i * k + c, with the index of row i.

    pool: the unlabelled records; indices: int [pool, k], the neighbours of each among them.
    """

    def __init__(self, pool: Records, indices: np.ndarray):
        self._pool, self._indices, self._copies = pool, indices.ravel(), indices.shape[1]
        self.lengths, self.manifest = pool.lengths[self._indices], pool.manifest

    def gather(self, indices: Iterable[int]) -> list[dict]:
        """Returns the records at these positions, in this order."""
        places = np.asarray(list(indices), np.int64)
        rows = self._pool.gather(self._indices[places])
        owners = (places // self._copies).tolist()
        return [row | {"index": owner} for row, owner in zip(rows, owners, strict=True)]


def prepare(config: ConfigDict, *, views: tuple[str, ...]) -> data.Prepared:
    """Prepares the data of a run, with neighbours as strong views if config.augment asks for them.

    views: the algorithm's. Neighbours are found once and stored in config.data.dir. Raises BadInput
    as `prepare.prepare` does, and for the encoder's features with several processes.
    """
    prepared = data.prepare(config, views=views)
    if not config.augment.neighbours or "strong" not in views:
        return prepared
    kinds = tuple(config.augment.features)
    if "encoder" in kinds and jax.process_count() > 1:
        raise BadInput(
            "config.augment.features: the encoder's features are computed by one process: use lsa "
            "or tfidf, or start the run alone."
        )
    k, exact_rows = config.augment.neighbours, config.data.exact_neighbours
    pool = prepared.unlabelled
    assert pool is not None

    def search(pool: Records) -> np.ndarray:
        features = scorer.fixed_features(config, prepared, kinds)(
            prepared.texts["unlabelled"], pool
        )
        return nearest(graph.join([features[kind] for kind in kinds]), k, exact_rows=exact_rows)

    # Vocabularies are fitted on the labelled rows too.
    labelled = [example.id for example in prepared.texts["labelled"]]
    made_from = [kinds, k, len(pool) > exact_rows, prepared.hashes, labelled]
    if "encoder" in kinds:
        made_from += [config.model.to_dict(), config.data.packing]
    indices = scorer.stored_once(search, Path(config.data.dir, "neighbours"), made_from, pool)
    sha256 = hashlib.sha256(indices.tobytes()).hexdigest()
    return prepared._replace(
        strong=Mixture([Neighbours(pool, indices)], rows=len(pool)),
        shards_sha256=prepared.shards_sha256 | {"neighbours": sha256},
    )


def nearest(features, k: int, *, exact_rows: int) -> np.ndarray:
    """Finds the k nearest other rows by cosine, int32 [rows, k], fewer columns if there are fewer.

    features: [rows, n], dense or sparse. A neighbour without a positive cosine is replaced by the
    row itself, as for a text without a known word. A single row is its own neighbour.
    """
    own = np.arange(features.shape[0], dtype=np.int32)[:, None]
    if len(own) == 1:
        return own
    found = graph.neighbours(features, k, exact_rows=exact_rows)
    return np.where(found.weights > 0, found.indices, own).astype(np.int32)
