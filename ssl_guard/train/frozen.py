"""Computes the output of frozen layers once, before training, instead of in every step.

With `config.train.cache_frozen` the lowest layers, if they and the embeddings are frozen, run over
every record once. Their output is stored (data/activations.py), and a step begins above them. They
then run without dropout; the layers above keep theirs. Without any dropout the numbers are those
of a run without the cache, to rounding.
"""

import functools
import re
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ssl_guard.data import pipeline
from ssl_guard.data.activations import with_states
from ssl_guard.data.records import Records
from ssl_guard.data.view_mixture import Mixture
from ssl_guard.data.windows import Windowed
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import scorer
from ssl_guard.evaluation.prepare import Prepared
from ssl_guard.models import Classifier, hidden_states
from ssl_guard.runtime import preemption, sharding
from ssl_guard.steps import optim

FOLDER = "activations"  # in config.data.dir


def frozen_layers(params, freeze: tuple[str, ...]) -> int:
    """Returns the number of lowest encoder layers that only frozen parameters determine.

    freeze: see `optim.trainable_mask`. 0 if an embedding is trained, or the relative positions that
    all layers share (DeBERTa, MPNet).
    """
    mask = optim.trainable_mask(params, freeze)
    trained = [
        name
        for name, learns in zip(optim.path_names(params), jax.tree.leaves(mask), strict=True)
        if learns
    ]
    if any(name.startswith("encoder/embeddings") for name in trained):
        return 0
    layers = [int(found[1]) for n in trained if (found := re.match(r"encoder/layer_(\d+)/", n))]
    return min(layers, default=len([n for n in params["encoder"] if n.startswith("layer_")]))


def cache(
    config: ConfigDict, model: Classifier, params, prepared: Prepared, mesh
) -> tuple[Prepared, int]:
    """Returns the data with states after the frozen layers, and the number of these layers.

    The training views and dev get states; test rows, which are read once, do not. params: float32,
    as they are before training.

    Raises BadInput if no layer is frozen or for several processes, Preempted if a signal arrives.
    """
    layers = frozen_layers(params, tuple(config.optim.freeze))
    if not layers:
        raise BadInput(
            "config.train.cache_frozen needs frozen embeddings and layers; config.optim.freeze = "
            f"{tuple(config.optim.freeze)} leaves none: freeze ('encoder/embeddings', "
            "'encoder/layer_[012]') or more, with 'encoder/embeddings_relative' for DeBERTa and "
            "MPNet, or unset cache_frozen."
        )
    if jax.process_count() > 1:
        raise BadInput("config.train.cache_frozen is for one process: unset it.")
    frozen = {
        name: values
        for name, values in params["encoder"].items()
        if name.startswith("embeddings") or name in {f"layer_{i}" for i in range(layers)}
    }
    made_from = {
        "layers": layers,
        "dtype": config.model.dtype,
        "weights_sha256": scorer.tree_sha256(frozen),
        "model": model.config.to_json(),
    }
    states_of = jax.jit(
        functools.partial(_states, model=model, layers=layers),
        out_shardings=sharding.replicated(mesh),
    )
    how = scorer.how_to_evaluate(config, prepared.tokenizer, mesh) | {"pack_groups": 0}
    del how["mesh"]

    def batches(records: Records):
        for batch, positions in pipeline.eval_batches(records, **how):
            preemption.check()
            states = states_of(params["encoder"], sharding.put_global_batch(batch, mesh))
            yield jax.device_get(states)[: len(positions)], positions

    def stored(records: Records | None):
        if records is None or isinstance(records, Windowed):
            return records
        return with_states(
            records,
            batches(records),
            Path(config.data.dir, FOLDER),
            width=model.config.hidden_size,
            made_from=made_from,
        )

    strong = prepared.strong
    if strong is not None:
        views = [stored(view) for view in strong.views]
        strong = Mixture(
            views, rows=strong.rows, copies=strong.copies, weights=tuple(strong.weights)
        )
    found = prepared._replace(
        labelled=stored(prepared.labelled), unlabelled=stored(prepared.unlabelled), strong=strong
    )
    if not config.train.float32_check:  # which scores dev in another dtype
        found = found._replace(dev=stored(prepared.dev))
    return found, layers


def _states(params, batch: dict, *, model: Classifier, layers: int):
    """Returns the states after the lowest layers, float32 [rows, length, width], dropout off."""
    return hidden_states(model.encoder, params, batch, None, False, stop_layer=layers).astype(
        "float32"
    )
