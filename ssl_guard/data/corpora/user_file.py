"""Reads a user's file or folder, in a format of readers.py, with the settings of reading.py.

A row has a prompt and may have a response, a label, an id and a category; or it has a conversation
(see conversation.py) in place of prompt and response. A row without a label can be in the
unlabelled pool. Faults of the file raise BadInput with the places, never with the text.
"""

import collections
import contextlib
import dataclasses
import decimal
import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from ssl_guard.data import conversation, readers
from ssl_guard.data.corpora import parse, reading, tfds_features
from ssl_guard.data.corpora.reading import COLUMNS, Reading
from ssl_guard.data.readers import BadRow, shown
from ssl_guard.data.schema import Example, is_blank, is_unicode
from ssl_guard.errors import BadInput

CONVERSATIONS = "conversations"  # ShareGPT's name of the column messages
NAMED = 10  # bad rows that an error names
MOST = 2**53  # whole floats below are exact


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
    reading: Reading = dataclasses.field(default_factory=Reading)


class UserFile(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of a file; its split is called "rows", metadata holds the counts.

    Make its config with `configure`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Rows of a user's own file.",
            features=tfds_features.features(),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        return {"rows": self._generate_examples()}

    def _generate_examples(self):
        counts = collections.Counter[str]()
        for position, found in enumerate(read(self.builder_config)):
            counts[parse.count_of(found)] += 1
            if isinstance(found, Example):
                yield position, tfds_features.to_record(found)
        self.info.metadata["rows"] = dict(sorted(counts.items()))


def reads(name: str | Path) -> bool:
    """Tells whether this is the name of a readable file or folder, with or without settings."""
    return readers.is_data(reading.split_name(name)[0])


def _files(name: str | Path) -> tuple[Path, tuple[Path, ...]]:
    """Returns the path in a name, and its files. Raises BadInput for a folder of unknown layout."""
    path, settings = reading.split_name(name)
    return path, readers.files_of(path, settings.get("split", ""))


def configure(name: str | Path, task: str, how: Reading | None = None) -> UserFileConfig:
    """Makes the config of a file, named after the sha256 of the files and of the settings.

    name: a path; settings in it override those of `how`.
    """
    path, files = _files(name)
    how = reading.with_settings(how or Reading(), name)
    settings = json.dumps([path.name, task, dataclasses.asdict(how)], sort_keys=True)
    sha256 = readers.sha256(files)
    stem = path.name.lower() if path.is_dir() else readers.stem(path)
    return UserFileConfig(
        name=f"{sha256}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}",
        path=path,
        files=files,
        sha256=sha256,
        title=re.sub(r"[^a-z0-9_-]+", "_", stem) or "file",
        task=task,
        reading=how,
    )


def read(config: UserFileConfig) -> Iterator[Example | str]:
    """Yields the examples, in file order, and the kind of fault of every row that is skipped.

    The id of a row without one is its place, "line 7". Raises BadInput after the last row if rows
    are bad and not to be skipped; it counts them and names the first.
    """
    columns, places, seen = config.reading.columns, dict[str, str](), set[str]()
    bad, rows = list[tuple[str, BadRow]](), 0
    for place, row in _rows(config.files, config.reading):
        rows += 1
        try:
            if isinstance(row, BadRow):
                raise row
            seen.update(row)
            example = _example(config, place, row)
            if example.id in places:
                raise BadRow(
                    "same id",
                    f"the same id as {places[example.id]}",
                    f"make the values of {columns['id']!r} unique",
                )
        except BadRow as fault:
            bad += [(place, fault)] if len(bad) < NAMED else []
            yield fault.kind
            continue
        places[example.id] = place
        yield example
    if not rows:
        raise BadInput(f"{config.path} has no rows: give it at least one.")
    for name, column in columns.items():
        if column != COLUMNS[name] and column not in seen:
            missing = _missing(config, name, seen)
            raise BadInput(f"{config.path}: {missing.what}: {missing.remedy}.")
    counted = rows - len(places)
    if bad and (config.reading.bad_rows == "refuse" or counted == rows):
        raise BadInput(_refusal(config, bad, counted, rows))
    if readers.sha256(config.files) != config.sha256:
        raise BadInput(f"{config.path} was changed while it was read: run again.")


def _refusal(config: UserFileConfig, bad: list[tuple[str, BadRow]], counted: int, rows: int) -> str:
    """Formats the error of bad rows; bad: the first of them, with their places."""
    remedy = bad[0][1].remedy
    if counted < rows:
        remedy += f"; or leave such rows out with {config.path.name}?bad_rows=skip"
    if counted == 1:
        return f"{config.path}, {bad[0][0]}: {bad[0][1].what}: {remedy}."
    by_fault: dict[str, list[str]] = {}
    for place, fault in bad:
        what = fault.what if len(by_fault) < 3 or fault.what in by_fault else fault.kind
        by_fault.setdefault(what, []).append(place)
    named = "; ".join(f"{', '.join(places)}: {what}" for what, places in by_fault.items())
    more = f"; and {counted - len(bad)} more" if counted > len(bad) else ""
    return f"{config.path}: {counted} of {rows} rows cannot be used ({named}{more}): {remedy}."


def side_columns(name: str | Path, names: Iterable[str], how: Reading) -> dict[str, dict]:
    """Reads further columns of a file, those that exist: {name: {id: value as text}}.

    Rows without a value are omitted. The corpus and its sha256 do not depend on them.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    how = reading.with_settings(how, name)
    for place, row in _rows(_files(name)[1], how, found):
        if isinstance(row, BadRow):
            continue
        with contextlib.suppress(BadRow):
            row_id = _text(row, how.columns["id"], number=True) or place
            for column in found:
                if (value := row.get(column)) is not None and value != "":
                    found[column][row_id] = str(value)
    return {name: values for name, values in found.items() if values}


def _rows(
    files: tuple[Path, ...], how: Reading, more: Iterable[str] = ()
) -> Iterator[tuple[str, Mapping | BadRow]]:
    """Yields (place, row); with several files, the place includes the file."""
    columns = frozenset((*how.columns.values(), CONVERSATIONS, *more))
    for file in files:
        for place, row in readers.rows(file, columns):
            yield f"{file.name} {place}" if len(files) > 1 else place, row


def _example(config: UserFileConfig, place: str, row: Mapping) -> Example:
    """Makes the example of a row. Raises BadRow for one that cannot be used."""
    columns = config.reading.columns
    prompt, response = _texts(config, row)
    return Example(
        id=_text(row, columns["id"], number=True) or place,
        prompt=prompt,
        response=response,
        label=config.reading.label(row.get(columns["label"])),
        category=_text(row, columns["category"], number=True),
        source=config.path.name,
        licence="unstated",
    )


def _texts(config: UserFileConfig, row: Mapping) -> tuple[str, str | None]:
    """Returns the prompt and, if the task needs it, the response of a row."""
    columns, pair = config.reading.columns, config.task == "response_harm"
    both = ("prompt", "response")
    needed = both if pair else both[:1]
    missing = [name for name in needed if columns[name] not in row]
    chat = next((c for c in (columns["messages"], CONVERSATIONS) if row.get(c)), "")
    if isinstance(row.get(columns["prompt"]), list):
        chat = columns["prompt"]
    elif row.get(columns["prompt"]) and not missing:
        chat = ""  # the conversation is another form of the same
    if missing and not chat:
        raise _missing(config, missing[0], row)
    prompt: str | None
    if chat:
        prompt, response = _turns(config, chat, row[chat])
        given = _text(row, columns["response"]) if pair and chat == columns["prompt"] else None
        if given is not None:
            if response is not None:
                raise BadRow(
                    "conversation",
                    f"{chat!r} ends with an answer, and {columns['response']!r} is another",
                    "leave one of them out",
                )
            response = given
        if pair and response is None:
            raise BadRow("conversation", f"{chat!r} ends without an answer", "add one")
    else:
        prompt, response = (_text(row, columns[name]) if name in needed else None for name in both)
    for name, text in zip(needed, (prompt, response), strict=False):
        if text is None or is_blank(text):
            raise BadRow("empty", f"{columns[name]!r} is empty", "fill it")
    return prompt or "", response if pair else None


def _turns(config: UserFileConfig, column: str, value: object) -> tuple[str, str | None]:
    try:
        turns = conversation.parse(value)
        if any("\0" in turn.text or not is_unicode(turn.text) for turn in turns):
            raise ValueError("holds a NUL or half a surrogate pair, which is not text")
        return conversation.pair(turns, config.reading.conversation)
    except ValueError as error:
        raise BadRow(
            "conversation", f"{column!r} {error}", "write turns as data/conversation.py describes"
        ) from error


def _text(row: Mapping, column: str, *, number: bool = False) -> str | None:
    """Returns the value of a text column, None if it is absent, null, NaN or blank.

    number: whole numbers are texts too, without decimals.
    """
    value: Any = row.get(column)
    if value is None or value == "" or value != value:
        return None
    if number and isinstance(value, (int, float, decimal.Decimal)) and type(value) is not bool:
        whole = -MOST < value < MOST and value == int(value)
        value = str(int(value)) if whole or isinstance(value, int) else value
    if not isinstance(value, str):
        raise BadRow("not text", f"{column!r} must be text", "write it as text")
    if "\0" in value or not is_unicode(value):
        raise BadRow(
            "not text",
            f"{column!r} holds a NUL or half a surrogate pair, which is not text",
            "remove it",
        )
    return value if value.strip() else None


def _missing(config: UserFileConfig, name: str, found: Iterable[str]) -> BadRow:
    column, names = config.reading.columns[name], [str(key) for key in found]
    near = difflib.get_close_matches(column.lower(), [n for n in names if shown(n) == repr(n)], n=1)
    remedy = f"name the column that holds it: {config.path.name}?{name}={(near or ['COLUMN'])[0]}"
    if name == "response":
        remedy += ", or set config.data.task (--task) to prompt_harm to classify prompts alone"
    listed = ", ".join(map(shown, names[:10])) or "nothing"
    return BadRow("no column", f"no column {column!r} (found: {listed})", remedy)
