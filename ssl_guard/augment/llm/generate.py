"""Writes new prompts for the unlabelled pool: harmful ones, or harmless look-alikes.

Each is written from a harmful prompt of the training split. The requested kind is recorded and is
never a label, since models do not always comply: the rows are unlabelled. An interrupted run
continues from config.augment.llm.cache.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ssl_guard.augment.llm import rewrite
from ssl_guard.data import duplicates
from ssl_guard.data.corpora import user_file
from ssl_guard.data.schema import HARMFUL, Example
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import check_folder, write_jsonl

TEMPLATES = {"harmful": "generate_harmful", "safe": "generate_lookalike"}
CHUNK = 256  # prompts per batch of requests


def sources_of(path: str | Path) -> list[Example]:
    """Reads the harmful rows of a file. Raises BadInput if it is invalid or has none."""
    rows = user_file.read(user_file.configure(path, "prompt_harm"))
    harmful = [row for row in rows if isinstance(row, Example) and row.label == HARMFUL]
    if not harmful:
        raise BadInput(f"{path} has no row labelled harmful; add harmful prompts to write from.")
    return harmful


def generate(
    sources: Sequence[Example], rewriter: rewrite.Rewriter, *, copies: int, seed: int
) -> Iterator[tuple[str, str]]:
    """Yields (id, prompt) of the usable answers, copies of a source together.

    id: the first 16 digits of the cache key.
    """
    rows = [(source, copy) for source in sources for copy in range(copies)]
    for start in tqdm(range(0, len(rows), CHUNK), desc="generate", unit="chunk", disable=None):
        chunk = rows[start : start + CHUNK]
        texts = [source.prompt for source, _ in chunk]
        keys = rewriter.keys(texts, rngs(chunk, seed))
        prompts = rewriter(texts, rngs(chunk, seed))
        yield from ((key[:16], prompt) for key, prompt in zip(keys, prompts, strict=True) if prompt)


def distinct(sources: Sequence[Example], rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns the first row of each group of near-duplicates that holds no source."""
    texts = [source.prompt for source in sources] + [prompt for _, prompt in rows]
    groups = duplicates.near_duplicate_groups(texts)
    firsts = [group[0] - len(sources) for group in groups]  # negative: a source, as they come first
    return [rows[first] for first in firsts if first >= 0]


def rngs(rows: Sequence[tuple[Example, int]], seed: int) -> list[np.random.Generator]:
    """Returns one generator per row, seeded by seed, source id and copy."""
    digests = [hashlib.sha256(source.id.encode()).digest() for source, _ in rows]
    return [
        np.random.default_rng([seed, copy, *np.frombuffer(digest, "<u4")])
        for digest, (_, copy) in zip(digests, rows, strict=True)
    ]


def rewriter_of(intended: str, arguments: dict) -> rewrite.Rewriter:
    """Opens the model of config.augment.llm with the template of the intended kind."""
    return rewrite.llm((), **arguments | {"template": TEMPLATES[intended]})


def estimate(sources: Sequence[Example], rewriter: rewrite.Rewriter, *, copies: int, seed: int):
    """Estimates requests, tokens and cost (`rewrite.Estimate`) and sends nothing."""
    rows = [(source, copy) for source in sources for copy in range(copies)]
    return rewriter.estimate([source.prompt for source, _ in rows], rngs(rows, seed))


def write(
    out: str | Path,
    sources: Sequence[Example],
    rewriter: rewrite.Rewriter,
    *,
    intended: str,
    copies: int,
    seed: int,
) -> str:
    """Writes the distinct prompts as JSON lines and returns a summary."""
    check_folder(Path(out).parent, "--out")
    written = list(generate(sources, rewriter, copies=copies, seed=seed))
    kept = distinct(sources, written)
    about = {"intended": intended, **rewriter.manifest}
    write_jsonl(out, ({"id": row_id, "prompt": prompt, **about} for row_id, prompt in kept))
    asked = len(sources) * copies
    return (
        f"{out}: {len(kept)} prompts; left out {asked - len(written)} that could not be used and "
        f"{len(written) - len(kept)} near-duplicates; {rewriter.usage.requests} requests, cost "
        f"{rewriter.usage.most_cost:.4f}"
    )
