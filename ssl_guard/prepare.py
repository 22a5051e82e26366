"""The offline half of a run: corpus -> frozen split -> augmented, tokenised TFRecord shards.

    python -m ssl_guard.prepare --config=configs/uda.py [--overwrite]

`main` does the same by itself where something is missing. What is there and fits is used as it is;
what was made with other settings is refused, until --overwrite makes it again.

    data/<corpus>/...                          TFDS, prepared once
    data/splits/<corpus>.<task>.<seed>@<n>.json
    data/shards/<split>/<view>/                labelled, unlabelled, dev, test, unlabelled-<op>
"""

import functools
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from ssl_guard import algorithms, cli
from ssl_guard import config as config_module
from ssl_guard.assets import sha256_file
from ssl_guard.augment.run import augment
from ssl_guard.data import corpora, splits, windows
from ssl_guard.data.schema import Example
from ssl_guard.data.tfrecord import Records, open_shards, write_shards
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.errors import BadInput
from ssl_guard.models import pretrained

Row = tuple[Example, int, str, str | None]  # example, copy, prompt, response

SHARDS = 4  # files per view; more only for pools of millions


class Prepared(NamedTuple):
    """A run's data. strong and unlabelled are None when the algorithm has no unlabelled views."""

    labelled: Records
    unlabelled: Records | None
    strong: Records | None
    dev: Records
    test: Records
    test_groups: np.ndarray  # int [test rows]: number of the near-duplicate group of the prompt
    tokenizer: Tokenizer
    model_folder: Path
    texts: dict[str, list[Example]]  # the rows behind labelled, dev and test, in their order
    summary: dict  # counts for the report
    hashes: dict  # of corpus, split, tokenizer, weights


def prepare(config: ConfigDict, *, views: tuple[str, ...], overwrite: bool = False) -> Prepared:
    """Opens the run's shards, making those that are missing.

    views: the algorithm's; without "strong" nothing is augmented. Raises BadInput for anything
    that does not fit the config.
    """
    data = config.data
    model_folder = pretrained.resolve(config.model.name)
    tokenizer = Tokenizer(model_folder, data.max_length)
    values = {value: 1 for value in data.harmful_values} | {value: 0 for value in data.safe_values}
    load = functools.partial(
        corpora.load,
        task=data.task,
        data_dir=Path(data.dir),
        columns=dict(data.columns),
        labels=values or None,
    )
    corpus, given_test = load(data.corpus), frozenset()
    if data.prompt_corpus:
        prompts = load(data.prompt_corpus, task="prompt_harm")
        corpus = corpora.with_prompts(corpus, prompts)
    if data.unlabelled_corpus:
        corpus = corpora.with_unlabelled(corpus, load(data.unlabelled_corpus))
    if data.test_corpus:
        corpus, given_test = corpora.with_test(corpus, load(data.test_corpus))
    split = splits.load_or_freeze(
        corpus,
        Path(data.dir) / "splits",
        seed=config.seed,
        labelled=data.labelled,
        dev=data.dev,
        test=data.test,
        given_test=given_test,
    )
    if views and data.all_labels:
        raise BadInput(
            f"config.data.all_labels leaves {config.algorithm} no unlabelled rows: it is for "
            "methods without any, such as configs/supervised_full.py."
        )
    by_id = {example.id: example for example in corpus.examples}
    rows = {
        view: [by_id[i] for i in getattr(split, view)]
        for view in ("labelled", "unlabelled", "dev", "test")
    }
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
    made_from = {
        "corpus_sha256": corpus.sha256,
        "split_sha256": splits.content_sha256(split),
        "tokenizer_sha256": tokenizer.sha256,
        "max_length": data.max_length,
    }
    folder = Path(data.dir) / "shards" / split.name

    def view(name: str, make, **extra) -> Records:
        settings = made_from | extra
        if overwrite or not (folder / name / "manifest.json").exists():
            write_shards(folder / name, name, make(), num_shards=SHARDS, made_from=settings)
        return open_shards(folder / name, name, made_from=settings, rebuild=rebuild_command())

    records = {"labelled": view(taught_view, lambda: _encode(tokenizer, _originals(taught)))} | {
        name: view(name, lambda name=name: _encode(tokenizer, _originals(rows[name])))
        for name in ("unlabelled", "dev", "test")
        if name != "unlabelled" or views
    }
    op, arguments = config.augment.op, dict(config.augment.get(config.augment.op, {}))
    strong = None
    if "strong" in views:
        strong = view(
            f"unlabelled-{op}",
            lambda: _encode(
                tokenizer,
                augment(
                    rows["unlabelled"],
                    fit_on=rows["labelled"] + rows["unlabelled"],
                    op=op,
                    args=arguments,
                    copies=config.augment.copies,
                    seed=config.seed,
                    progress=sys.stderr.isatty(),
                ),
            ),
            op=op,
            args=arguments,
            copies=config.augment.copies,
            seed=config.seed,
        )
    stride = config.eval.windows
    for name in ("dev", "test") if stride else ():
        parts = view(
            f"{name}-windows",
            lambda name=name: _encode_windows(tokenizer, rows[name], stride),
            stride=stride,
        )
        records[name] = windows.Windowed(records[name], parts)
    groups = np.empty(len(rows["test"]), np.int64)
    for number, members in enumerate(
        splits.near_duplicate_groups([e.prompt for e in rows["test"]])
    ):
        groups[members] = number
    return Prepared(
        labelled=records["labelled"],
        unlabelled=records.get("unlabelled"),
        strong=strong,
        dev=records["dev"],
        test=records["test"],
        test_groups=groups,
        tokenizer=tokenizer,
        model_folder=model_folder,
        texts={"labelled": taught, "dev": rows["dev"], "test": rows["test"]},
        summary=_summary(corpus, split, rows, records | {"strong": strong}, groups)
        | {"labels_used": len(taught)},
        hashes=made_from | {"weights_sha256": sha256_file(model_folder / "model.safetensors")},
    )


def _summary(
    corpus, split, rows: dict[str, list[Example]], records: dict[str, Records | None], groups
) -> dict:
    """Counts for the report: rows and harmful rows per side, rows that were cut, groups."""
    strong = records["strong"]
    windowed = {name: r for name, r in records.items() if isinstance(r, windows.Windowed)}
    cut = {name: r.manifest["cut_rows"] for name, r in records.items() if r is not None}
    return {
        "corpus": corpus.name,
        "task": corpus.task,
        "licence": corpus.licence,
        "split": split.name,
        "rows": {name: len(examples) for name, examples in rows.items()},
        "harmful": {
            name: sum(example.label == 1 for example in examples) for name, examples in rows.items()
        },
        "rows_longer_than_max_length": cut,
        "windows": {name: len(r.windows) for name, r in windowed.items()},
        "repeated_views": 0.0 if strong is None else strong.manifest["repeated_share"],
        "test_groups": int(groups.max()) + 1,
    }


def rebuild_command() -> str:
    """The command that makes this run's shards again."""
    given = [argument for argument in sys.argv[1:] if argument.startswith("--config")]
    return " ".join(["python -m ssl_guard.prepare", *(given or ["--config=CONFIG"]), "--overwrite"])


def _originals(examples: list[Example]) -> Iterator[Row]:
    for example in examples:
        yield example, 0, example.prompt, example.response


def _encode(tokenizer: Tokenizer, rows: Iterable[Row]) -> Iterator[dict]:
    """Tokenised records of the rows; copies of an example stand together."""
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


def _encode_windows(tokenizer: Tokenizer, rows: list[Example], stride: int) -> Iterator[dict]:
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


def main(argv: list[str]) -> None:
    config = cli.required(CONFIG, "config")
    config_module.check(config)
    views = ()
    if config.algorithm not in algorithms.FITTED:
        views = algorithms.build(config.algorithm, **config[config.algorithm]).views
    prepared = prepare(config, views=views, overwrite=OVERWRITE.value)
    print(json.dumps(prepared.summary, indent=1))


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.")
    OVERWRITE = flags.DEFINE_bool("overwrite", False, "Makes shards again that are there.")
    cli.run(main)
