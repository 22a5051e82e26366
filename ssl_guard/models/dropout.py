"""Stateless dropout: the mask is a hash of each element's coordinates.

jax.random's threefry took a quarter of a training step's time on CPU. Here every element gets 32
bits hashed from the step's key, its row's index in the global batch, the dropout site in the model,
and its position inside the row. The mask of a row therefore does not depend on the number of
devices, the batch it is in, or the padded length.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

# Odd constants, one per axis of a row; no small combination of them is 0 modulo 2^32.
_STRIDES = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)

Seeds = UInt32[Array, "batch 2"] | UInt32[Array, "batch length 3"]  # row_seeds, token_seeds


def _mix(h: UInt32[Array, "..."], word: UInt32[Array, "..."] | int = 0) -> UInt32[Array, "..."]:
    """Computes the integer hash lowbias32 (C. Wellons, "Prospecting for hash functions", 2018).

    A second key word is added after the first multiplication: 64 key bits instead of 32.
    """
    h = (h ^ (h >> 16)) * np.uint32(0x7FEB352D) ^ word
    h = (h ^ (h >> 15)) * np.uint32(0x846CA68B)
    return h ^ (h >> 16)


def row_seeds(rng: Key[Array, ""] | UInt32[Array, "2"], row: Int[Array, "batch"]):
    """Returns the dropout seeds of rows, uint32 [batch, 2].

    rng: key of the step; row: index of each row in the global batch.
    """
    words = jax.random.bits(rng, (*(1 for _ in row.shape), 2), jnp.uint32)
    return _mix(words + _mix(row.astype(jnp.uint32))[..., None])


def token_seeds(rng, text: Int[Array, "batch length"], position: Int[Array, "batch length"]):
    """Returns the dropout seeds of packed rows, uint32 [batch, length, 3].

    They are the seeds of each token's text and its position in the text, so that a text draws the
    mask of an unpacked row.
    """
    position = position.astype(jnp.uint32)[..., None]
    return jnp.concatenate([row_seeds(rng, text), position], axis=-1)


def random_bits(
    shape: tuple[int, ...], dropout_seeds: Seeds, site: int
) -> UInt32[Array, "batch ..."]:
    """Returns 32 random bits for every element of an array [batch, ...].

    With seeds of packed rows the shape is [batch, length, ...] or [batch, attn, length, length];
    in the latter the first length is the query's.
    """
    words = _mix(dropout_seeds[..., :2] + np.uint32(site * _STRIDES[0] % 2**32))
    packed = dropout_seeds.ndim == 3
    tokens = (len(shape) - 2, len(shape) - 1) if len(shape) == 4 else (1,)

    def along(x, axis):  # [batch] or [batch, length], the length as that axis of the shape
        axes = [n if i == 0 or (packed and i == axis) else 1 for i, n in enumerate(shape)]
        return x.reshape(axes)

    first, second = (along(words[..., i], tokens[0]) for i in (0, 1))
    position = first
    for axis, stride in enumerate(_STRIDES[: len(shape) - 1], start=1):
        if packed and axis in tokens:
            count = along(dropout_seeds[..., 2], axis)
        else:
            axes = [n if i == axis else 1 for i, n in enumerate(shape)]
            count = jax.lax.broadcasted_iota(jnp.uint32, axes, axis)
        position = position + count * np.uint32(stride)
    return _mix(position, second)


def keep_mask(shape: tuple[int, ...], rate: float, dropout_seeds: Seeds, site: int):
    """Returns the elements to keep, bool [batch, ...]: each with probability 1 - rate."""
    return random_bits(shape, dropout_seeds, site) >= np.uint32(round(rate * 2**32))


def dropout(
    x: Float[Array, "batch ..."],
    rate: float,
    dropout_seeds: Seeds | None,
    site: int,
) -> Float[Array, "batch ..."]:
    """Applies inverted dropout to `x` of at most four axes, batch first; no-op without seeds.

    site: number of the dropout within the model; masks of different sites are independent.
    """
    if dropout_seeds is None or rate == 0:
        return x
    return jnp.where(keep_mask(x.shape, rate, dropout_seeds, site), x * (1 / (1 - rate)), 0)
