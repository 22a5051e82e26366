"""Reads rows of files, one at a time, with their places. corpora/user_file.py checks their content.

    .jsonl, .ndjson, .json  JSON lines, or one list     "line 7", "item 7" of a list
    .csv, .tsv              with a header               "line 7", the first one of the row
    .parquet                any writer's                "row 7"
    .arrow                  as datasets writes          "row 7"

and folders of them: the output of `datasets.save_to_disk`, or a dataset as downloaded from the
Hugging Face hub, with its files at the top or in data/. The first bytes of a text file say how it
is compressed (gzip, xz, Zstandard; its name may end in .gz, .xz, .zst) and encoded (UTF-8, UTF-16).

A row that cannot be used is a BadRow in its place. Every fault of the file as a whole raises
BadInput with the place. Neither shows a text.
"""

import codecs
import contextlib
import csv
import functools
import gzip
import hashlib
import io
import itertools
import json
import lzma
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import parquet

from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import sha256_file

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
SUFFIX = re.compile(r"(\.(?:jsonl|ndjson|json|csv|tsv))(?:\.(?:gz|xz|zst))?$|(\.parquet|\.arrow)$")
LONGEST = 2**28  # bytes of a line
BATCH = 1024  # rows of a Parquet or Arrow file at a time
SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"  # of datasets.save_to_disk
METADATA = (SAVED, SAVED_SPLITS, "dataset_info.json", "dataset_infos.json")  # not data files
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class BadRow(Exception):
    """A row that cannot be used.

    kind: of the fault, to count; what: a clause that shows no text; remedy: what to do.
    """

    def __init__(self, kind: str, what: str, remedy: str):
        super().__init__(what)
        self.kind, self.what, self.remedy = kind, what, remedy


Row = tuple[str, Mapping | BadRow]


def is_data(path: Path) -> bool:
    """Tells whether this is a file of a known suffix, or a folder with such files."""
    if path.is_dir():
        known = any((path / name).is_file() for name in (SAVED, SAVED_SPLITS))
        return known or bool(_data_files(path))
    return SUFFIX.search(path.name.lower()) is not None


def stem(path: Path) -> str:
    """Returns the name without its suffix, in lower case."""
    return SUFFIX.sub("", path.name.lower())


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
        raise BadInput(f"{path} holds no file that ends in {', '.join(FORMATS)}.")
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
        case ".jsonl" | ".ndjson" | ".json":
            yield from _json(path)
        case ".csv" | ".tsv":
            yield from _csv(path)
        case ".parquet":
            yield from _parquet(path, columns)
        case ".arrow":
            yield from _arrow(path, columns)


def _suffix(path: Path) -> str:
    found = SUFFIX.search(path.name.lower())
    return (found[1] or found[2]) if found else ""


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
    return sorted(file for file in usable if SUFFIX.search(file.name.lower()))


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


def _open(path: Path) -> Any:
    """Opens a file of bytes, decompressed as its first ones say; it can be peeked into."""
    with open(path, "rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path, "rb")
    if start == b"\xfd7zXZ\0":
        return lzma.open(path, "rb")
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return open(path, "rb")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (number, line with its end) of a file in UTF-8 or, with a byte order mark, UTF-16."""
    with _readable(path), _open(path) as file:
        if file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            with io.TextIOWrapper(file, "utf-16", newline="\n") as text:
                yield from enumerate(text, start=1)
            return
        for number, line in _numbered(file, str(path)):
            yield number, _text(path, line, number)


def _numbered(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Yields (number, line with its end), each within the memory of LONGEST bytes."""
    lines = iter(functools.partial(file.readline, LONGEST + 1), b"")
    for number, line in enumerate(lines, start=1):
        if len(line) > LONGEST:
            raise BadInput(f"{name}, line {number} is longer than {LONGEST >> 20} MB: split it.")
        yield number, line


def _text(path: Path, data: bytes, line: int) -> str:
    """Decodes the line of this number."""
    if b"\0" in data:
        raise BadInput(f"{path}, line {line} holds a NUL byte: save the file as plain UTF-8 text.")
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}, line {line} is not UTF-8: save the file as UTF-8.") from error


def _json(path: Path) -> Iterator[Row]:
    """Yields the rows of JSON lines, or of one list that begins with the file."""
    lines = ((number, line) for number, line in _lines(path) if not line.isspace())
    first = next(lines, (1, ""))
    if first[1].lstrip().startswith("["):
        yield from _json_list(path, "".join(line for _, line in _lines(path)))
    elif first[1]:
        for number, line in itertools.chain([first], lines):
            yield f"line {number}", _parsed(line)


def lines_of(file: BinaryIO) -> Iterator[Row]:
    """Yields (place, row) of JSON lines from standard input.

    Raises BadInput for a line longer than LONGEST.
    """
    for number, line in _numbered(file, "standard input"):
        if line.isspace():
            continue
        try:
            yield f"line {number}", _parsed(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            yield f"line {number}", BadRow("not text", "is not UTF-8", "write it as UTF-8")


def _json_list(path: Path, text: str) -> Iterator[Row]:
    try:
        items = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}, line {error.lineno} is not JSON: {error.msg}.") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a deep nest
        raise BadInput(f"{path} is JSON too large or deep to read.") from error
    for number, item in enumerate(items, start=1):
        yield f"item {number}", _checked(item)


def _parsed(line: str) -> Mapping | BadRow:
    try:
        return _checked(json.loads(line, object_pairs_hook=_object))
    except json.JSONDecodeError as error:
        return BadRow(
            "not JSON", f"is not JSON ({error.msg})", "write an object a line, or one list"
        )
    except (ValueError, RecursionError):
        return BadRow("not JSON", "is JSON too large or deep to read", "shorten it")


def _object(pairs: list[tuple[str, object]]) -> dict | BadRow:
    """Makes an object of JSON; one with a repeated key has no certain meaning."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    keys = [key for key, _ in pairs]
    twice = next(key for key in keys if keys.count(key) > 1)
    return BadRow("repeated key", f"has the key {shown(twice)} twice", "keep one")


def _checked(value: object) -> Mapping | BadRow:
    if isinstance(value, (dict, BadRow)):
        return value
    return BadRow(
        "no object", "is not a JSON object", 'write one such as {"prompt": "...", "label": 0}'
    )


def _csv(path: Path) -> Iterator[Row]:
    limit = csv.field_size_limit(2**31 - 1)  # a field may be a long document
    try:
        # a line may end in \r alone; strict: else an unclosed quote swallows the rest of the file
        lines = (part for _, line in _lines(path) for part in io.StringIO(line, newline=""))
        first = next(lines, "")
        reader = csv.reader(
            itertools.chain([first], lines), strict=True, delimiter=_delimiter(path, first)
        )
        header = [name.strip() for name in next(reader, [])]
        while header and not header[-1]:  # spreadsheets write empty columns and rows
            header.pop()
        _check_header(f"{path}, line 1", header)
        line = reader.line_num + 1
        for row in reader:
            if any(row):
                yield f"line {line}", _cells(row, header)
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num} is not CSV: {error}.") from error
    finally:
        csv.field_size_limit(limit)


def _delimiter(path: Path, header: str) -> str:
    """Returns the delimiter: a tab in .tsv, else the first of these in the header."""
    marks = "\t" if _suffix(path) == ".tsv" else ",;\t"
    return next((mark for mark in marks if mark in header), marks[0])


def _cells(row: list[str], header: list[str]) -> Mapping | BadRow:
    if len(row) < len(header) or any(row[len(header) :]):
        return BadRow(
            "number of columns",
            f"has {len(row)} columns, but line 1 has {len(header)}",
            "check its quotes and delimiters",
        )
    return dict(zip(header, row, strict=False))


def shown(word: str) -> str:
    """Formats a label or column name for an error; hides what may be the text of a row."""
    return repr(word) if re.fullmatch(r"[\w.+-]{1,20}", word) else f"{len(word)} characters"


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
