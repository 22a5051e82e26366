"""Times DeBERTa's relative position terms, shifted and gathered, forward and backward.

    python experiments/speed/deberta.py              # measures deberta.json, writes the table
    python experiments/speed/deberta.py --table      # prints the table

Computes a layer's attention scores at the size of deberta-v3-base: content, content to position,
position to content. The reference gathers the score of each pair of tokens from the table of
buckets, for every row and head. models/deberta.py multiplies with the 2 length - 1 distances and
shifts. Both take turns in one process; the record has their largest difference.
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tabulate import tabulate

from ssl_guard.models.deberta import DebertaConfig, rows_of_distances
from ssl_guard.models.layers import shift
from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import write_json

RECORD = Path(__file__).with_suffix(".json")
ATTN, HEAD, TOKENS, ROUNDS = 12, 64, 2048, 7
CONFIG = DebertaConfig(
    hidden_size=ATTN * HEAD,
    num_attention_heads=ATTN,
    position_buckets=256,
    max_relative_positions=512,
    relative_attention=True,
    pos_att_type=("c2p", "p2c"),
)


def plain(query, key, table_key, table_query):
    """Computes content scores only, as BERT."""
    return jnp.einsum("bqhd,bkhd->bhqk", query, key)


def shifted(query, key, table_key, table_query):
    """Computes scores as models/deberta.py."""
    length = query.shape[1]
    rows = rows_of_distances(CONFIG, length - 1 - np.arange(2 * length - 1))
    c2p = shift(jnp.einsum("bqhd,mhd->bhqm", query, table_key[rows]))
    p2c = shift(jnp.einsum("bkhd,mhd->bhkm", key, table_query[rows[::-1]]))
    return plain(query, key, table_key, table_query) + c2p + p2c.swapaxes(2, 3)


def gathered(query, key, table_key, table_query):
    """Computes scores with every bucket and gathers those of each pair of tokens."""
    places = np.arange(query.shape[1])
    rows = rows_of_distances(CONFIG, places[:, None] - places[None])[None, None]
    c2p = jnp.einsum("bqhd,mhd->bhqm", query, table_key)
    p2c = jnp.einsum("bkhd,mhd->bhkm", key, table_query)
    # From the key's side, the distance of a pair is that of (query, key), transposed.
    p2c = jnp.take_along_axis(p2c, rows.swapaxes(2, 3), axis=3).swapaxes(2, 3)
    return plain(query, key, table_key, table_query) + jnp.take_along_axis(c2p, rows, axis=3) + p2c


def measure(length: int) -> dict:
    """Times each function forward and with the gradient, in turns, in seconds."""
    rng = np.random.default_rng(length)
    shape = (TOKENS // length, length, ATTN, HEAD)
    inputs = [rng.normal(size=shape) for _ in range(2)]
    inputs += [rng.normal(size=(2 * CONFIG.span, ATTN, HEAD)) for _ in range(2)]
    inputs = [jnp.asarray(x, jnp.float32) for x in inputs]
    ways = {}
    for way in (plain, shifted, gathered):
        ways[way.__name__, "forward"] = jax.jit(way)
        loss = lambda *inputs, way=way: jnp.square(way(*inputs)).sum()  # noqa: E731
        ways[way.__name__, "with gradient"] = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))
    results = {name: jax.block_until_ready(step(*inputs)) for name, step in ways.items()}
    difference = jnp.abs(results["shifted", "forward"] - results["gathered", "forward"]).max()
    seconds = {name: [] for name in ways}
    for number in range(ROUNDS):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            start = time.perf_counter()
            jax.block_until_ready(ways[name](*inputs))
            seconds[name].append(time.perf_counter() - start)
    return {
        "seconds": {f"{way}, {mode}": values for (way, mode), values in seconds.items()},
        "largest_difference": float(difference),
        "largest_score": float(jnp.abs(results["gathered", "forward"]).max()),
    }


def table() -> str:
    """Tabulates medians in milliseconds and the ratio of gathered to shifted per round."""
    rows = []
    for length, record in json.loads(RECORD.read_text())["lengths"].items():
        for mode in ("forward", "with gradient"):
            times = {way: np.array(record["seconds"][f"{way}, {mode}"]) for way in
                     ("plain", "shifted", "gathered")}  # fmt: skip
            ratio = times["gathered"] / times["shifted"]
            medians = [f"{1000 * np.median(t):.0f}" for t in times.values()]
            spread = f"{np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}]"
            rows.append([length, mode, *medians, spread])
    titles = [
        "length",
        "",
        "contents alone, ms",
        "shifted, ms",
        "gathered, ms",
        "gathered / shifted",
    ]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    if "--table" not in sys.argv:
        lengths = {str(length): measure(length) for length in (128, 256)}
        write_json(RECORD, {"lengths": lengths, "provenance": provenance.collect()})
    print(table())
