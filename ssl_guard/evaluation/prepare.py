"""Prepares the data of a run: corpus -> frozen split -> augmented, tokenised TFRecord shards.

Existing data is used if it fits the config; otherwise it is refused, or made again.

    data/<corpus>/...                          TFDS, prepared once
    data/splits/<corpus>.<task>.<seed>@<n>.json
    data/augmented/<split>/<set>/              views of the unlabelled rows as text
    data/shards/<split>/<view>/                labelled, unlabelled, dev, test, calibration,
                                               unlabelled-<set>
    data/features/                             the frozen encoder's, see evaluation/scorer.py
    data/activations/                          of frozen layers, see train/frozen.py
    data/neighbours/                           see train/neighbour_views.py
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssl_guard import algorithms
from ssl_guard.augment import select
from ssl_guard.augment.ops import OPS
from ssl_guard.augment.text_set import TextSet
from ssl_guard.data import assemble, contamination, duplicates, folds, soft_labels
from ssl_guard.data.corpora.reading import Reading, names_in
from ssl_guard.data.encode import encode, encode_windows, originals
from ssl_guard.data.records import Records
from ssl_guard.data.schema import Example, commercial_use
from ssl_guard.data.shards import open_shards, write_shards
from ssl_guard.data.splits import SplitSpec
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.data.view_mixture import Mixture
from ssl_guard.data.windows import Windowed
from ssl_guard.errors import BadInput
from ssl_guard.models import pretrained
from ssl_guard.runtime import cli
from ssl_guard.runtime.files import sha256_file

SHARDS = 4  # files per view; more only for pools of millions


class Prepared(NamedTuple):
    """A run's data.

    unlabelled and strong are None if the algorithm has no such view; strong also if the views are
    neighbours, which train/neighbour_views.py adds; calibration and its groups are None if
    config.data.calibration is 0; dev is None if config.eval.folds takes its place.
    """

    labelled: Records
    unlabelled: Records | None
    strong: Mixture | None
    pool_corpora: np.ndarray  # int [unlabelled rows]: 0 for the corpus's own, then by added corpus
    soft_labels: soft_labels.SoftLabels | None  # if config.data.soft_labels names them
    dev: Records | None
    test: Records
    test_groups: np.ndarray  # int [test rows]: number of the near-duplicate group of the prompt
    tokenizer: Tokenizer
    model_folder: Path
    calibration: Records | None
    calibration_groups: np.ndarray | None  # as test_groups
    texts: dict[str, list[Example]]  # the examples of every side above, in order
    contamination: dict  # {pool: {"rows", "near_test", "removed"}}, see data/contamination.py
    summary: dict  # counts for the report
    hashes: dict  # of corpus, split, tokenizer, weights
    shards_sha256: dict  # {view: sha256 of its manifest}


class DataSpec:
    """The values of a config that determine the run's data."""

    def __init__(self, config: ConfigDict):
        data, augment, gates = config.data, config.augment, config.augment.gates
        self.model, self.max_length = config.model.name, data.max_length
        self.stride, self.all_labels = config.eval.stride, data.all_labels
        self.folds, self.fold = config.eval.folds, config.eval.fold
        self.data_dir = Path(data.dir)
        self.soft_labels = Path(data.soft_labels) if data.soft_labels else None
        self.corpora = assemble.CorporaSpec(
            corpus=data.corpus,
            task=data.task,
            data_dir=self.data_dir,
            how=Reading.of(data),
            prompts=data.prompt_corpus,
            unlabelled=names_in(data.unlabelled_corpus),
            test=data.test_corpus,
            other_tests=names_in(data.other_tests),
        )
        self.pool_weights = tuple(data.unlabelled_weights)
        self.split = SplitSpec(
            seed=config.seed,
            labelled=data.labelled,
            dev=data.dev,
            test=data.test,
            calibration=data.calibration,
            balance="natural" if data.label_sampling == "random" else "balanced",  # as in old files
            stratified=data.stratified,
        )
        self.sets = select.SetsSpec(
            root=self.data_dir / "augmented",
            names=() if augment.neighbours else tuple(augment.sets) or (augment.name,),
            weights=tuple(augment.weights),
            own=augment.name,
            ops=tuple(augment.ops),
            arguments={key: group for key, group in augment.to_dict().items() if key in OPS},
            copies=augment.copies,
            seed=config.seed,
            gates={
                "refusal": gates.refusal,
                "overlap": gates.overlap,
                "length": tuple(gates.length),
                "language": gates.language,
            },
            model_gates={name: gates[name] for name in ("similarity", "classifier", "confidence")},
        )


def prepare(config: ConfigDict, *, views: tuple[str, ...], overwrite: bool = False) -> Prepared:
    """Opens the run's shards, making those that are missing.

    views: the algorithm's; without "strong" nothing is augmented. Raises BadInput for data that
    does not fit the config.
    """
    spec = DataSpec(config)
    model_folder = pretrained.resolve(spec.model)
    tokenizer = Tokenizer(model_folder, spec.max_length)
    source = assemble.read_split(spec.corpora, spec.split)
    if spec.folds:
        source.rows.pop("dev")
    split, rows = source.split, source.rows
    pool, scored = rows["unlabelled"], [s for s in ("dev", "test", "calibration") if s in rows]
    if views and spec.all_labels:
        raise BadInput(
            f"config.data.all_labels leaves {config.algorithm} no unlabelled rows: it is for "
            "methods without any, such as configs/supervised_full.py."
        )
    if views and not pool:
        raise BadInput(
            f"{split.name}: no unlabelled rows are left after {spec.split.sizes}: lower these "
            "numbers of config.data, or use configs/supervised.py."
        )
    pool_corpora = np.array([source.origins[example.id] for example in pool], int)
    if views:
        _check_weights(spec, pool_corpora)
    # The rows to learn from. The split itself does not depend on all_labels.
    taught, taught_view = rows["labelled"], "labelled"
    if spec.all_labels:
        taught = taught + [example for example in pool if example.label is not None]
        taught_view = "labelled-all"

    text_sets: dict[str, TextSet] = {}
    if "strong" in views:
        text_sets = select.open_or_make(spec.sets, source, overwrite=overwrite)
    left_out = set(split.left_out)
    left_out_rows = [example for example in source.corpus.examples if example.id in left_out]
    near = contamination.near_test(
        rows,
        left_out_rows,
        {name: text_set.views(pool) for name, text_set in text_sets.items()},
        model_folder,
        source.other_tests,
    )
    removed_of = [
        source.origins[example.id]
        for example, is_near in zip(left_out_rows, near["left_out"], strict=True)
        if is_near
    ]

    encoded_by = {"tokenizer_sha256": tokenizer.sha256, "max_length": tokenizer.max_length}
    made_from = source.hashes | encoded_by
    folder = spec.data_dir / "shards" / split.name
    again = f"{cli.again('prepare')} --overwrite"

    def view(name: str, records: Iterable[dict], **extra) -> Records:
        """Opens a view; only if it must be written, `records` are generated."""
        settings = made_from | extra
        if overwrite or not (folder / name / "manifest.json").exists():
            write_shards(folder / name, name, records, num_shards=SHARDS, made_from=settings)
        return open_shards(folder / name, name, made_from=settings, rebuild=again)

    records: dict = {"labelled": view(taught_view, encode(tokenizer, originals(taught)))}
    for name in ("unlabelled", *scored) if views else scored:
        records[name] = view(name, encode(tokenizer, originals(rows[name])))
    strong_views = []
    for name, text_set in text_sets.items():
        removed = near[f"augmented/{name}"]
        kept = encode(tokenizer, select.without(text_set.views(pool), removed))
        extra = {"near_test": int(removed.sum())} if removed.any() else {}
        strong_views.append(view(f"unlabelled-{name}", kept, set_sha256=text_set.sha256, **extra))
    strong = None
    if strong_views:
        strong = Mixture(strong_views, rows=len(pool), weights=spec.sets.weights)
    for name in scored if spec.stride else ():
        parts = view(
            f"{name}-windows",
            encode_windows(tokenizer, rows[name], spec.stride),
            stride=spec.stride,
        )
        records[name] = Windowed(records[name], parts)

    soft = None
    if views and spec.soft_labels:
        ids = [example.id for example in pool]
        learned = folds.key(spec.folds, spec.fold)
        soft = soft_labels.open_set(spec.soft_labels, ids, pool=source.hashes | learned)
    groups = {
        name: duplicates.group_numbers([e.prompt for e in rows[name]])
        for name in scored
        if name != "dev"
    }
    manifests = [r.manifest for r in (*records.values(), *strong_views)]
    prepared = Prepared(
        labelled=records["labelled"],
        unlabelled=records.get("unlabelled"),
        strong=strong,
        pool_corpora=pool_corpora,
        soft_labels=soft,
        dev=records.get("dev"),
        test=records["test"],
        test_groups=groups["test"],
        tokenizer=tokenizer,
        model_folder=model_folder,
        calibration=records.get("calibration"),
        calibration_groups=groups.get("calibration"),
        texts={name: rows[name] for name in records} | {"labelled": taught},
        contamination=contamination.counts(near),
        summary=_summary(source, records, strong)
        | {
            "pool": {
                name: {"rows": int((pool_corpora == n).sum()), "near_test": removed_of.count(n)}
                for n, name in enumerate(spec.corpora.pool)
            },
            "test_groups": int(groups["test"].max()) + 1,
            "labels_used": len(taught),
            "folds": spec.folds,
            "labels_choosing": {
                "labelled": len(taught) if spec.folds else 0,
                "dev": len(rows.get("dev", ())),
            },
        },
        hashes=made_from | {"weights_sha256": sha256_file(model_folder / "model.safetensors")},
        shards_sha256={
            m["view"]: hashlib.sha256(json.dumps(m).encode()).hexdigest() for m in manifests
        }
        | ({"soft_labels": soft.sha256} if soft else {}),
    )
    return prepared if spec.fold < 0 else of_folds(config, prepared)[spec.fold]


def of_folds(config: ConfigDict, prepared: Prepared) -> list[Prepared]:
    """Returns the data of the run of each fold, see data/folds.py.

    Raises BadInput for labelled rows that do not suffice for config.eval.folds.
    """
    found = folds.assign(prepared.texts["labelled"], config.eval.folds, config.seed)
    return [_without(prepared, found == fold) for fold in range(config.eval.folds)]


def _without(prepared: Prepared, held: np.ndarray) -> Prepared:
    """Returns the data without some labelled rows, which are the dev and the test rows.

    held: bool [labelled rows].
    """
    kept, out = np.flatnonzero(~held), np.flatnonzero(held)
    texts = prepared.texts["labelled"]
    held_texts, held_rows = [texts[i] for i in out], prepared.labelled.subset(out)
    return prepared._replace(
        labelled=prepared.labelled.subset(kept),
        dev=held_rows,
        test=held_rows,
        test_groups=duplicates.group_numbers(example.prompt for example in held_texts),
        calibration=None,
        calibration_groups=None,
        texts=prepared.texts
        | {"labelled": [texts[i] for i in kept], "dev": held_texts, "test": held_texts},
    )


def read_split(config: ConfigDict) -> assemble.Source:
    """Loads the corpora and draws, or reads, the split. Raises BadInput for what does not fit."""
    spec = DataSpec(config)
    return assemble.read_split(spec.corpora, spec.split)


def sets_used(config: ConfigDict, source: assemble.Source) -> dict[str, TextSet]:
    """Opens the sets that a finished run was trained on, those that still exist, by name."""
    if "strong" not in views_of(config):
        return {}
    return select.open_existing(DataSpec(config).sets, source)


def views_of(config: ConfigDict) -> tuple[str, ...]:
    """Returns the views of the unlabelled rows that the config's algorithm needs."""
    if config.algorithm in algorithms.CLOSED_FORM:
        pooled = config.algorithm == "graph" and config.graph.nodes == "pool"
        return ("weak",) if pooled else ()
    return algorithms.build(config.algorithm, **config[config.algorithm]).views


def _check_weights(spec: DataSpec, pool_corpora: np.ndarray) -> None:
    """Raises BadInput unless every corpus of the pool has a weight and a row, or none a weight."""
    weights, names = spec.pool_weights, spec.corpora.pool
    if not weights:
        return
    if len(weights) != len(names):
        raise BadInput(
            f"config.data.unlabelled_weights = {weights} must have {len(names)} numbers, for "
            f"{', '.join(names)}, or be ()."
        )
    for number, name in enumerate(names):
        if not (pool_corpora == number).any():
            raise BadInput(
                f"config.data.unlabelled_weights: no row of {name} is in the unlabelled pool: "
                "leave that corpus out, or set the weights to ()."
            )


def _summary(source: assemble.Source, records: dict, strong: Mixture | None) -> dict:
    """Counts for the report: rows, harmful rows and truncated rows by side, windows, groups."""
    corpus, rows = source.corpus, source.rows
    truncated = {name: r.manifest["cut_rows"] for name, r in records.items()}
    repeated = 0.0
    if strong is not None:
        manifests = [view.manifest for view in strong.views]
        truncated["strong"] = sum(manifest["cut_rows"] for manifest in manifests)
        shares = [manifest["repeated_share"] for manifest in manifests]
        repeated = float(np.dot(strong.weights, shares))
    return {
        "corpus": corpus.name,
        "task": corpus.task,
        "licence": corpus.licence,
        "commercial_use": commercial_use(corpus.licence),
        "split": source.split.name,
        "rows": {name: len(examples) for name, examples in rows.items()},
        "harmful": {
            name: sum(example.label == 1 for example in examples) for name, examples in rows.items()
        },
        "left_out": dict(corpus.left_out),
        "rows_longer_than_max_length": truncated,
        "windows": {n: len(r.windows) for n, r in records.items() if isinstance(r, Windowed)},
        "repeated_views": repeated,
    }
