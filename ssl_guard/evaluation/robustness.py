"""Measures the recall on obfuscated harmful texts."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssl_guard.augment import ops
from ssl_guard.data.schema import Example
from ssl_guard.evaluation.bootstrap import mean_interval

# Strength of the operations of augment/ that hide words; others use their defaults.
ARGUMENTS: dict[str, dict] = {
    "leetspeak": {"p": 0.5},
    "spacing": {"p": 0.5},
    "homoglyphs": {"p": 0.3},
    "zero_width": {"p": 0.5},
    "masking": {"p": 0.5},
    "encoded": {"words": 3},
    "tfidf": {"p": 0.3},
}


class Attack(NamedTuple):
    """Rows obfuscated by an operation of augment/ops.py.

    views: the rewritten rows; places: int [views], their positions among the rows.
    """

    op: str
    places: np.ndarray
    views: list[Example]


def attack(examples: Sequence[Example], op: str) -> Attack:
    """Rewrites prompt and response separately, each with its own generator. Raises BadInput for an
    unknown operation."""
    views = rewritten(examples, op)
    places = np.array([i for i, view in enumerate(views) if view is not None], int)
    return Attack(op, places, [views[i] for i in places])


def recall_drop(
    attacked: Attack,
    before: np.ndarray,
    after: np.ndarray,
    groups: np.ndarray,
    *,
    threshold: float,
    resamples: int,
) -> dict:
    """Computes the drop of recall under an attack on harmful rows.

    Returns {"arguments", "rows", "recall", "drop", "low", "high"}, the last four if rows > 0.

    before, groups: float and int [rows], of the original rows; after: float [views]. drop is the
    recall on the original rows minus that on their views, with a paired 95% bootstrap interval.
    Rows without a view or without a score of it are excluded; `rows` counts the rest.
    """
    scored = np.isfinite(after)
    places, arguments = attacked.places[scored], ARGUMENTS.get(attacked.op, {})
    if not len(places):
        return {"arguments": arguments, "rows": 0}
    caught, still = before[places] >= threshold, after[scored] >= threshold
    drop = mean_interval(caught * 1.0 - still, groups[places], resamples=resamples)
    return {
        "arguments": arguments,
        "rows": len(places),
        "recall": float(still.mean()),
        "drop": drop.value,
        "low": drop.low,
        "high": drop.high,
    }


def rewritten(examples: Sequence[Example], op: str) -> list[Example | None]:
    """Rewrites the texts of each example; None where the operation has no rewrite."""
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
