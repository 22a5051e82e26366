"""Encodes examples as the tokenised records of a view (see data/shards.py)."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from ssl_guard.data import windows
from ssl_guard.data.schema import Example
from ssl_guard.data.tokenizer import Encoded, Tokenizer

Row = tuple[Example, int, str, str | None]  # example, copy, prompt, response
CHUNK = 1024  # rows tokenised at once


def originals(examples: Iterable[Example]) -> Iterator[Row]:
    """Yields the rows of examples that are not augmented."""
    for example in examples:
        yield example, 0, example.prompt, example.response


def encode(tokenizer: Tokenizer, rows: Iterable[Row]) -> Iterator[dict]:
    """Yields the records of rows; the copies of an example must be consecutive."""
    index, rows = -1, iter(rows)
    while chunk := list(itertools.islice(rows, CHUNK)):
        encoded = tokenizer.encode([row[2] for row in chunk], [row[3] for row in chunk])
        for (example, copy, _, _), tokens in zip(chunk, encoded, strict=True):
            index += copy == 0
            yield _record(example, tokens, index, copy)


def encode_windows(tokenizer: Tokenizer, rows: Sequence[Example], stride: int) -> Iterator[dict]:
    """Yields the records of the rows' windows; `copy` is the number of the window."""
    prompts, responses = [e.prompt for e in rows], [e.response for e in rows]
    encoded = windows.encode(tokenizer, prompts, responses, stride=stride)
    for index, (example, parts) in enumerate(zip(rows, encoded, strict=True)):
        for copy, part in enumerate(parts):
            yield _record(example, part, index, copy)


def _record(example: Example, tokens: Encoded, index: int, copy: int) -> dict:
    label = -1 if example.label is None else example.label
    return {"id": example.id, **tokens._asdict(), "label": label, "index": index, "copy": copy}
