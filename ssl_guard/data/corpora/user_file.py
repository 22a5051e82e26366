"""Reads a user's file or folder, in one of the formats of readers.py.

A row has a prompt and may have a response, a label, an id and a category. The names of these
columns and the label values of harmful and safe can be chosen. A row without a label can be in the
unlabelled pool. Faults of the file raise BadInput with the place, never with the text.

Settings of one file are appended to its name:

    exam.csv?prompt=text&label=toxic&harmful=2|1&safe=0
    wildguardmix?split=train
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from ssl_guard.data.corpora import readers, tfds_features
from ssl_guard.data.schema import HARMFUL, SAFE, Example
from ssl_guard.errors import BadInput

COLUMNS = {name: name for name in ("prompt", "response", "label", "id", "category")}
LABELS = {
    "harmful": HARMFUL, "unsafe": HARMFUL, "true": HARMFUL, "1": HARMFUL,
    "unharmful": SAFE, "safe": SAFE, "false": SAFE, "0": SAFE,
}  # fmt: skip


class Place(NamedTuple):
    """A parsed name: where the rows are, and how to read them."""

    path: Path
    files: tuple[Path, ...]
    columns: dict[str, str]
    labels: dict[str, int]


@dataclasses.dataclass
class UserFileConfig(tfds.core.BuilderConfig):
    """Files and how to read them; `name`, the folder of the prepared data, is a hash of all.

    sha256: of the files. title: the name of the corpus.
    """

    path: Path = Path()
    files: tuple[Path, ...] = ()
    sha256: str = ""
    title: str = ""
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
            features=tfds_features.features(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"rows": self._generate_examples()}

    def _generate_examples(self):
        for position, example in enumerate(read(self.builder_config)):
            yield position, tfds_features.to_record(example)


def reads(name: str | Path) -> bool:
    """Tells whether this is the name of a readable file or folder, with or without settings."""
    return readers.is_data(Path(str(name).partition("?")[0]))


def locate(name: str | Path) -> Place:
    """Parses the name of a file or folder, with settings or without.

    Raises BadInput for invalid settings, and for a folder of unknown layout.
    """
    path, _, settings = str(name).partition("?")
    given = dict(pair.partition("=")[::2] for pair in settings.split("&") if pair)
    known = (*COLUMNS, "harmful", "safe", "split")
    if unknown := sorted(key for key in given if key not in known or not given[key]):
        raise BadInput(
            f"{name}: {unknown[0]!r} is not a setting of a file; the settings are "
            f"{', '.join(known)}, each with a value, such as {path}?prompt=text&label=toxic."
        )
    labels = {
        word: label
        for key, label in (("harmful", HARMFUL), ("safe", SAFE))
        for word in given.get(key, "").split("|")
        if word
    }
    columns = {key: column for key, column in given.items() if key in COLUMNS}
    return Place(Path(path), readers.files_of(Path(path), given.get("split", "")), columns, labels)


def configure(
    name: str | Path,
    task: str,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, int] | None = None,
) -> UserFileConfig:
    """Makes the config of a file, named after the sha256 of the files and of the settings.

    name: a path; settings in it override the others.
    columns: names of columns, e.g. {"prompt": "text", "label": "is_harmful"}.
    labels: meaning of label values, e.g. {"toxic": 1, "ok": 0}, instead of LABELS. Case is ignored;
        the JSON values true and 1.0 are "true" and "1".
    """
    place = locate(name)
    columns = dict(columns or {}) | place.columns
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise BadInput(
            f"config.data.columns has {', '.join(unknown)}, but only {', '.join(COLUMNS)} are read."
        )
    labels = place.labels or labels or LABELS
    labels = {str(value).strip().lower(): label for value, label in labels.items()}
    if any(label not in (SAFE, HARMFUL) for label in labels.values()):
        raise BadInput("the meaning of a label value must be 1 (harmful) or 0 (safe).")
    columns = COLUMNS | {name: column for name, column in columns.items() if column}
    settings = json.dumps([place.path.name, task, columns, labels], sort_keys=True)
    sha256 = readers.sha256(place.files)
    stem = place.path.name.lower()
    stem = stem if place.path.is_dir() else stem.removesuffix(".gz").rpartition(".")[0]
    return UserFileConfig(
        name=f"{sha256}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}",
        path=place.path,
        files=place.files,
        sha256=sha256,
        title=re.sub(r"[^a-z0-9_-]+", "_", stem) or "file",
        task=task,
        columns=columns,
        labels=labels,
    )


def read(config: UserFileConfig) -> Iterator[Example]:
    """Yields all rows, in file order. The id of a row without one is its place, "line 7"."""
    ids, seen, columns = set[str](), set[str](), config.columns.values()
    for where, place, row in _rows(config.files, columns):
        example = _example(config, where, place, row)
        if example.id in ids:  # places are not stored: search for the first one
            again = ((p, _example(config, w, p, r).id) for w, p, r in _rows(config.files, columns))
            first = next(p for p, row_id in again if row_id == example.id)
            raise BadInput(
                f"{where} has the same id as {first}: make the values of "
                f"'{config.columns['id']}' unique."
            )
        ids.add(example.id)
        seen.update(row)
        yield example
    if not ids:
        raise BadInput(f"{config.path} has no rows: give it at least one.")
    for name, column in config.columns.items():
        if column != COLUMNS[name] and column not in seen:
            raise BadInput(_missing(config, name, f"{config.path} has no column", seen))
    if readers.sha256(config.files) != config.sha256:
        raise BadInput(f"{config.path} was changed while it was read: run again.")


def side_columns(name: str | Path, names: Iterable[str], id_column: str) -> dict[str, dict]:
    """Reads further columns of a file, those that exist: {name: {id: value as text}}.

    Rows without a value are omitted. The corpus and its sha256 do not depend on them.
    """
    place = locate(name)
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    id_column = place.columns.get("id", id_column)
    for _, position, row in _rows(place.files, (*found, id_column)):
        own_id = row.get(id_column)
        row_id = position if own_id is None or own_id == "" else str(own_id)
        for name in found:
            if (value := row.get(name)) is not None and value != "":
                found[name][row_id] = str(value)
    return {name: values for name, values in found.items() if values}


def _rows(files: tuple[Path, ...], columns: Iterable[str]) -> Iterator[tuple[str, str, Mapping]]:
    """Yields (file and place, place, row); with several files, the place includes the file."""
    columns = frozenset(columns)
    for file in files:
        for place, row in readers.rows(file, columns):
            yield f"{file}, {place}", f"{file.name} {place}" if len(files) > 1 else place, row


def _example(config: UserFileConfig, where: str, place: str, row: Mapping) -> Example:
    def text(name: str) -> str | None:
        """Returns the value of a text column, None if it is absent, null or blank."""
        value = row.get(config.columns[name])
        if name == "id" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise BadInput(f"{where}: '{config.columns[name]}' must be text.")
        if "\0" in value or not is_unicode(value):
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
        prompt=text("prompt") or "",
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
            f"{where}: '{config.columns['label']}' is {shown(word)}, but a label is one of "
            f"{', '.join(config.labels)}, or empty for unknown: set config.data.harmful_values and "
            "safe_values to the words of this file."
        )
    return config.labels[word] if word else None


def _missing(config: UserFileConfig, name: str, beginning: str, found) -> str:
    found = ", ".join(shown(str(column)) for column in list(found)[:10]) or "nothing"
    return (
        f"{beginning} '{config.columns[name]}' (found: {found}): set config.data.columns.{name} "
        "to the column that holds it."
    )


def shown(word: str) -> str:
    """Formats a label or column name for an error; hides what may be the text of a row."""
    return repr(word) if re.fullmatch(r"[\w.+-]{1,20}", word) else f"{len(word)} characters"


def is_unicode(text: str) -> bool:
    """Tells whether a text can be encoded as UTF-8; JSON may hold half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
