"""Writes new prompts of a kind for the unlabelled pool: harmful ones, and harmless look-alikes.

    python -m ssl_guard.augment.llm.generate --config=configs/augment/llm.py \\
        --sources=labelled.jsonl --intended=safe --out=lookalikes.jsonl

A source is a harmful prompt of the training side; the other rows of the file are left alone. What
the model was asked for, `intended`, is written down and is never a label: models miss, and the rows
are unlabelled text. The same command continues an interrupted run, from config.augment.llm.cache.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import config_flags
from tqdm import tqdm

from ssl_guard import cli
from ssl_guard.augment.llm import rewrite
from ssl_guard.data import duplicates
from ssl_guard.data.corpora import user_file
from ssl_guard.data.schema import HARMFUL, Example
from ssl_guard.errors import BadInput

TEMPLATES = {"harmful": "generate_harmful", "safe": "generate_lookalike"}
CHUNK = 256  # prompts asked for together

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/; its augment.llm.")
SOURCES = flags.DEFINE_string("sources", None, "A file of prompts with labels.")
OUT = flags.DEFINE_string("out", None, "The JSON lines to write.")
INTENDED = flags.DEFINE_enum("intended", None, list(TEMPLATES), "What to ask the model for.")
COPIES = flags.DEFINE_integer("copies", 1, "Prompts to ask for from each source.", 1)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what it would cost, and ask nothing.")


def sources_of(path: str | Path) -> list[Example]:
    """The harmful rows of a file. Raises BadInput for any fault of it, or if it has none."""
    rows = user_file.read(user_file.configure(path, "prompt_harm"))
    harmful = [row for row in rows if row.label == HARMFUL]
    if not harmful:
        raise BadInput(f"{path} has no row that is labelled harmful: prompts are made from those.")
    return harmful


def generate(
    sources: Sequence[Example], rewriter: rewrite.Rewriter, *, copies: int, seed: int
) -> Iterator[tuple[str, str]]:
    """(id, prompt) of every prompt that the model writes, copies of a source together.

    The id is the beginning of the cache key. An answer that cannot be used gives no row.
    """
    rows = [(source, copy) for source in sources for copy in range(copies)]
    for start in tqdm(range(0, len(rows), CHUNK), desc="generate", unit="chunk", disable=None):
        chunk = rows[start : start + CHUNK]
        texts = [source.prompt for source, _ in chunk]
        keys = rewriter.keys(texts, _rngs(chunk, seed))
        prompts = rewriter(texts, _rngs(chunk, seed))
        yield from ((key[:16], prompt) for key, prompt in zip(keys, prompts, strict=True) if prompt)


def distinct(sources: Sequence[Example], rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The first row of each group of near-duplicates, of groups that hold no source."""
    texts = [source.prompt for source in sources] + [prompt for _, prompt in rows]
    groups = duplicates.near_duplicate_groups(texts)
    firsts = [group[0] - len(sources) for group in groups]  # negative: a source, as they come first
    return [rows[first] for first in firsts if first >= 0]


def _rngs(rows: Sequence[tuple[Example, int]], seed: int) -> list[np.random.Generator]:
    digests = [hashlib.sha256(source.id.encode()).digest() for source, _ in rows]
    return [
        np.random.default_rng([seed, copy, *np.frombuffer(digest, "<u4")])
        for digest, (_, copy) in zip(digests, rows, strict=True)
    ]


def main(argv: list[str]) -> None:
    config, out = cli.required(CONFIG, "config"), Path(cli.required(OUT, "out"))
    intended = cli.required(INTENDED, "intended")
    if "llm" not in config.augment:
        raise BadInput("the config has no group config.augment.llm: say there which model to ask.")
    sources = sources_of(cli.required(SOURCES, "sources"))
    arguments = dict(config.augment.llm) | {"template": TEMPLATES[intended]}
    rewriter = rewrite.llm((), **arguments)
    if DRY_RUN.value:
        rows = [(source, copy) for source in sources for copy in range(COPIES.value)]
        texts = [source.prompt for source, _ in rows]
        print(json.dumps(rewriter.estimate(texts, _rngs(rows, config.seed))._asdict()))
        return
    written = list(generate(sources, rewriter, copies=COPIES.value, seed=config.seed))
    kept = distinct(sources, written)
    about = {"intended": intended, **rewriter.manifest}
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(temporary, "w", encoding="utf-8") as file:
        for row_id, prompt in kept:
            file.write(json.dumps({"id": row_id, "prompt": prompt, **about}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, out)
    account, asked = rewriter.account, len(sources) * COPIES.value
    print(
        f"{out}: {len(kept)} prompts; left out {asked - len(written)} that could not be used and "
        f"{len(written) - len(kept)} near-duplicates; {account.requests} requests, cost "
        f"{account.most_cost:.4f}"
    )


if __name__ == "__main__":
    cli.run(main)
