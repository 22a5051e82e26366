"""Padding shares of random batches, buckets and packing on the texts of a file.

    python experiments/speed/padding.py my.jsonl [--prompts] [--max-length=256] [--batch=16]

The batches are the pipeline's own, over an epoch or a little more; the tokenizer is MiniLM's.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ssl_guard.data import corpora, pipeline
from ssl_guard.data.tfrecord import open_shards, write_shards
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.models import resolve


def shares(records, *, batch: int, buckets: tuple[int, ...]) -> dict[str, float]:
    """{way of batching: share of the computed tokens that are pads}."""
    steps = -(-len(records) // (16 * batch)) * 16
    chosen = dict(seed=0, steps=steps, labelled_batch=batch, unlabelled_batch=0, pad_id=0)

    def share(**options):
        batches = pipeline.train_batches(records, None, None, **chosen, **options)
        real, computed = np.sum([pipeline.token_counts(b) for b in batches], axis=0)
        return float(1 - real / computed)

    order = np.random.default_rng(0).permutation(len(records))
    parts = [records.lengths[order[i : i + batch]] for i in range(0, len(order), batch)]
    computed = sum(part.max() * len(part) for part in parts)
    return {
        f"padded to {buckets[-1]}": float(1 - records.lengths.mean() / buckets[-1]),
        "random batches, padded to the longest": float(1 - records.lengths.sum() / computed),
        "buckets": share(buckets=buckets),
        "packing": share(buckets=buckets, pack_groups=1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--prompts", action="store_true", help="prompts without responses")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    task = "prompt_harm" if arguments.prompts else "response_harm"
    columns = {name: name for name in ("prompt", "response", "label", "id", "category")}
    corpus = corpora.load(
        arguments.file, task=task, data_dir=Path("data"), columns=columns, labels=None
    )
    tokenizer = Tokenizer(resolve("all-MiniLM-L6-v2"), arguments.max_length)
    encoded = tokenizer.encode(
        [e.prompt for e in corpus.examples], [e.response for e in corpus.examples]
    )
    rows = (
        {
            "id": example.id,
            "input_ids": tokens.input_ids,
            "second": tokens.second,
            "cut": tokens.cut,
            "label": 0,
            "index": number,
            "copy": 0,
        }
        for number, (example, tokens) in enumerate(zip(corpus.examples, encoded, strict=True))
    )
    quarters = tuple(arguments.max_length * i // 4 for i in range(1, 5))
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder) / "texts", "texts", rows, num_shards=1, made_from={})
        records = open_shards(Path(folder) / "texts", "texts", made_from={}, rebuild="")
        found = shares(records, batch=arguments.batch, buckets=quarters)
    print(f"{len(records)} texts, {records.lengths.mean():.0f} tokens on average")
    lines = [[name, f"{100 * share:.1f}"] for name, share in found.items()]
    print(tabulate(lines, ["batches", "pads, %"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
