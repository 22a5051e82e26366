"""Makes augmentation sets: stages the pool, writes the shards, puts the finished set in place.

    data/augmented/<split>/.<set>.making/   an unfinished set
        <set>.tfrecord-*                    finished shards, each with its statistics in *.json
        rows/                               the pool, sharded like the set, and the texts to fit on

A worker needs only the job and a shard's number. A shard gets its name when it is complete, so a
killed run loses at most the shards in progress. Its bytes do not depend on who makes it: this
process, several processes, or Apache Beam.
"""

import concurrent.futures
import contextlib
import functools
import inspect
import itertools
import json
import multiprocessing
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from tqdm import tqdm

from ssl_guard.augment import gates, ops, recipe, run, stats
from ssl_guard.augment.job import Job
from ssl_guard.augment.text_set import SCHEMA_VERSION, record, shard_of, text_of
from ssl_guard.data import tfrecord_io
from ssl_guard.data.schema import HARMFUL, Example
from ssl_guard.data.shards import differences_of
from ssl_guard.errors import BadInput
from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import sha256_file, write_json

CHUNK = 256  # rows that an operation gets at a time


class Tools(NamedTuple):
    """The parsed recipe, fitted operations of prompts and of responses, and loaded gates."""

    stages: tuple[recipe.Stage, ...]
    rewrites: tuple[dict[str, ops.Rewrite], ...]
    gates: tuple[gates.Gate, ...]


def make_set(
    job: Job,
    examples: Sequence[Example],
    *,
    fit_on: Sequence[Example],
    kinds: Iterable[str] | None = None,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = False,
) -> dict:
    """Makes a set, or its missing shards, in local processes and returns its manifest.

    kinds: class of every example for the statistics, of stats.CLASSES; their labels by default.
    Raises BadInput as `stage` does, and if the disk is full.
    """
    stage(job, examples, fit_on=fit_on, kinds=kinds, overwrite=overwrite)
    missing = missing_shards(job)
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
                min(workers, len(missing)), mp_context=multiprocessing.get_context("spawn")
            ) as pool:
                futures = {pool.submit(_make_shard_here, job, shard): shard for shard in missing}
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
    """Writes the pool, sharded like the set, and the texts to fit on.

    Raises BadInput for an unfinished set of another recipe or pool, unless overwrite is set.
    """
    rows = job.partial / "rows"
    with tfrecord_io.disk_errors(f"the set {job.folder.name!r}", job.partial):
        if overwrite:
            shutil.rmtree(job.partial, ignore_errors=True)
        shutil.rmtree(rows, ignore_errors=True)
        rows.mkdir(parents=True)
        missing_shards(job)
        if kinds is None:
            kinds = map(kind_of, examples)
        with contextlib.ExitStack() as stack:
            paths = [rows / job.file(shard) for shard in range(job.shards)]
            files = [stack.enter_context(path.open("wb")) for path in paths]
            for example, kind in zip(examples, kinds, strict=True):
                text = gates.Text(example.prompt, example.response)
                row = record(text, id=example.id.encode(), kind=kind.encode())
                files[shard_of(example.id, job.shards)].write(row)
        with (rows / "texts").open("wb") as file:
            for fitted in distinct_texts(fit_on):
                file.write(tfrecord_io.frame(tfrecord_io.serialise({"text": fitted.encode()})))


def kind_of(example: Example) -> str:
    """Returns the class of an example by its label, for the statistics."""
    if example.label is None:
        return "unknown"
    return "harmful" if example.label == HARMFUL else "safe"


def open_tools(job: Job) -> Tools:
    """Fits the operations on the staged texts and opens the gates."""
    stages = recipe.parse(job.ops)

    def texts() -> Iterator[str]:
        rows: Iterator[dict] = tfrecord_io.read(job.partial / "rows" / "texts")
        return (row["text"].decode() for row in rows)

    rewrites = open_rewrites(job, stages, texts)
    judges = () if job.judges is None else job.judges()
    return Tools(stages, rewrites, (*gates.build(**job.gates), *judges))


def open_rewrites(
    job: Job, stages: Sequence[recipe.Stage], texts: Callable[[], Iterable[str]]
) -> tuple[dict[str, ops.Rewrite], ...]:
    """Builds the operations of the stages, by name, for prompts and for responses.

    Both share an operation unless it takes the argument `part`. texts() gives the texts to fit on.
    """
    rewrites: tuple[dict, ...] = ({}, {})
    for name in recipe.names(stages):
        arguments = job.arguments.get(name, {})
        parts = inspect.signature(ops.OPS[name]).parameters.keys() & {"part"} - arguments.keys()
        for found, part in zip(rewrites, ("prompt", "response"), strict=True):
            if parts or found is rewrites[0]:
                found[name] = ops.build(name, texts(), arguments | dict.fromkeys(parts, part))
            else:
                found[name] = rewrites[0][name]
    return rewrites


def distinct_texts(examples: Iterable[Example]) -> Iterable[str]:
    """Returns the distinct prompts and responses in order of appearance."""
    return dict.fromkeys(t for e in examples for t in (e.prompt, e.response) if t is not None)


def make_shard(
    job: Job, tools: Tools, shard: int, advance: Callable[[int], None] | None = None
) -> None:
    """Writes one shard and then its statistics. Calls advance(views) after every chunk."""
    path = job.partial / job.file(shard)
    temporary = job.partial / f".{path.name}.{secrets.token_hex(4)}"
    counts: dict = {}
    records = 0
    with tfrecord_io.disk_errors(f"the set {job.folder.name!r}", job.partial):
        with temporary.open("wb") as file:
            staged = tfrecord_io.read(job.partial / "rows" / job.file(shard))
            while chunk := [_row(row) for row in itertools.islice(staged, CHUNK)]:
                views, part = run.augment(chunk, *tools, copies=job.copies, seed=job.seed)
                counts = stats.merge(counts, part)
                for view in views:
                    row_id, op = view.id.encode(), view.op.encode()
                    file.write(record(view.text, id=row_id, copy=view.copy, op=op))
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
        write_json(path.with_name(f"{path.name}.json"), entry)


def finished(job: Job, shard: int) -> dict | None:
    """Returns the entry beside a complete shard, or None if the shard has to be made.

    Raises BadInput if the shard was made with another recipe or from another pool.
    """
    path = job.partial / job.file(shard)
    try:
        entry = json.loads(path.with_name(f"{path.name}.json").read_text())
        differences = differences_of(entry["made_from"], job.made_from)
        whole = path.is_file() and sha256_file(path) == entry["shard"]["sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if differences:
        raise BadInput(
            f"{job.partial} holds a part of a set that was made from something else "
            f"({'; '.join(differences)}); finish that one with its own config, give this one "
            "another config.augment.name, or start it over with --overwrite."
        )
    return entry if whole else None


def missing_shards(job: Job) -> list[int]:
    """Returns the numbers of the shards that have to be made. Raises BadInput as `finished`."""
    return [shard for shard in range(job.shards) if finished(job, shard) is None]


def finish(job: Job) -> dict:
    """Moves the finished set to its folder and returns its manifest.

    Raises BadInput if a shard is missing.
    """
    entries = []
    for shard in range(job.shards):
        if (entry := finished(job, shard)) is None:
            raise BadInput(
                f"{job.partial}: shard {shard} of {job.shards} is missing or damaged; run the same "
                "command again."
            )
        entries.append(entry)
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
    replaced = job.partial.with_name(f"{job.partial.name}.old")
    with tfrecord_io.disk_errors(f"the set {job.folder.name!r}", job.folder):
        keep = {entry["shard"]["file"] for entry in entries}
        for path in job.partial.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in keep and not path.name.endswith(".json"):
                path.unlink()
        write_json(job.partial / "manifest.json", manifest)
        shutil.rmtree(replaced, ignore_errors=True)
        if job.folder.exists():
            os.replace(job.folder, replaced)
        os.replace(job.partial, job.folder)
        for name in keep:
            (job.folder / f"{name}.json").unlink()
        shutil.rmtree(replaced, ignore_errors=True)
    return manifest


_opened: list[Tools] = []  # of a worker process, which works on one job


def _make_shard_here(job: Job, shard: int) -> None:
    # Opened here and not when the process starts, so that its BadInput reaches the parent.
    if not _opened:
        _opened.append(open_tools(job))
    make_shard(job, _opened[0], shard)


def _cost(rewrites: Sequence[dict[str, ops.Rewrite]]) -> str:
    """Returns the cost of the models used in this process, for the progress bar."""
    models = {id(r): r for part in rewrites for r in part.values() if hasattr(r, "account")}
    costs = [model.account.most_cost for model in models.values()]
    return f"cost {sum(costs):.2f}" if costs else ""


def _row(row: dict) -> run.Row:
    return run.Row(row["id"].decode(), text_of(row), row["kind"].decode())
