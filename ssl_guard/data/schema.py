"""Defines examples and corpora."""

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping

SAFE, HARMFUL = 0, 1
TASKS = (
    "prompt_harm",  # is the prompt harmful
    "response_harm",  # is the response harmful
    "content_moderation",  # is the text, which stands in `prompt`, harmful
)


@dataclasses.dataclass(frozen=True)
class Example:
    """One row: a prompt, or a prompt and the response it got.

    label: 1 (harmful), 0 (safe) or None (unknown). response: None except for response_harm.
    """

    id: str
    prompt: str
    response: str | None
    label: int | None
    category: str | None
    source: str
    licence: str


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Rows of one task in a fixed order; sha256 is of the rows, not of a file.

    left_out: rows of the source that are not among them, by reason.
    """

    name: str
    task: str
    examples: tuple[Example, ...]
    sha256: str
    licence: str
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)


def make_corpus(
    name: str,
    task: str,
    examples: Iterable[Example],
    licence: str,
    left_out: Mapping[str, int] | None = None,
) -> Corpus:
    """Makes a Corpus, with the hexadecimal sha256 of its rows, each as one line of JSON."""
    examples = tuple(examples)
    digest = hashlib.sha256()
    for example in examples:
        row = [getattr(example, field.name) for field in dataclasses.fields(Example)]
        digest.update(json.dumps(row).encode() + b"\n")
    return Corpus(name, task, examples, digest.hexdigest(), licence, dict(left_out or {}))


def left_out_notes(left_out: Mapping[str, int]) -> list[str]:
    """Formats a note, in a list, on the rows of sources that a corpus leaves out, by reason."""
    listed = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    return [f"rows of the source that are left out: {listed}"] if listed else []


def commercial_use(licence: str) -> bool | None:
    """Tells whether a Corpus.licence permits commercial use; None if it is not stated.

    licence: SPDX names, joined by " and ". The non-commercial ones hold "-NC".
    """
    if "-NC" in licence:
        return False
    return None if "unstated" in licence else True


def licence_notes(licence: str) -> list[str]:
    """Formats a note, in a list, if the licence of a run's rows is non-commercial."""
    if commercial_use(licence) is False:
        return [f"licence of the rows: {licence}, which forbids commercial use"]
    return []


def normalised(text: str) -> str:
    """Normalises case and white space, to compare texts."""
    return " ".join(text.casefold().split())


INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")  # controls, joiners and other marks of format, spaces
# Letters and marks without a shape: fillers, the Braille blank, variation selectors.
BLANK = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0") | set(map(chr, range(0xFE00, 0xFE10)))


def is_blank(text: str) -> bool:
    """Tells whether a text has no visible character."""
    return all(unicodedata.category(c) in INVISIBLE or c in BLANK for c in text)


def is_unicode(text: str) -> bool:
    """Tells whether a text can be encoded as UTF-8; JSON may hold half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
