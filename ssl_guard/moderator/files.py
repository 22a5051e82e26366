"""Moderates the rows of a file, or of standard input, in constant memory.

A row has a prompt, for a moderator of responses also a response; or a conversation. For each there
is one row of output, in their order:

    id           the row's, or its place, such as "line 7"
    probability  that it is harmful
    verdict      "harmful" or "safe"
    truncated    whether tokens were left out
    windows      number of parts that were scored
    error        null, or the reason why the row was not scored; never its text

The rows are written to OUT.part, and OUT is made of it at the end. The same command after a kill
continues OUT.part after its last whole row.
"""

import csv
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tqdm import tqdm

from ssl_guard.data import readers
from ssl_guard.data.schema import is_unicode
from ssl_guard.errors import BadInput
from ssl_guard.moderator.score import Moderator
from ssl_guard.runtime.files import atomic_write

STDIN = "-"
COLUMNS = {"prompt": "prompt", "response": "response", "messages": "messages", "id": "id"}
FIELDS = ("id", "probability", "verdict", "truncated", "windows", "error")
FORMATS = (".jsonl", ".ndjson", ".csv", ".parquet")  # of the output
CHUNK = 256  # rows scored at a time
NAMED = 10  # rows without a score that are named
DIGITS = 7  # decimals of a probability


class Counts(NamedTuple):
    """rows: of the output; harmful: of their verdicts; bad: rows without a score; named: ids of the
    first of these, with the reasons. All but `rows` are of this call."""

    rows: int
    harmful: int
    bad: int
    named: list[str]


def moderate(
    moderator: Moderator,
    source: str,
    out: str | None,
    *,
    profile: str = "balanced",
    whole: bool = True,
    columns: Mapping[str, str] = COLUMNS,
) -> Counts:
    """Scores the rows of a file and writes one row each.

    source: a file in a format of data/readers.py, or STDIN for JSON lines. out: a file of FORMATS,
    None for JSON lines on standard output. columns: names of the columns by those of COLUMNS.

    Raises BadInput for an unreadable file, a file `out` that exists or a half-written one of other
    input, and a profile that the moderator lacks.
    """
    moderator.threshold(profile)
    rows = _rows(source, columns)
    if out is None:
        return _score(moderator, rows, sys.stdout, 0, profile, whole, columns)
    path = Path(out)
    if path.suffix.lower() not in FORMATS:
        raise BadInput(f"--out: {out} must end in {', '.join(FORMATS)}.")
    if path.exists():
        raise BadInput(f"--out: {out} exists: delete it, or name another file.")
    part = path.with_name(path.name + ".part")
    made_by = {
        "moderator": moderator.sha256,
        "model": moderator.kind,
        "profile": profile,
        "whole": whole,
        "input": source,
        "columns": dict(columns),
    }
    done = _resume(part, json.dumps(made_by) + "\n")
    with open(part, "a", encoding="utf-8") as file:
        counts = _score(moderator, rows, file, done, profile, whole, columns)
    _finish(part, path)
    return counts


def _rows(source: str, columns: Mapping[str, str]) -> Iterator[readers.Row]:
    if source == STDIN:
        return readers.lines_of(sys.stdin.buffer)
    if not Path(source).is_file() or not readers.is_data(Path(source)):
        raise BadInput(
            f"{source} is no file that ends in {', '.join(readers.FORMATS)}: name one, or - for "
            "JSON lines on standard input."
        )
    return readers.rows(Path(source), frozenset(columns.values()))


def _score(
    moderator: Moderator,
    rows: Iterator[readers.Row],
    file: TextIO,
    done: int,
    profile: str,
    whole: bool,
    columns: Mapping[str, str],
) -> Counts:
    """Writes the rows after the first `done`, which are in the output already."""
    count, harmful, bad, named = done, 0, 0, list[str]()
    rows = itertools.islice(rows, done, None)
    with tqdm(initial=done, unit=" rows", file=sys.stderr, disable=None) as progress:
        while chunk := list(itertools.islice(rows, CHUNK)):
            found = [_input(moderator, place, row, columns) for place, row in chunk]
            inputs = [given for _, given, error in found if not error]
            judged = iter(moderator(inputs, profile=profile, whole=whole))
            for name, _, error in found:
                values: dict[str, Any] = dict.fromkeys(FIELDS) | {"id": name, "error": error}
                if error:
                    bad += 1
                    named += [f"{name}: {error}"] if len(named) < NAMED else []
                else:
                    one = next(judged)
                    harmful += one.verdict == "harmful"
                    values |= {
                        "probability": round(one.probability, DIGITS),
                        "verdict": one.verdict,
                        "truncated": one.truncated,
                        "windows": one.windows,
                    }
                file.write(json.dumps(values) + "\n")
            file.flush()
            count += len(chunk)
            progress.update(len(chunk))
    return Counts(count, harmful, bad, named)


def _input(
    moderator: Moderator, place: str, row: Mapping | readers.BadRow, columns: Mapping[str, str]
) -> tuple[str, Any, str | None]:
    """Returns (id, input of the moderator, None), or (id, None, the reason why there is none)."""
    if isinstance(row, readers.BadRow):
        return place, None, str(row)
    given = row.get(columns["id"])
    name = str(given) if isinstance(given, (str, int)) and is_unicode(str(given)) else place
    turns = row.get(columns["messages"])
    prompt, response = (row.get(columns[name]) for name in ("prompt", "response"))
    texts = [text for text in (prompt, response) if text is not None]
    if turns is None and prompt is None:
        return name, None, f"has no column {columns['prompt']!r} or it is empty"
    if turns is None and not all(isinstance(text, str) and is_unicode(text) for text in texts):
        return name, None, "has a value that is not text"
    if turns is None:
        turns = (prompt, response if moderator.settings.pairs else None)
    try:
        found = moderator.pair("", turns)
        if not all(is_unicode(text) for text in found if text is not None):
            return name, None, "has a value that is not text"
        return name, found, None
    except BadInput as error:
        return name, None, str(error).removeprefix("input  ").rstrip(".")


def _resume(part: Path, header: str) -> int:
    """Cuts a half-written row off and returns the number of whole rows in `part`, which is made, or
    begun again, if it has no whole header. Raises BadInput for one with another header."""
    size = whole = lines = 0
    first = b""
    if part.exists():
        with open(part, "rb") as file:
            for line in file:
                size += len(line)
                if line.endswith(b"\n"):
                    whole, lines, first = size, lines + 1, first or line
    if not lines:
        atomic_write(part, header)
        return 0
    if first.decode("utf-8", "replace") != header:
        raise BadInput(
            f"{part} was begun with another input, moderator or setting: delete it, or give those."
        )
    os.truncate(part, whole)
    return lines - 1


def _finish(part: Path, out: Path) -> None:
    """Makes the output of its part, in the format of its suffix, and deletes the part."""
    draft = out.with_name(f".{out.name}.tmp")
    with open(part, encoding="utf-8") as file:
        next(file)
        if out.suffix.lower() == ".parquet":
            _write_parquet(draft, file)
        else:
            with open(draft, "w", encoding="utf-8", newline="") as written:
                if out.suffix.lower() == ".csv":
                    table = csv.DictWriter(written, FIELDS)
                    table.writeheader()
                    table.writerows(map(json.loads, file))
                else:
                    written.writelines(file)
    draft.replace(out)
    part.unlink()


def _write_parquet(path: Path, lines: Iterator[str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    types = (pa.string(), pa.float64(), pa.string(), pa.bool_(), pa.int64(), pa.string())
    schema = pa.schema(list(zip(FIELDS, types, strict=True)))
    with parquet.ParquetWriter(path, schema) as file:
        while chunk := list(itertools.islice(lines, 64 * CHUNK)):
            file.write_table(pa.Table.from_pylist(list(map(json.loads, chunk)), schema))
