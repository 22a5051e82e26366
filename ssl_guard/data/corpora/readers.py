"""Reads rows of files, one at a time, with their places. user_file.py checks their content.

    .jsonl, also .gz, .xz  JSON lines           "line 7"
    .csv                   with a header        "line 7", the first one of the row
    .json                  one list, read whole "item 7"
    .parquet               any writer's         "row 7"
    .arrow                 as datasets writes   "row 7"

and folders of them: the output of `datasets.save_to_disk`, or a dataset as downloaded from the
Hugging Face hub, with its files at the top or in data/. Every fault raises BadInput with the place,
never with the text.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import pyarrow as pa
from pyarrow import parquet

from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import sha256_file

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".json", ".csv", ".parquet", ".arrow")
BATCH = 1024  # rows of a Parquet or Arrow file at a time
SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"  # of datasets.save_to_disk
METADATA = (SAVED, SAVED_SPLITS, "dataset_info.json", "dataset_infos.json")  # not data files
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"

Row = tuple[str, Mapping]


def is_data(path: Path) -> bool:
    """Tells whether this is a file of a known suffix, or a folder with such files."""
    if path.is_dir():
        known = any((path / name).is_file() for name in (SAVED, SAVED_SPLITS))
        return known or bool(_data_files(path))
    return path.name.lower().endswith(SUFFIXES)


def files_of(path: Path, split: str = "") -> tuple[Path, ...]:
    """Lists the file itself, or the files of one split of a folder, in order.

    split: needed if the folder has several. Raises BadInput for a folder of unknown layout.
    """
    if not path.is_dir():
        if split:
            raise BadInput(f"{path} is no folder, so it has no split {split!r}: leave that out.")
        return (path,)
    splits = _splits(path)
    if not splits:
        raise BadInput(f"{path} holds no file that ends in {', '.join(SUFFIXES)}.")
    if split not in splits and (split or len(splits) > 1):
        raise BadInput(
            f"{path} has the splits {', '.join(sorted(splits))}: name one of them, such as "
            f"{path}?split={min(splits)}."
        )
    files = splits[split] if split in splits else next(iter(splits.values()))
    kinds = {_suffix(file) for file in files}
    if len(kinds) > 1:
        raise BadInput(f"{path} holds the same rows as {' and '.join(sorted(kinds))}: name a file.")
    return tuple(files)


def sha256(files: Iterable[Path]) -> str:
    """Returns the hexadecimal sha256 of one file, or of the hashes of several."""
    digests = []
    for file in files:
        with _readable(file):
            digests.append(sha256_file(file))
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def rows(path: Path, columns: Collection[str]) -> Iterator[Row]:
    """Yields (place, row) of a file.

    columns: those to read; the others of a Parquet or Arrow file are None.
    """
    match _suffix(path):
        case ".jsonl":
            yield from _json_lines(path)
        case ".json":
            yield from _json_list(path)
        case ".csv":
            yield from _csv(path)
        case ".parquet":
            yield from _parquet(path, columns)
        case ".arrow":
            yield from _arrow(path, columns)


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz").removesuffix(".xz")).suffix


# folders


def _splits(path: Path) -> dict[str, list[Path]]:
    """Returns the files of every split of a folder, by name; "" for a single saved dataset."""
    if (path / SAVED).is_file():
        return {"": _saved(path)}
    if (path / SAVED_SPLITS).is_file():
        names = _listed(path / SAVED_SPLITS, lambda content: content["splits"])
        return {name: _saved(path / name) for name in names}
    splits: dict[str, list[Path]] = {}
    for file in _data_files(path):
        stem = file.name[: file.name.index(".")]
        # train-00000-of-00002-0a1b.parquet, train.jsonl, 0001.parquet
        name = re.sub(r"(^|-)\d{4,5}(-of-\d{5}.*)?$", "", stem)
        splits.setdefault(name, []).append(file)
    return splits


def _data_files(path: Path) -> list[Path]:
    found = [*path.iterdir(), *(path / "data").glob("*")]
    usable = (f for f in found if f.is_file() and f.name not in METADATA and f.name[0] != ".")
    return sorted(file for file in usable if file.name.lower().endswith(SUFFIXES))


def _saved(path: Path) -> list[Path]:
    names = _listed(path / SAVED, lambda content: [f["filename"] for f in content["_data_files"]])
    return [path / name for name in names]


def _listed(path: Path, names_in) -> list[str]:
    try:
        names = names_in(json.loads(path.read_bytes()))
        known = all(isinstance(name, str) and Path(name).name == name for name in names)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        known = False
    if not known or not names:
        raise BadInput(f"{path} is not what datasets.save_to_disk writes: save the dataset again.")
    return names


# text


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (number, line with its end) of a UTF-8 file, with or without a byte order mark."""
    openers: dict[str, Callable[..., IO]] = {".gz": gzip.open, ".xz": lzma.open}
    opened = openers.get(path.suffix.lower(), open)
    with _readable(path), opened(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            yield number, _text(path, line, number)


def _text(path: Path, data: bytes, line: int) -> str:
    """Decodes lines; `line` is the number of the first."""
    if (end := data.find(b"\0")) >= 0:
        line += data.count(b"\n", 0, end)
        raise BadInput(f"{path}, line {line} holds a NUL byte: save the file as plain UTF-8 text.")
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        raise BadInput(f"{path}, line {line} is not UTF-8: save the file as UTF-8.") from error


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if line.strip():
            yield f"line {number}", _object(f"{path}, line {number}", _json(path, line, number))


def _json_list(path: Path) -> Iterator[Row]:
    with _readable(path):
        text = _text(path, path.read_bytes(), 1)
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


def _csv(path: Path) -> Iterator[Row]:
    limit = csv.field_size_limit(2**31 - 1)  # a field may be a long document
    try:
        # a line may end in \r alone; strict: else an unclosed quote swallows the rest of the file
        lines = (part for _, line in _lines(path) for part in io.StringIO(line, newline=""))
        reader = csv.reader(lines, strict=True)
        header = [name.strip() for name in next(reader, [])]
        _check_header(f"{path}, line 1", header)
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


def _check_header(where: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise BadInput(f"{where} has the same column name twice: rename one.")


# columns


def _parquet(path: Path, columns: Collection[str]) -> Iterator[Row]:
    with _readable(path), parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        _check_header(str(path), names)
        wanted = [name for name in names if name in columns] or names[:1]
        yield from _batch_rows(path, names, file.iter_batches(BATCH, columns=wanted))


def _arrow(path: Path, columns: Collection[str]) -> Iterator[Row]:
    with _readable(path), pa.memory_map(str(path)) as file:
        if file.size() < 8 or file.read_at(8, file.size() - 8) != END_OF_STREAM:
            raise BadInput(f"{path} is not a whole Arrow stream: save the dataset again.")
        with pa.ipc.open_stream(file) as stream:
            names = stream.schema.names
            _check_header(str(path), names)
            wanted = [name for name in names if name in columns]
            yield from _batch_rows(path, names, (batch.select(wanted) for batch in stream))


def _batch_rows(path: Path, names: list[str], batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    empty, first = dict.fromkeys(names), 1
    for batch in batches:
        for start in range(0, len(batch), BATCH):
            part = batch.slice(start, BATCH)
            values = _values(path, part, first)
            for i in range(len(part)):
                yield f"row {first + i}", empty | {name: v[i] for name, v in values.items()}
            first += len(part)


def _values(path: Path, batch: pa.RecordBatch, first: int) -> dict[str, list]:
    """Returns the Python values of every column. Damaged values are found before conversion."""
    found = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
            found[name] = column.to_pylist()
        except (pa.ArrowException, ValueError, OverflowError) as error:
            for i in range(len(column)):
                with contextlib.suppress(pa.ArrowException, ValueError, OverflowError):
                    column.slice(i, 1).validate(full=True)
                    column.slice(i, 1).to_pylist()
                    continue
                raise BadInput(
                    f"{path}, row {first + i}: '{name}' is no value of its type, such as text that "
                    "is not UTF-8: save the file again."
                ) from error
            raise BadInput(f"{path}: '{name}' is damaged: save the file again.") from error
    return found


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Converts the errors of file readers to BadInput."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        kind = "xz" if path.suffix.lower() == ".xz" else "gzip"
        raise BadInput(f"{path} is not a whole {kind} file: compress it again.") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter: the name of a column
        raise BadInput(f"{path} is damaged or of another format: save it again.") from error
    except OSError as error:
        reason = error.strerror or "it is damaged"
        raise BadInput(f"{path} cannot be read: {reason}.") from error
