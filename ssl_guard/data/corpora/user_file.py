"""Anybody's rows: JSON lines (.jsonl, .jsonl.gz), a JSON list (.json) or a table (.csv), in UTF-8.

A row has a prompt and may have a response, a label, an id and a category. The names of these
columns and the words that stand for harmful and safe can be chosen. A row without a label is good
for the unlabelled pool. Every fault of the file is one BadInput sentence with the place, never the
text.
"""

import csv
import dataclasses
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from ssl_guard.data.corpora import records
from ssl_guard.data.schema import HARMFUL, SAFE, Example
from ssl_guard.errors import BadInput

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv")
COLUMNS = {name: name for name in ("prompt", "response", "label", "id", "category")}
LABELS = {
    "harmful": HARMFUL, "unsafe": HARMFUL, "true": HARMFUL, "1": HARMFUL,
    "unharmful": SAFE, "safe": SAFE, "false": SAFE, "0": SAFE,
}  # fmt: skip


@dataclasses.dataclass
class UserFileConfig(tfds.core.BuilderConfig):
    """What to read and how; `name`, the folder of the prepared data, is a hash of all of it."""

    path: Path = Path()
    data: bytes = dataclasses.field(default=b"", repr=False)
    task: str = ""
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    labels: dict[str, int] = dataclasses.field(default_factory=dict)


class UserFile(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of a file; its split is called "rows". Make its config with `configure`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Rows of a user's own file.",
            features=records.features(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"rows": self._generate_examples()}

    def _generate_examples(self):
        for position, example in enumerate(read(self.builder_config)):
            yield position, records.to_record(example)


def configure(
    path: str | Path,
    task: str,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, int] | None = None,
) -> UserFileConfig:
    """Reads the file's bytes and names the prepared data after their sha256 and the settings.

    columns: which column holds what, e.g. {"prompt": "text", "label": "is_harmful"}
    labels: the meaning of label values, e.g. {"toxic": 1, "ok": 0}, instead of LABELS; letter case
        does not matter, and the JSON values true and 1.0 are written "true" and "1"
    """
    path, columns = Path(path), dict(columns or {})
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise BadInput(
            f"config.data.columns has {', '.join(unknown)}, but only {', '.join(COLUMNS)} are read."
        )
    labels = {str(value).strip().lower(): label for value, label in (labels or LABELS).items()}
    if any(label not in (SAFE, HARMFUL) for label in labels.values()):
        raise BadInput("the meaning of a label value must be 1 (harmful) or 0 (safe).")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error
    columns = COLUMNS | {name: column for name, column in columns.items() if column}
    settings = json.dumps([path.name, task, columns, labels], sort_keys=True)
    key = f"{hashlib.sha256(data).hexdigest()}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    return UserFileConfig(name=key, path=path, data=data, task=task, columns=columns, labels=labels)


def read(config: UserFileConfig) -> list[Example]:
    """All rows, in file order. Rows without an id are called after their place: "line 7"."""
    examples: dict[str, Example] = {}
    places: dict[str, str] = {}
    seen = set()
    for place, row in _rows(config.path, config.data):
        example = _example(config, place, row)
        if example.id in examples:
            raise BadInput(
                f"{config.path}, {place} has the same id as {places[example.id]}: "
                f"make the values of '{config.columns['id']}' unique."
            )
        examples[example.id] = example
        places[example.id] = place
        seen.update(row)
    if not examples:
        raise BadInput(f"{config.path} has no rows: give it at least one.")
    for name, column in config.columns.items():
        if column != COLUMNS[name] and column not in seen:
            raise BadInput(_missing(config, name, f"{config.path} has no column", seen))
    return list(examples.values())


def side_columns(path: str | Path, names: Iterable[str], id_column: str) -> dict[str, dict]:
    """{name: {id: value as text}} of further columns of a file, for those that it has; a row
    without a value is left out. They are no part of the corpus or of its sha256."""
    path = Path(path)
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    for place, row in _rows(path, path.read_bytes()):
        own_id = row.get(id_column)
        row_id = place if own_id is None or own_id == "" else str(own_id)
        for name in found:
            if (value := row.get(name)) is not None and value != "":
                found[name][row_id] = str(value)
    return {name: values for name, values in found.items() if values}


def _example(config: UserFileConfig, place: str, row: Mapping) -> Example:
    where = f"{config.path}, {place}"

    def text(name: str) -> str | None:
        """The value of a text column, None if it is absent, null or blank."""
        value = row.get(config.columns[name])
        if name == "id" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise BadInput(f"{where}: '{config.columns[name]}' must be text.")
        if "\0" in value or not _is_unicode(value):
            raise BadInput(
                f"{where}: '{config.columns[name]}' holds a NUL or half a surrogate pair, "
                "which is not text: remove it."
            )
        return value if value.strip() else None

    needed = ("prompt", "response") if config.task == "response_harm" else ("prompt",)
    for name in needed:
        if config.columns[name] not in row:
            raise BadInput(_missing(config, name, f"{where} has no column", row))
        if text(name) is None:
            raise BadInput(f"{where}: '{config.columns[name]}' is empty: fill it or drop the row.")
    if config.columns["id"] in row and text("id") is None:
        raise BadInput(f"{where}: '{config.columns['id']}' is empty: give all rows an id, or none.")
    return Example(
        id=text("id") or place,
        prompt=text("prompt"),
        response=text("response") if "response" in needed else None,
        label=_label(config, where, row.get(config.columns["label"])),
        category=text("category"),
        source=config.path.name,
        licence="unstated",
    )


def _label(config: UserFileConfig, where: str, value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    word = "" if value is None else str(value).strip().lower()
    if word and word not in config.labels:
        raise BadInput(
            f"{where}: '{config.columns['label']}' is {word[:20]!r}, but a label is one of "
            f"{', '.join(config.labels)}, or empty for unknown: set config.data.harmful_values and "
            "safe_values to the words of this file."
        )
    return config.labels[word] if word else None


def _missing(config: UserFileConfig, name: str, beginning: str, found) -> str:
    found = ", ".join(repr(str(column)[:20]) for column in list(found)[:10]) or "nothing"
    return (
        f"{beginning} '{config.columns[name]}' (found: {found}): set config.data.columns.{name} "
        "to the column that holds it."
    )


def _rows(path: Path, data: bytes) -> Iterator[tuple[str, Mapping]]:
    """(place, row) of every row; a place is "line 7", or "item 7" of a JSON list."""
    try:
        data = gzip.decompress(data) if path.name.lower().endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} is not a whole gzip file: compress it again.") from error
    if (end := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, end) + 1
        raise BadInput(f"{path}, line {line} holds a NUL byte: save the file as plain UTF-8 text.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line} is not UTF-8: save the file as UTF-8.") from error
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    yield from {"jsonl": _json_lines, "json": _json_list, "csv": _csv}[suffix](path, text)


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, Mapping]]:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 is text
        if line.strip():
            yield f"line {number}", _object(f"{path}, line {number}", _json(path, line, number))


def _json_list(path: Path, text: str) -> Iterator[tuple[str, Mapping]]:
    items = _json(path, text, 1) if text.strip() else []
    if not isinstance(items, list):
        raise BadInput(f"{path} must hold one JSON list of objects; or rename it to .jsonl.")
    for number, item in enumerate(items, start=1):
        yield f"item {number}", _object(f"{path}, item {number}", item)


def _json(path: Path, text: str, first_line: int) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise BadInput(f"{path}, line {line} is not JSON: {error.msg}.") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a deep nest
        raise BadInput(f"{path}, line {first_line} is JSON too large or deep to read.") from error


def _object(where: str, value: object) -> Mapping:
    if not isinstance(value, dict):
        raise BadInput(f'{where} must be a JSON object such as {{"prompt": "...", "label": 0}}.')
    return value


def _csv(path: Path, text: str) -> Iterator[tuple[str, Mapping]]:
    limit = csv.field_size_limit(2**31 - 1)  # a field may be a long document
    try:
        # strict: without it an unclosed quote swallows the rest of the file as one field
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise BadInput(f"{path}, line 1 has the same column name twice: rename one.")
        line = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(header):
                raise BadInput(
                    f"{path}, line {line} has {len(row)} columns, but line 1 has {len(header)}."
                )
            if row:
                yield f"line {line}", dict(zip(header, row, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num} is not CSV: {error}.") from error
    finally:
        csv.field_size_limit(limit)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
