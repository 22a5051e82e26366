"""Parses and applies recipes, the grammar of config.augment.ops.

A recipe is a tuple of stages, tried in order until a view passes the gates. In a stage, "a+b"
applies a and then b, and "a|b" draws one of the two; + binds tighter:

    ("framing+leetspeak|persona|quoting", "tfidf")
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ssl_guard.augment.ops import OPS, Rewrite
from ssl_guard.errors import BadInput


class Stage(NamedTuple):
    """One stage of a recipe: its text, and its alternatives, each a chain of operation names."""

    text: str
    alternatives: tuple[tuple[str, ...], ...]


def parse(ops: Sequence[str], known: Collection[str] = OPS) -> tuple[Stage, ...]:
    """Parses a recipe. Raises BadInput that names the stage and the invalid word in it."""
    if isinstance(ops, str) or not ops:
        raise BadInput(
            f"config.augment.ops = {ops!r} must be a tuple of at least one stage, "
            "such as ('tfidf',)."
        )
    stages = []
    for number, text in enumerate(ops, 1):
        where = f"config.augment.ops, stage {number} ({text!r})"
        if not isinstance(text, str):
            raise BadInput(f"{where}: a stage is a string, such as 'tfidf'.")
        alternatives = tuple(
            tuple(name.strip() for name in chain.split("+")) for chain in text.split("|")
        )
        for place, chain in enumerate(alternatives, 1):
            for name in chain:
                if not name:
                    raise BadInput(
                        f"{where}: alternative {place} lacks the name of an operation beside + or "
                        "|; write 'a+b' or 'a|b'."
                    )
                if name not in known:
                    raise BadInput(
                        f"{where}: there is no augmentation {name!r}; choose one of "
                        f"{', '.join(known)}."
                    )
        stages.append(Stage("|".join("+".join(chain) for chain in alternatives), alternatives))
    return tuple(stages)


def names(stages: Sequence[Stage]) -> list[str]:
    """Returns the distinct operations of a recipe in order of appearance."""
    return list(
        dict.fromkeys(name for stage in stages for chain in stage.alternatives for name in chain)
    )


def apply(
    stage: Stage,
    rewrites: dict[str, Rewrite],
    texts: Sequence[str],
    rngs: Sequence[np.random.Generator],
) -> tuple[list[str | None], list[str]]:
    """Returns (views, chain drawn for each). A view is None if an operation of the chain gave none.

    A text's own generator draws the chain, if there are several, and then serves the rewrites.
    """
    drawn = _draw(stage, rngs)
    views: list[str | None] = list(texts)
    for number, chain in enumerate(stage.alternatives):
        mine = [i for i, choice in enumerate(drawn) if choice == number]
        for name in chain:
            given = {i: view for i in mine if (view := views[i]) is not None}
            if not given:
                break
            made = rewrites[name](list(given.values()), [rngs[i] for i in given])
            for i, view in zip(given, made, strict=True):
                views[i] = view
    return views, ["+".join(stage.alternatives[choice]) for choice in drawn]


def estimates(
    stage: Stage,
    rewrites: dict[str, Rewrite],
    texts: Sequence[str],
    rngs: Sequence[np.random.Generator],
) -> Iterator[tuple[str, NamedTuple]]:
    """Yields (name, estimate) for the operations of the stage that have one, see llm/rewrite.py.

    Operations after such an operation are left out, since their input is not known.
    """
    drawn = _draw(stage, rngs)
    for number, chain in enumerate(stage.alternatives):
        mine = [i for i, choice in enumerate(drawn) if choice == number]
        asked = [(texts[i], rngs[i]) for i in mine]
        for name in chain:
            given = list(zip(*asked, strict=True)) or [(), ()]
            if estimate := getattr(rewrites[name], "estimate", None):
                yield name, estimate(*given)
                break
            made = zip(rewrites[name](*given), given[1], strict=True)
            asked = [(text, rng) for text, rng in made if text is not None]


def _draw(stage: Stage, rngs: Sequence[np.random.Generator]) -> list[int]:
    count = len(stage.alternatives)
    return [int(rng.integers(count)) if count > 1 else 0 for rng in rngs]
