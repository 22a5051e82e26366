"""What every augmentation operation gives back, and what several of them need."""

from collections.abc import Callable, Sequence

import numpy as np

from ssl_guard.errors import BadInput

Rewrite = Callable[[Sequence[str], Sequence[np.random.Generator]], list[str | None]]


def each(change: Callable[[str, np.random.Generator], str | None]) -> Rewrite:
    """The rewrite that applies change(text, rng) to one text after the other."""

    def rewrite(texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str | None]:
        return [change(text, rng) for text, rng in zip(texts, rngs, strict=True)]

    return rewrite


def check_share(op: str, name: str, value: float) -> None:
    """Raises BadInput for an argument of an operation that is not a share from 0 to 1."""
    if not 0 <= value <= 1:
        raise BadInput(
            f"the argument {name} of the augmentation {op!r} is {value}; give a share, 0 to 1."
        )


def check_part(op: str, part: str) -> None:
    """Raises BadInput for a part of a row that is neither "prompt" nor "response"."""
    if part not in ("prompt", "response"):
        raise BadInput(
            f"the argument part of the augmentation {op!r} is {part!r}; give 'prompt' or "
            "'response'."
        )
