"""Defines the type of augmentation operations, and checks that several of them share."""

from collections.abc import Callable, Sequence

import numpy as np

from ssl_guard.errors import BadInput

Rewrite = Callable[[Sequence[str], Sequence[np.random.Generator]], list[str | None]]


def each(change: Callable[[str, np.random.Generator], str | None]) -> Rewrite:
    """Returns the rewrite that applies change(text, rng) to each text."""

    def rewrite(texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str | None]:
        return [change(text, rng) for text, rng in zip(texts, rngs, strict=True)]

    return rewrite


def check_share(op: str, name: str, value: float) -> None:
    """Raises BadInput unless an argument of an operation is between 0 and 1."""
    if not 0 <= value <= 1:
        raise BadInput(
            f"the argument {name} of the augmentation {op!r} is {value}; give a share, 0 to 1."
        )


def check_part(op: str, part: str) -> None:
    """Raises BadInput unless part is "prompt" or "response"."""
    if part not in ("prompt", "response"):
        raise BadInput(
            f"the argument part of the augmentation {op!r} is {part!r}; give 'prompt' or "
            "'response'."
        )
