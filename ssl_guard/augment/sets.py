"""Augmentation sets: the views of a pool as text, independent of tokenizer and length.

    data/augmented/<split>/<set>/
        <set>.tfrecord-00000-of-00004   {id, copy, op, prompt, response (if there is one)}
        manifest.json                   what it was made from and with, its account, sha256s
    data/augmented/<split>/.<set>.making/   the same under way: finished shards with their accounts,
        rows/                               and the pool itself, sharded alike

A row's shard follows from its id; inside a shard rows are in the pool's order, their copies
together. To make a shard, a worker needs the job and the shard's number: it reads the rows staged
for it and writes the file, which gets its name only when it is whole. So a killed run loses the
shards under way at most, and it does not matter who makes which: this process, several, or Beam.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import inspect
import itertools
import json
import multiprocessing
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ssl_guard.augment import gates, ops, recipe, run, stats
from ssl_guard.data import tfrecord_io
from ssl_guard.data.schema import HARMFUL, Example
from ssl_guard.data.shards import differences_of
from ssl_guard.errors import BadInput
from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import sha256_file

SCHEMA_VERSION = 1
ROWS_PER_SHARD = 2048
SHARDS = 4, 256  # fewest, so that a few processes have work; most, for a reader has all open
CHUNK = 256  # rows that an operation gets at a time


class Job(NamedTuple):
    """All that decides a set but the rows, and where it is made. Made by `plan`.

    folder: of the complete set; ops: config.augment.ops; arguments: {operation: {argument: value}}
    of the operations in it; gates: arguments of gates.build; judges: opens further gates, where
    they are used, for these cannot travel; made_from: all of this and the pool, as JSON values.
    """

    folder: Path
    ops: tuple[str, ...]
    arguments: dict[str, dict]
    copies: int
    seed: int
    gates: dict
    judges: Callable[[], Sequence[gates.Gate]] | None
    shards: int
    made_from: dict

    @property
    def making(self) -> Path:
        """The folder of the set under way."""
        return self.folder.with_name(f".{self.folder.name}.making")

    def file(self, shard: int) -> str:
        """The name of a shard's file."""
        return f"{self.folder.name}.tfrecord-{shard:05d}-of-{self.shards:05d}"


class Tools(NamedTuple):
    """A job opened in the process that works on it: fitted operations, of prompts and of responses,
    and loaded gates."""

    stages: tuple[recipe.Stage, ...]
    rewrites: tuple[dict[str, ops.Rewrite], ...]
    gates: tuple[gates.Gate, ...]


def plan(
    folder: str | Path,
    *,
    rows: int,
    ops: Sequence[str],
    arguments: dict[str, dict],
    copies: int,
    seed: int,
    gates: dict,
    judged: dict,
    judges: Callable[[], Sequence[gates.Gate]] | None = None,
    pool: dict,
) -> Job:
    """The job of a set. rows: of the pool; pool: the hashes that tell which; judged: the settings
    behind `judges`. Raises BadInput for a recipe that is none."""
    names = recipe.names(recipe.parse(ops))
    arguments = {name: arguments.get(name, {}) for name in names}
    made_from = pool | {
        "ops": list(ops),
        "arguments": arguments,
        "copies": copies,
        "seed": seed,
        "gates": gates | judged,
    }
    if copies < 1:
        raise BadInput(f"copies={copies} of each row cannot be made; ask for at least 1.")
    fewest, most = SHARDS
    return Job(
        folder=Path(folder),
        ops=tuple(ops),
        arguments=arguments,
        copies=copies,
        seed=seed,
        gates=gates,
        judges=judges,
        shards=min(max(-(-rows // ROWS_PER_SHARD), fewest), most),
        made_from=json.loads(json.dumps(made_from)),
    )


def shard_of(row_id: str, shards: int) -> int:
    """The shard that a row's views are in."""
    return int.from_bytes(hashlib.sha256(row_id.encode()).digest()[:8], "big") % shards


def make(
    job: Job,
    examples: Sequence[Example],
    *,
    fit_on: Sequence[Example],
    kinds: Iterable[str] | None = None,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = False,
) -> dict:
    """Makes the set, or what is missing of it, in local processes, and returns its manifest.

    kinds: the class of every example for the account, of account.CLASSES; their labels without it.
    Raises BadInput for what `stage` refuses and for a disk that is full.
    """
    stage(job, examples, fit_on=fit_on, kinds=kinds, overwrite=overwrite)
    missing = [shard for shard in range(job.shards) if finished(job, shard) is None]
    sizes = [0] * job.shards
    for example in examples:
        sizes[shard_of(example.id, job.shards)] += job.copies
    total = len(examples) * job.copies
    done = total - sum(sizes[shard] for shard in missing)
    with tqdm(
        total=total, initial=done, desc=job.folder.name, unit="view", disable=not progress
    ) as bar:
        if workers == 1 and missing:
            tools = open_tools(job)

            def advance(views: int) -> None:
                bar.update(views)
                bar.set_postfix_str(_cost(tools.rewrites))

            for shard in missing:
                make_shard(job, tools, shard, advance)
        elif missing:
            with concurrent.futures.ProcessPoolExecutor(
                min(workers, len(missing)),
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_work_on,
                initargs=(job,),
            ) as pool:
                futures = {pool.submit(_make_shard_here, shard): shard for shard in missing}
                try:
                    for future in concurrent.futures.as_completed(futures):
                        future.result()
                        bar.update(sizes[futures[future]])
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    return finish(job)


def stage(
    job: Job,
    examples: Sequence[Example],
    *,
    fit_on: Sequence[Example],
    kinds: Iterable[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the pool to the disk, sharded as the set will be, and the texts to fit on.

    Raises BadInput if a set under way was made from something else, unless it is to be overwritten.
    """
    rows = job.making / "rows"
    with tfrecord_io.disk_errors(f"the set {job.folder.name!r}", job.making):
        if overwrite:
            shutil.rmtree(job.making, ignore_errors=True)
        shutil.rmtree(rows, ignore_errors=True)
        rows.mkdir(parents=True)
        for shard in range(job.shards):
            finished(job, shard)
        if kinds is None:
            kinds = map(kind_of, examples)
        with contextlib.ExitStack() as stack:
            paths = [rows / job.file(shard) for shard in range(job.shards)]
            files = [stack.enter_context(path.open("wb")) for path in paths]
            for example, kind in zip(examples, kinds, strict=True):
                row = {"id": example.id.encode(), "kind": kind.encode()}
                row |= _features(gates.Text(example.prompt, example.response))
                files[shard_of(example.id, job.shards)].write(
                    tfrecord_io.frame(tfrecord_io.serialise(row))
                )
        with (rows / "texts").open("wb") as file:
            for text in distinct_texts(fit_on):
                file.write(tfrecord_io.frame(tfrecord_io.serialise({"text": text.encode()})))


def kind_of(example: Example) -> str:
    """The class of an example by its label, for the account."""
    if example.label is None:
        return "unknown"
    return "harmful" if example.label == HARMFUL else "safe"


def open_tools(job: Job) -> Tools:
    """Fits the operations on the staged texts and opens the gates."""
    stages = recipe.parse(job.ops)
    staged = job.making / "rows" / "texts"
    rewrites = open_rewrites(
        job, stages, lambda: (row["text"].decode() for row in tfrecord_io.read(staged))
    )
    judges = () if job.judges is None else job.judges()
    return Tools(stages, rewrites, (*gates.build(**job.gates), *judges))


def open_rewrites(
    job: Job, stages: Sequence[recipe.Stage], texts: Callable[[], Iterable[str]]
) -> tuple[dict[str, ops.Rewrite], ...]:
    """The operations of the stages by name, fitted on texts(): of prompts, and of responses. They
    are two where an operation takes the argument `part`."""
    rewrites: tuple[dict, ...] = ({}, {})
    for name in recipe.names(stages):
        arguments = job.arguments[name]
        parts = inspect.signature(ops.OPS[name]).parameters.keys() & {"part"} - arguments.keys()
        for found, part in zip(rewrites, ("prompt", "response"), strict=True):
            if parts or found is rewrites[0]:
                asked = arguments | dict.fromkeys(parts, part)
                found[name] = ops.build(name, texts(), asked)
            else:
                found[name] = rewrites[0][name]
    return rewrites


def distinct_texts(examples: Iterable[Example]) -> Iterable[str]:
    """The prompts and responses, each once: one that occurs ten times counts once."""
    return dict.fromkeys(t for e in examples for t in (e.prompt, e.response) if t is not None)


def make_shard(
    job: Job, tools: Tools, shard: int, advance: Callable[[int], None] | None = None
) -> None:
    """Writes one shard and, once that is whole, its account beside it.

    advance(views) is told after every chunk, for a progress bar.
    """
    path = job.making / job.file(shard)
    temporary = job.making / f".{path.name}.{secrets.token_hex(4)}"
    counts, records = {}, 0
    with tfrecord_io.disk_errors(f"the set {job.folder.name!r}", job.making):
        with temporary.open("wb") as file:
            staged = tfrecord_io.read(job.making / "rows" / job.file(shard))
            while chunk := [_row(row) for row in itertools.islice(staged, CHUNK)]:
                views, part = run.augment(chunk, *tools, copies=job.copies, seed=job.seed)
                counts = stats.merge(counts, part)
                for view in views:
                    features = {"id": view.id.encode(), "copy": view.copy, "op": view.op.encode()}
                    file.write(
                        tfrecord_io.frame(tfrecord_io.serialise(features | _features(view.text)))
                    )
                records += len(views)
                if advance is not None:
                    advance(len(views))
            file.flush()
            os.fsync(file.fileno())
        entry = {
            "made_from": job.made_from,
            "made_with": {
                name: rewrite.manifest
                for name, rewrite in tools.rewrites[0].items()
                if hasattr(rewrite, "manifest")
            },
            "account": counts,
            "shard": {
                "file": path.name,
                "records": records,
                "bytes": temporary.stat().st_size,
                "sha256": sha256_file(temporary),
            },
        }
        os.replace(temporary, path)
        _write_json(path.with_name(f"{path.name}.json"), entry)


def finished(job: Job, shard: int) -> dict | None:
    """What is beside a shard that is whole; None if it has to be made.

    Raises BadInput for a shard of a set that was made from something else.
    """
    path = job.making / job.file(shard)
    try:
        entry = json.loads(path.with_name(f"{path.name}.json").read_text())
        differences = differences_of(entry["made_from"], job.made_from)
        whole = path.is_file() and sha256_file(path) == entry["shard"]["sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if differences:
        raise BadInput(
            f"{job.making} holds a part of a set that was made from something else "
            f"({'; '.join(differences)}); finish that one with its own config, give this one "
            "another config.augment.name, or start it over with --overwrite."
        )
    return entry if whole else None


def finish(job: Job) -> dict:
    """Puts the finished shards in their place, with a manifest, which is returned.

    Raises BadInput if a shard is missing.
    """
    entries = [finished(job, shard) for shard in range(job.shards)]
    if None in entries:
        raise BadInput(
            f"{job.making}: shard {entries.index(None)} of {job.shards} is missing or damaged; run "
            "the same command again."
        )
    counts = functools.reduce(stats.merge, (entry["account"] for entry in entries))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "set": job.folder.name,
        "copies": job.copies,
        "count": sum(entry["shard"]["records"] for entry in entries),
        "made_from": job.made_from,
        "made_with": functools.reduce(dict.__or__, (entry["made_with"] for entry in entries)),
        "account": counts,
        "warnings": stats.warnings(counts),
        "shards": [entry["shard"] for entry in entries],
        "provenance": provenance.collect(),
    }
    replaced = job.making.with_name(f"{job.making.name}.old")
    with tfrecord_io.disk_errors(f"the set {job.folder.name!r}", job.folder):
        keep = {entry["shard"]["file"] for entry in entries}
        for path in job.making.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in keep and not path.name.endswith(".json"):
                path.unlink()
        _write_json(job.making / "manifest.json", manifest)
        shutil.rmtree(replaced, ignore_errors=True)
        if job.folder.exists():
            os.replace(job.folder, replaced)
        os.replace(job.making, job.folder)
        for name in keep:
            (job.folder / f"{name}.json").unlink()
        shutil.rmtree(replaced, ignore_errors=True)
    return manifest


class TextSet(NamedTuple):
    """A complete set. sha256: of what it was made from and of its shards."""

    folder: Path
    manifest: dict
    sha256: str

    def views(self, examples: Iterable[Example]) -> Iterator[tuple[Example, int, str, str | None]]:
        """(example, copy, prompt, response) of the pool's examples in their order, copies together.

        Raises BadInput where the set holds other rows.
        """
        shards = self.manifest["shards"]
        readers = [tfrecord_io.read(self.folder / shard["file"]) for shard in shards]
        for example in examples:
            reader = readers[shard_of(example.id, len(readers))]
            for copy in range(self.manifest["copies"]):
                row = next(reader, None)
                if row is None or (row["id"].decode(), row["copy"]) != (example.id, copy):
                    raise BadInput(
                        f"{self.folder} has no view {copy} of row {example.id} in its place; make "
                        "the set again."
                    )
                yield example, copy, *_text(row)


def open_set(
    folder: str | Path, *, pool: dict, made_from: dict | None = None, again: str
) -> TextSet:
    """Opens a complete set; its shards are checked against their sha256 by `check`.

    pool: the hashes that it must be of; made_from: all that it must have been made from, where that
    is known; again: the command that makes it, for the message. Raises BadInput for a set that is
    missing, of another pool or made from something else (naming what differs).
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    if not path.is_file():
        raise BadInput(f"there is no augmentation set {folder.name!r} in {folder}; {again}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["schema_version"] != SCHEMA_VERSION:
            raise BadInput(
                f"{path} has schema version {manifest['schema_version']!r} and this code reads "
                f"{SCHEMA_VERSION}; {again}"
            )
        there = manifest["made_from"]
        differences = (
            differences_of({name: there.get(name) for name in pool}, pool)
            if made_from is None
            else differences_of(there, made_from)
        )
        content = [there, manifest["shards"]]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is not the manifest of a set; {again}") from error
    if differences:
        raise BadInput(
            f"the set in {folder} was made from something else ({'; '.join(differences)}); {again}"
        )
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return TextSet(folder, manifest, digest)


def check(text_set: TextSet, *, again: str) -> None:
    """Raises BadInput if a shard is missing or has changed."""
    for shard in text_set.manifest["shards"]:
        path = text_set.folder / shard["file"]
        if not path.is_file() or sha256_file(path) != shard["sha256"]:
            raise BadInput(f"{path} is missing or has changed since it was written; {again}")


_here: dict = {}  # the job of this worker process, and its tools once a shard asked for them


def _work_on(job: Job) -> None:
    _here["job"] = job


def _make_shard_here(shard: int) -> None:
    # Opened here and not on start: what cannot be opened then ends in its own message.
    if "tools" not in _here:
        _here["tools"] = open_tools(_here["job"])
    make_shard(_here["job"], _here["tools"], shard)


def _cost(rewrites: Sequence[dict[str, ops.Rewrite]]) -> str:
    """What the models that count have cost in this process."""
    models = {id(r): r for part in rewrites for r in part.values() if hasattr(r, "account")}
    costs = [model.account.most_cost for model in models.values()]
    return f"cost {sum(costs):.2f}" if costs else ""


def _features(text: gates.Text) -> dict[str, bytes]:
    features = {"prompt": text.prompt.encode()}
    return features if text.response is None else features | {"response": text.response.encode()}


def _text(row: dict) -> gates.Text:
    response = row.get("response")
    return gates.Text(row["prompt"].decode(), None if response is None else response.decode())


def _row(row: dict) -> run.Row:
    return run.Row(row["id"].decode(), _text(row), row["kind"].decode())


def _write_json(path: Path, value: dict) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
