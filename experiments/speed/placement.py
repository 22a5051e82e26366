"""Computes bytes per device of a sharded state, and the communication of a program."""

import math
import re
from typing import Any

import jax

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def bytes_per_device(placed: Any) -> int:
    """Returns the bytes per device of a tree from `sharding.shard_template`."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(placed)
    )


def collectives(program: str) -> dict[str, list[int]]:
    """Finds the collectives in the text of a compiled program (`compiled.as_text()`).

    Returns {"all-reduce": [bytes of each result], ...}. A collective in a loop counts once.
    """
    found: dict[str, list[int]] = {}
    line = rf"= (.+?) ({'|'.join(COLLECTIVES)})(-start)?\("
    for shapes, kind, _ in re.findall(line, program):
        sizes = [
            math.prod(int(n) for n in dims.split(",") if n) * max(int(bits or 8) // 8, 1)
            for bits, dims in re.findall(r"\b[a-z]+(\d*)\[([\d,]*)\]", shapes)
        ]
        found.setdefault(kind, []).append(sum(sizes))
    return found
