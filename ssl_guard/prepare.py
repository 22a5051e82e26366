"""The offline half of a run: corpus -> frozen split -> augmented, tokenised TFRecord shards.

    python -m ssl_guard prepare --config=configs/uda.py [--overwrite]

`main` does the same by itself where something is missing. What is there and fits is used as it is;
what was made with other settings is refused, until --overwrite makes it again.

    data/<corpus>/...                          TFDS, prepared once
    data/splits/<corpus>.<task>.<seed>@<n>.json
    data/augmented/<split>/<set>/              views of the unlabelled rows as text
    data/shards/<split>/<view>/                labelled, unlabelled, dev, test, calibration,
                                               unlabelled-<set>
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssl_guard import algorithms
from ssl_guard.augment import recipe
from ssl_guard.augment.job import Job
from ssl_guard.augment.make import make_set
from ssl_guard.augment.text_set import TextSet, open_set
from ssl_guard.data import contamination, corpora, duplicates, splits, windows
from ssl_guard.data.schema import Corpus, Example, commercial_use, make_corpus
from ssl_guard.data.shards import Records, open_shards, write_shards
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.data.view_mixture import Mixture
from ssl_guard.errors import BadInput
from ssl_guard.models import pretrained
from ssl_guard.runtime.files import sha256_file

Row = tuple[Example, int, str, str | None]  # example, copy, prompt, response

SHARDS = 4  # files per view; more only for pools of millions
PRETRAINING = "pretraining.npz"  # beside a model: duplicates.Shingles of the prompts it has read


class Prepared(NamedTuple):
    """A run's data. strong and unlabelled are None when the algorithm has no unlabelled views,
    calibration and its groups when config.data.calibration is 0."""

    labelled: Records
    unlabelled: Records | None
    strong: Mixture | None
    dev: Records
    test: Records
    test_groups: np.ndarray  # int [test rows]: number of the near-duplicate group of the prompt
    tokenizer: Tokenizer
    model_folder: Path
    calibration: Records | None
    calibration_groups: np.ndarray | None  # as test_groups
    texts: dict[str, list[Example]]  # the rows behind every side with labels, in their order
    contamination: dict  # {pool: {"rows", "near_test", "removed"}}, see `_contamination`
    summary: dict  # counts for the report
    hashes: dict  # of corpus, split, tokenizer, weights
    shards_sha256: dict  # of the manifest of every view


def prepare(config: ConfigDict, *, views: tuple[str, ...], overwrite: bool = False) -> Prepared:
    """Opens the run's shards, making those that are missing.

    views: the algorithm's; without "strong" nothing is augmented. Raises BadInput for anything
    that does not fit the config.
    """
    data = config.data
    model_folder = pretrained.resolve(config.model.name)
    tokenizer = Tokenizer(model_folder, data.max_length)
    source = read_split(config)
    split, rows = source.split, source.rows
    scored = [side for side in ("dev", "test", "calibration") if side in rows]
    if views and data.all_labels:
        raise BadInput(
            f"config.data.all_labels leaves {config.algorithm} no unlabelled rows: it is for "
            "methods without any, such as configs/supervised_full.py."
        )
    if views and not rows["unlabelled"]:
        raise BadInput(
            f"{split.name}: no unlabelled rows are left after dev {data.dev}, test {data.test} and "
            f"labelled {data.labelled}: lower them, or use configs/supervised.py."
        )
    # What the method learns from. The split stays as it is: the ceiling's twins share it.
    taught, taught_view = rows["labelled"], "labelled"
    if data.all_labels:
        known = [example for example in rows["unlabelled"] if example.label is not None]
        taught, taught_view = taught + known, "labelled-all"
    made_from = source.hashes | {
        "tokenizer_sha256": tokenizer.sha256,
        "max_length": data.max_length,
    }
    folder = Path(data.dir) / "shards" / split.name

    def view(name: str, make, **extra) -> Records:
        settings = made_from | extra
        if overwrite or not (folder / name / "manifest.json").exists():
            write_shards(folder / name, name, make(), num_shards=SHARDS, made_from=settings)
        return open_shards(folder / name, name, made_from=settings, rebuild=rebuild_command())

    text_sets = _text_sets(config, source, overwrite) if "strong" in views else {}
    near = _near_test(config, source, text_sets, model_folder)
    records = {"labelled": view(taught_view, lambda: encode(tokenizer, _originals(taught)))} | {
        name: view(name, lambda name=name: encode(tokenizer, _originals(rows[name])))
        for name in ("unlabelled", *scored)
        if name != "unlabelled" or views
    }
    strong = None
    if text_sets:
        removed = {name: near[f"augmented/{name}"] for name in text_sets}
        strong = Mixture(
            [
                view(
                    f"unlabelled-{name}",
                    lambda name=name, text_set=text_set: encode(
                        tokenizer, _without(text_set.views(rows["unlabelled"]), removed[name])
                    ),
                    set_sha256=text_set.sha256,
                    **({"near_test": int(removed[name].sum())} if removed[name].any() else {}),
                )
                for name, text_set in text_sets.items()
            ],
            rows=len(rows["unlabelled"]),
            weights=tuple(config.augment.weights),
        )
    stride = config.eval.stride
    for name in scored if stride else ():
        parts = view(
            f"{name}-windows",
            lambda name=name: encode_windows(tokenizer, rows[name], stride),
            stride=stride,
        )
        records[name] = windows.Windowed(records[name], parts)
    groups = {name: duplicates.group_numbers([e.prompt for e in rows[name]]) for name in scored[1:]}
    return Prepared(
        labelled=records["labelled"],
        unlabelled=records.get("unlabelled"),
        strong=strong,
        dev=records["dev"],
        test=records["test"],
        test_groups=groups["test"],
        tokenizer=tokenizer,
        model_folder=model_folder,
        calibration=records.get("calibration"),
        calibration_groups=groups.get("calibration"),
        texts={"labelled": taught} | {name: rows[name] for name in scored},
        contamination=_contamination(near),
        summary=_summary(source, records, strong, groups["test"]) | {"labels_used": len(taught)},
        hashes=made_from | {"weights_sha256": sha256_file(model_folder / "model.safetensors")},
        shards_sha256=_shards_sha256(records, strong),
    )


class Source(NamedTuple):
    """The corpus, its frozen split, the examples of every side, and the hashes of both."""

    corpus: Corpus
    split: splits.Split
    rows: dict[str, list[Example]]
    hashes: dict[str, str]


def read_split(config: ConfigDict) -> Source:
    """Loads the corpus and draws, or reads, its split. Raises BadInput for what does not fit."""
    data = config.data
    corpus, given_test = load_corpus(config, data.corpus), frozenset()
    if data.prompt_corpus:
        prompts = load_corpus(config, data.prompt_corpus, task="prompt_harm")
        corpus = corpora.with_prompts(corpus, prompts)
    for name in filter(None, data.unlabelled_corpus.split(",")):
        more = _named_apart(corpus, load_corpus(config, name.strip()))
        corpus = corpora.with_unlabelled(corpus, more)
    if data.test_corpus:
        exam = _named_apart(corpus, load_corpus(config, data.test_corpus))
        corpus, given_test = corpora.with_test(corpus, exam)
    spec = splits.SplitSpec(
        seed=config.seed,
        labelled=data.labelled,
        dev=data.dev,
        test=data.test,
        calibration=data.calibration,
        balance="natural" if data.label_sampling == "random" else "balanced",  # as old splits say
        stratified=data.stratified,
    )
    split = splits.load_or_freeze(corpus, Path(data.dir) / "splits", spec, given_test=given_test)
    by_id = {example.id: example for example in corpus.examples}
    sides = [side for side in splits.SIDES if side != "calibration" or data.calibration]
    rows = {side: [by_id[i] for i in getattr(split, side)] for side in sides}
    hashes = {"corpus_sha256": corpus.sha256, "split_sha256": splits.content_sha256(split)}
    return Source(corpus, split, rows, hashes)


def load_corpus(config: ConfigDict, name: str, task: str = "") -> Corpus:
    """`corpora.load` with the config's task, folder, columns and label values."""
    data = config.data
    values = {value: 1 for value in data.harmful_values} | {value: 0 for value in data.safe_values}
    return corpora.load(
        name,
        task=task or data.task,
        data_dir=Path(data.dir),
        columns=dict(data.columns),
        labels=values or None,
    )


def _named_apart(corpus: Corpus, more: Corpus) -> Corpus:
    """`more`, whose rows that are called after their place in a file, "line 7", get the corpus's
    name before it where `corpus` has such a row too."""
    taken = {example.id for example in corpus.examples}
    rows = [
        dataclasses.replace(example, id=f"{more.name} {example.id}")
        if example.id in taken and re.fullmatch(r"(line|item|row) \d+", example.id)
        else example
        for example in more.examples
    ]
    return make_corpus(more.name, more.task, rows, more.licence)


def set_job(config: ConfigDict, source: Source, *, judges=None) -> Job:
    """How the set that the config describes is made, see augment/job.py.

    judges: opens the gates that `model_gates` asks for. Raises BadInput for a bad recipe.
    """
    augment = config.augment
    names = recipe.names(recipe.parse(tuple(augment.ops)))
    return Job(
        _set_folder(config, source, augment.name),
        rows=len(source.rows["unlabelled"]),
        ops=tuple(augment.ops),
        arguments={name: augment[name].to_dict() for name in names if name in augment},
        copies=augment.copies,
        seed=config.seed,
        gates={
            "refusal": augment.gates.refusal,
            "overlap": augment.gates.overlap,
            "length": tuple(augment.gates.length),
            "language": augment.gates.language,
        },
        judged=model_gates(config),
        judges=judges,
        pool=source.hashes,
    )


def model_gates(config: ConfigDict) -> dict:
    """The arguments of judges.build."""
    gates = config.augment.gates
    return {
        "similarity": gates.similarity,
        "classifier": gates.classifier,
        "confidence": gates.confidence,
    }


def _set_folder(config: ConfigDict, source: Source, name: str) -> Path:
    return Path(config.data.dir) / "augmented" / source.split.name / name


def _text_sets(config: ConfigDict, source: Source, overwrite: bool) -> dict[str, TextSet]:
    """The sets to train on, by name. The config's own is made if it is missing; of the others the
    config does not know how."""
    found = {}
    for name in tuple(config.augment.sets) or (config.augment.name,):
        if name == config.augment.name:
            found[name] = _own_set(config, source, overwrite)
        else:
            again = (
                "make it with: python -m ssl_guard augment --config=CONFIG, of a config whose "
                f"config.augment.name is {name!r} (see configs/augment/) and whose config.data and "
                "config.seed are the same"
            )
            folder = _set_folder(config, source, name)
            found[name] = open_set(folder, pool=source.hashes, again=again)
    return found


def sets_used(config: ConfigDict, source: Source) -> dict[str, TextSet]:
    """The sets that a finished run was trained on, by name, of those that are still there."""
    if "strong" not in views_of(config):
        return {}
    names = tuple(config.augment.sets) or (config.augment.name,)
    folders = {name: _set_folder(config, source, name) for name in names}
    return {
        name: open_set(folder, pool=source.hashes, again=f"make it with: {set_command()}")
        for name, folder in folders.items()
        if (folder / "manifest.json").exists()
    }


def pretraining(model_folder: Path) -> duplicates.Shingles | None:
    """The prompts that a model was pre-trained on by mlm.py; None if that is not known."""
    path = model_folder / PRETRAINING
    return duplicates.Shingles.load(path) if path.exists() else None


def _near_test(
    config: ConfigDict, source: Source, text_sets: dict[str, TextSet], model_folder: Path
) -> dict[str, np.ndarray]:
    """{pool: bool [its prompts], is it near a test prompt?} of all that the run may learn from or
    be chosen by, and of the rows that the split left out.

    Raises BadInput if the encoder has read test prompts, for they cannot be taken out of it.
    """
    rows, left_out = source.rows, set(source.split.left_out)
    prompts = {side: (e.prompt for e in rows[side]) for side in rows if side != "test"}
    prompts["left_out"] = (e.prompt for e in source.corpus.examples if e.id in left_out)
    for name, text_set in text_sets.items():
        views = text_set.views(rows["unlabelled"])
        prompts[f"augmented/{name}"] = (prompt for _, _, prompt, _ in views)
    pools = {name: duplicates.Shingles.of(found) for name, found in prompts.items()}
    read = pretraining(model_folder)
    near = contamination.near_test(
        [example.prompt for example in rows["test"]],
        pools | ({} if read is None else {"pretraining": read}),
    )
    if read is not None and near["pretraining"].any():
        raise BadInput(
            f"{config.model.name} was pre-trained on {int(near['pretraining'].sum())} prompts that "
            "are near test prompts of this run: pre-train it with this run's config.data and "
            "config.seed, or use another model."
        )
    return near


def _contamination(near: dict[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """The report's "contamination": prompts of every pool, how many are near a test prompt, and how
    many of these are not used: left out of the split, or augmented views replaced by their row."""
    counts = {name: {"rows": len(n), "near_test": int(n.sum())} for name, n in near.items()}
    for name, pool in counts.items():
        removed = name == "left_out" or name.startswith("augmented/")
        pool["removed"] = pool["near_test"] if removed else 0
    return counts


def _without(views: Iterable[Row], removed: np.ndarray) -> Iterator[Row]:
    """The views; in the place of those that are removed, the row as it is."""
    for (example, copy, *text), gone in zip(views, removed, strict=True):
        yield example, copy, *((example.prompt, example.response) if gone else text)


def _own_set(config: ConfigDict, source: Source, overwrite: bool) -> TextSet:
    job, pool = set_job(config, source), source.rows["unlabelled"]
    open_own = functools.partial(
        open_set,
        job.folder,
        pool=source.hashes,
        made_from=job.made_from,
        again=f"make it again with: {rebuild_command()}",
    )
    there = (job.folder / "manifest.json").exists()
    if there:
        try:
            return open_own()
        except BadInput:
            if not overwrite:
                raise
    if config.augment.gates.similarity or config.augment.gates.classifier:
        raise BadInput(
            f"the set {job.folder.name!r} is judged by a model (config.augment.gates), so it has "
            f"to be made by itself: {set_command()}{' --overwrite' if there else ''}"
        )
    make_set(
        job,
        pool,
        fit_on=source.rows["labelled"] + pool,
        overwrite=overwrite,
        progress=sys.stderr.isatty(),
    )
    return open_own()


def _summary(source: Source, records: dict[str, Records], strong: Mixture | None, groups) -> dict:
    """Counts for the report: rows and harmful rows per side, rows that were cut, groups."""
    corpus, split, rows = source.corpus, source.split, source.rows
    windowed = {name: r for name, r in records.items() if isinstance(r, windows.Windowed)}
    cut = {name: r.manifest["cut_rows"] for name, r in records.items()}
    repeated = 0.0
    if strong is not None:
        manifests = [view.manifest for view in strong.views]
        cut["strong"] = sum(manifest["cut_rows"] for manifest in manifests)
        shares = [manifest["repeated_share"] for manifest in manifests]
        repeated = float(np.dot(strong.weights, shares))
    return {
        "corpus": corpus.name,
        "task": corpus.task,
        "licence": corpus.licence,
        "commercial_use": commercial_use(corpus.licence),
        "split": split.name,
        "rows": {name: len(examples) for name, examples in rows.items()},
        "harmful": {
            name: sum(example.label == 1 for example in examples) for name, examples in rows.items()
        },
        "rows_longer_than_max_length": cut,
        "windows": {name: len(r.windows) for name, r in windowed.items()},
        "repeated_views": repeated,
        "test_groups": int(groups.max()) + 1,
    }


def _shards_sha256(records: dict[str, Records], strong: Mixture | None) -> dict[str, str]:
    """{view: sha256 of its manifest}, which has the sha256 of every file and of what it is from."""
    manifests = [records[name].manifest for name in records] + [
        view.manifest for view in (strong.views if strong is not None else ())
    ]
    return {
        manifest["view"]: hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
        for manifest in manifests
    }


def views_of(config: ConfigDict) -> tuple[str, ...]:
    """The views of the unlabelled rows that the config's algorithm needs."""
    if config.algorithm in algorithms.CLOSED_FORM:
        return ()
    return algorithms.build(config.algorithm, **config[config.algorithm]).views


def rebuild_command() -> str:
    """The command that makes this run's shards again."""
    return _command("ssl_guard prepare") + " --overwrite"


def set_command() -> str:
    """The command that makes this run's augmentation set."""
    return _command("ssl_guard augment")


def _command(module: str) -> str:
    words = iter(sys.argv[1:])
    # "--config FILE" is two words.
    given = [
        f"--config={next(words, 'CONFIG')}" if word == "--config" else word
        for word in words
        if word.startswith("--config")
    ]
    return " ".join([f"python -m {module}", *(given or ["--config=CONFIG"])])


def _originals(examples: list[Example]) -> Iterator[Row]:
    for example in examples:
        yield example, 0, example.prompt, example.response


def encode(tokenizer: Tokenizer, rows: Iterable[Row]) -> Iterator[dict]:
    """Tokenised records (see data/tfrecord.py) of the rows; copies of an example stand together."""
    index = -1
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, 1024)):
        encoded = tokenizer.encode([row[2] for row in chunk], [row[3] for row in chunk])
        for (example, copy, _, _), tokens in zip(chunk, encoded, strict=True):
            index += copy == 0
            yield {
                "id": example.id,
                "input_ids": tokens.input_ids,
                "second": tokens.second,
                "cut": tokens.cut,
                "label": -1 if example.label is None else example.label,
                "index": index,
                "copy": copy,
            }


def encode_windows(tokenizer: Tokenizer, rows: list[Example], stride: int) -> Iterator[dict]:
    """Tokenised records of the windows of the rows; `copy` is the number of the window."""
    prompts, responses = [e.prompt for e in rows], [e.response for e in rows]
    encoded = windows.encode(tokenizer, prompts, responses, stride=stride)
    for index, (example, parts) in enumerate(zip(rows, encoded, strict=True)):
        for copy, part in enumerate(parts):
            yield {
                "id": example.id,
                "input_ids": part.input_ids,
                "second": part.second,
                "cut": part.cut,
                "label": -1 if example.label is None else example.label,
                "index": index,
                "copy": copy,
            }
