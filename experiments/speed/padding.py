"""Measures padding and order of random batches, buckets and packing on a file's texts.

    python experiments/speed/padding.py my.jsonl "my prompts"     # writes padding.json, then table
    python experiments/speed/padding.py --table                   # prints the table

A file has JSON lines (or .gz) with `prompt`, optionally `response`, and `prompt_harmful`, 0 or 1,
for the balance of batches. Batches are those of the pipeline over an epoch: 16 labelled texts, and
16 unlabelled texts with a TF-IDF strong view each; tokens are MiniLM's. The record has only the
number of texts and their mean length.
"""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ssl_guard.augment import ops
from ssl_guard.data import pipeline
from ssl_guard.data.records import Rows
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.models import resolve
from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import write_json

RECORD = Path(__file__).with_suffix(".json")
BATCH, LENGTHS, LABELLED = 16, (256, 512), (200, 2000)
SORTED = {"sort_by_length": True}
WAYS = {
    "4 buckets": SORTED,
    "16 shapes, windows of 256": SORTED | {"num_shapes": 16, "window_steps": 256},
    "32 shapes, windows of 256": SORTED | {"num_shapes": 32, "window_steps": 256},
    "packing, 4 shapes": {"pack_groups": 1},
    "packing, 4 shapes, windows of 64": {"pack_groups": 1, "window_steps": 64},
}


def views(rows: list[dict], max_length: int) -> tuple[Rows, Rows]:
    """Returns the records of the texts and of their strong views."""
    tokenizer = Tokenizer(resolve("all-MiniLM-L6-v2"), max_length)
    prompts, responses = [row["prompt"] for row in rows], [row.get("response") for row in rows]
    rngs = [np.random.default_rng([0, number]) for number in range(len(rows))]
    rewritten = ops.build("tfidf", prompts, {"p": 0.3})(prompts, rngs)
    labels = [-1 if row["prompt_harmful"] is None else row["prompt_harmful"] for row in rows]

    def records(texts):
        encoded = tokenizer.encode(texts, responses)
        return Rows(
            {"input_ids": text.input_ids, "second": text.second, "label": label, "index": 0}
            for text, label in zip(encoded, labels, strict=True)
        )

    return records(prompts), records([a or b for a, b in zip(rewritten, prompts, strict=True)])


def numbered(records: Rows, rows: np.ndarray) -> Rows:
    """Selects records as a separate view."""
    found = zip(records.gather(rows), range(len(rows)), strict=True)
    return Rows(record | {"index": number} for record, number in found)


def between(values: np.ndarray) -> float:
    """Returns the variance of batch means as a multiple of that of random batches.

    values: [batches, rows]. 1 for random batches, `rows` where all rows of a batch are equal.
    """
    return float(values.mean(axis=1).var() / values.var() * values.shape[1])


def measure(labelled: Rows, weak: Rows | None, strong: Rows | None, max_length: int, way: dict):
    """Measures padding, shapes, and the variance of lengths and labels over batches."""
    batches = pipeline.train_batches(
        labelled,
        weak,
        strong,
        seed=0,
        steps=len(labelled if weak is None else weak) // (256 * BATCH) * 256,
        labelled_batch=BATCH,
        unlabelled_batch=BATCH,
        buckets=[max_length * i // 4 for i in range(1, 5)],
        pad_id=0,
        **way,
    )
    counts, shapes, index = [], set(), []
    for batch in batches:
        counts.append(pipeline.token_counts(batch))
        shapes.add(tuple(v["input_ids"].shape for v in batch.values() if isinstance(v, dict)))
        index.append(batch["labelled"]["index"] if weak is None else batch["index"])
    real, computed = np.sum(counts, axis=0)
    records, index = labelled if weak is None else weak, np.array(index)
    labels = np.array([row["label"] for row in records.gather(range(len(records)))])
    known = (labels[index] >= 0).all(axis=1)
    return {
        "pads": float(1 - real / computed),
        "shapes": len(shapes),
        "lengths": between(records.lengths[index]),
        "labels": between(labels[index][known]),
    }


def random_pads(records: Rows) -> float:
    """Returns the padding share of random batches padded to their longest row."""
    order = np.random.default_rng(0).permutation(len(records) // BATCH * BATCH)
    lengths = records.lengths[order].reshape(-1, BATCH)
    return float(1 - lengths.mean() / lengths.max(axis=1).mean())


def table() -> str:
    """Tabulates padding by method, maximum length and labelled rows; variances for most labels."""
    record = json.loads(RECORD.read_text())
    lines = []
    for length, cells in record["cells"].items():
        pads = f"{100 * cells['random']:.1f}"
        lines.append(
            [length, "random, to the longest", pads, *["-"] * len(LABELLED), "-", "1", "1"]
        )
        for way in WAYS:
            found = [cells[f"{way}, {rows}"] for rows in ("all", *LABELLED)]
            lines.append(
                [length, way, *(f"{100 * cell['pads']:.1f}" for cell in found)]
                + [found[-1]["shapes"], *(f"{found[-1][k]:.1f}" for k in ("lengths", "labels"))]
            )
    headers = ["max_length", "batches", "pads, %: all labelled"]
    headers += [f"{rows:,} labelled" for rows in LABELLED]
    headers += ["shapes", "variance of mean length", "of harmful share"]
    text = tabulate(lines, headers, tablefmt="github", disable_numparse=True)
    means = " and ".join(f"{cells['mean']:.0f}" for cells in record["cells"].values())
    return f"{record['title']}: {record['texts']:,} texts of {means} tokens on average\n\n{text}"


def main(path: str, title: str) -> None:
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    order, cells = np.random.default_rng(0).permutation(len(rows)), {}
    for length in LENGTHS:
        weak, strong = views(rows, length)
        found = {"random": random_pads(weak), "mean": float(weak.lengths.mean())}
        for name, way in WAYS.items():
            found[f"{name}, all"] = measure(weak, None, None, length, way)
            for labelled in LABELLED:
                parts = (
                    numbered(weak, order[:labelled]),
                    *(numbered(view, order[labelled:]) for view in (weak, strong)),
                )
                found[f"{name}, {labelled}"] = measure(*parts, length, way)
        cells[str(length)] = found
    record = {"title": title, "texts": len(rows), "cells": cells}
    write_json(RECORD, record | {"provenance": provenance.collect()})


if __name__ == "__main__":
    if "--table" not in sys.argv:
        main(*sys.argv[1:])
    print(table())
