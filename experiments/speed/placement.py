"""Bytes that a placed state takes on a device and that a compiled program communicates."""

import math
import re
from typing import Any

import jax

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def bytes_per_device(placed: Any) -> int:
    """Bytes that a tree of `sharding.shard_template` takes on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(placed)
    )


def collectives(program: str) -> dict[str, list[int]]:
    """Bytes of every communication in the text of a compiled program (`compiled.as_text()`).

    Returns {"all-reduce": [bytes of each result], ...}. One in a loop counts once.
    """
    found = {}
    line = rf"= (.+?) ({'|'.join(COLLECTIVES)})(-start)?\("
    for shapes, kind, _ in re.findall(line, program):
        sizes = [
            math.prod(int(n) for n in dims.split(",") if n) * max(int(bits or 8) // 8, 1)
            for bits, dims in re.findall(r"\b[a-z]+(\d*)\[([\d,]*)\]", shapes)
        ]
        found.setdefault(kind, []).append(sum(sizes))
    return found
