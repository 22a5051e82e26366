"""Dropout whose mask is a hash of where a number stands, instead of a stream of random numbers.

jax.random's threefry took a quarter of a training step's time on CPU. Here every number gets 32
bits from its coordinates: the step's key, its row's place in the global batch, the dropout site in
the model, and its position inside the row. A row therefore draws the same mask on one device or on
eight, alone or in a batch, and whatever the padded length.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

# Odd constants, one per axis of a row, that no small combination brings back to 0 modulo 2^32.
_STRIDES = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)

Seeds = UInt32[Array, "batch 2"] | UInt32[Array, "batch length 3"]  # row_seeds, token_seeds


def _mix(h: UInt32[Array, "..."], word: UInt32[Array, "..."] | int = 0) -> UInt32[Array, "..."]:
    """The integer hash lowbias32 (C. Wellons, "Prospecting for hash functions", 2018), with a
    second word entering after the first multiplication: 64 bits of key instead of 32."""
    h = (h ^ (h >> 16)) * np.uint32(0x7FEB352D) ^ word
    h = (h ^ (h >> 15)) * np.uint32(0x846CA68B)
    return h ^ (h >> 16)


def row_seeds(rng: Key[Array, ""] | UInt32[Array, "2"], row: Int[Array, "batch"]):
    """Two words for every row, uint32 [batch, 2], from the step's key and the rows' places."""
    words = jax.random.bits(rng, (*(1 for _ in row.shape), 2), jnp.uint32)
    return _mix(words + _mix(row.astype(jnp.uint32))[..., None])


def token_seeds(rng, text: Int[Array, "batch length"], position: Int[Array, "batch length"]):
    """The seeds of packed rows, uint32 [batch, length, 3]: for every token the two words of its
    text's row and its position in the text. Dropout then keeps what it keeps in unpacked rows."""
    place = position.astype(jnp.uint32)[..., None]
    return jnp.concatenate([row_seeds(rng, text), place], axis=-1)


def random_bits(shape: tuple[int, ...], seeds: Seeds, site: int) -> UInt32[Array, "batch ..."]:
    """32 bits for every number of an array [batch, ...].

    With the seeds of packed rows the shape is [batch, length, ...], or [batch, attn, length,
    length], where the first `length` is the one of the token that the row of numbers belongs to.
    """
    words = _mix(seeds[..., :2] + np.uint32(site * _STRIDES[0] % 2**32))
    packed = seeds.ndim == 3
    tokens = (len(shape) - 2, len(shape) - 1) if len(shape) == 4 else (1,)

    def along(x, axis):  # [batch] or [batch, length], the length as that axis of the shape
        axes = [n if i == 0 or (packed and i == axis) else 1 for i, n in enumerate(shape)]
        return x.reshape(axes)

    first, second = (along(words[..., i], tokens[0]) for i in (0, 1))
    position = first
    for axis, stride in enumerate(_STRIDES[: len(shape) - 1], start=1):
        if packed and axis in tokens:
            count = along(seeds[..., 2], axis)
        else:
            axes = [n if i == axis else 1 for i, n in enumerate(shape)]
            count = jax.lax.broadcasted_iota(jnp.uint32, axes, axis)
        position = position + count * np.uint32(stride)
    return _mix(position, second)


def keep_mask(shape: tuple[int, ...], rate: float, seeds: Seeds, site: int):
    """True where a number is kept, bool [batch, ...]: each with probability 1 - rate."""
    return random_bits(shape, seeds, site) >= np.uint32(round(rate * 2**32))


def dropout(
    x: Float[Array, "batch ..."],
    rate: float,
    seeds: Seeds | None,
    site: int,
) -> Float[Array, "batch ..."]:
    """Inverted dropout of `x`, at most four axes with the batch first; `x` itself without seeds.

    `site` numbers the dropouts of a model: two sites of one row draw unrelated masks.
    """
    if seeds is None or rate == 0:
        return x
    return jnp.where(keep_mask(x.shape, rate, seeds, site), x * (1 / (1 - rate)), 0)
