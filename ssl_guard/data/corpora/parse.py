"""Parses rows of published corpora into examples."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from ssl_guard.data.corpora import sources
from ssl_guard.data.readers import shown
from ssl_guard.data.schema import HARMFUL, SAFE, Example, is_blank, is_unicode
from ssl_guard.errors import BadInput

CLASSES = {HARMFUL: "harmful", SAFE: "safe", None: "unlabelled"}  # names of counts


class Item(NamedTuple):
    """One labelled text of a row.

    label: HARMFUL, SAFE, None for an unlabelled row, or the reason to skip the row; key: the
    publisher's id.
    """

    prompt: str | None
    label: int | str | None
    response: str | None = None
    category: str | None = None
    key: str | None = None


class Parser(Protocol):
    """The part of a `Published` class that `read` needs."""

    name: str
    LICENCE: str
    HOMEPAGE: str
    READS: tuple[str, ...]

    def parse(self, task: str, split: str, row: Mapping) -> Iterator[Item]:
        """Yields the items of a row in the publisher's format; KeyError if it is not in that."""


def read(corpus: Parser, task: str, split: str, path: Path, name: str) -> Iterator[Example | str]:
    """Yields the examples of one file, and the reason for every row that is skipped.

    name: of the file in ids. Raises BadInput for unknown columns or labels.
    """
    for number, row in enumerate(sources.rows(path, corpus.READS), start=1):
        try:
            items = list(corpus.parse(task, split, row))
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"{path}, row {number}: {shown(str(error.args[0]))} is not a column or label of "
                f"{corpus.name}: check that this is the file from {corpus.HOMEPAGE}."
            ) from error
        for part, item in enumerate(items):
            texts = [item.prompt or ""]
            if task == "response_harm":
                texts.append(item.response or "")
            if isinstance(item.label, str):
                yield item.label
            elif not all(isinstance(text, str) and not is_blank(text) for text in texts):
                yield "empty"
            elif not all(map(is_unicode, texts)):
                yield "not text"
            else:
                place = f"{number}.{part}" if len(items) > 1 else f"{number}"
                yield Example(
                    id=f"{corpus.name}/{name}:{place}" + (f":{item.key}" if item.key else ""),
                    prompt=texts[0],
                    response=texts[1] if len(texts) > 1 else None,
                    label=item.label,
                    category=item.category or None,
                    source=f"{corpus.name}:{split}",
                    licence=corpus.LICENCE,
                )


def count_of(found: Example | str) -> str:
    """Returns the name of the count for an example, or for the reason to skip a row."""
    return CLASSES[found.label] if isinstance(found, Example) else found


def first_of(flags: Mapping[str, bool]) -> str | None:
    """Returns the first category whose flag is set."""
    return next((name for name, flag in flags.items() if flag), None)
