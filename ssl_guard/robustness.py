"""How much of the recall is left when harmful texts are obfuscated."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from ssl_guard.augment import ops
from ssl_guard.bootstrap import mean_interval
from ssl_guard.data.schema import Example

# Strength of the operations of augment/ that hide words; others have the defaults of their own.
ARGUMENTS = {
    "leetspeak": {"p": 0.5},
    "spacing": {"p": 0.5},
    "homoglyphs": {"p": 0.3},
    "zero_width": {"p": 0.5},
    "masking": {"p": 0.5},
    "encoded": {"words": 3},
    "tfidf": {"p": 0.3},
}


def recall_drop(
    score: Callable[[Sequence[Example]], np.ndarray],
    examples: Sequence[Example],
    caught: np.ndarray,
    groups: np.ndarray,
    op: str,
    *,
    threshold: float,
    resamples: int,
) -> dict:
    """{"arguments", "rows", "recall", "drop", "low", "high"} of one operation of augment/ops.py.

    examples: harmful rows; caught: bool [rows], is the row as it is above the threshold; groups:
    int [rows]. drop is the recall on the rows as they are less that on their rewrites, with a
    paired 95% bootstrap interval. Rows that the operation has no rewrite of are in neither: `rows`
    are left. Prompt and response are rewritten apart, each from its own randomness.
    """
    views = rewritten(examples, op)
    kept = np.array([i for i, view in enumerate(views) if view is not None], int)
    arguments = ARGUMENTS.get(op, {})
    if not len(kept):
        return {"arguments": arguments, "rows": 0}
    still = score([views[i] for i in kept]) >= threshold
    drop = mean_interval(caught[kept] * 1.0 - still, groups[kept], resamples=resamples)
    return {
        "arguments": arguments,
        "rows": len(kept),
        "recall": float(still.mean()),
        "drop": drop.value,
        "low": drop.low,
        "high": drop.high,
    }


def rewritten(examples: Sequence[Example], op: str) -> list[Example | None]:
    """Every example with its texts rewritten, None where the operation has nothing to give.

    Raises BadInput for an unknown operation.
    """
    parts = [
        (i, field, text)
        for i, example in enumerate(examples)
        for field in ("prompt", "response")
        if (text := getattr(example, field)) is not None
    ]
    texts = [text for *_, text in parts]
    rewrite = ops.build(op, dict.fromkeys(texts), ARGUMENTS.get(op, {}))
    rngs = [_rng(examples[i].id, field) for i, field, _ in parts]
    views: list[dict] = [{} for _ in examples]
    for (i, field, _), text in zip(parts, rewrite(texts, rngs), strict=True):
        views[i][field] = text
    return [
        None if None in view.values() else dataclasses.replace(example, **view)
        for example, view in zip(examples, views, strict=True)
    ]


def _rng(row_id: str, field: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{field}:{row_id}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, "<u4"))
