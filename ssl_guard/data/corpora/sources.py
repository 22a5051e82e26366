"""The rows of published files as their publishers store them, read one after another.

.csv  .jsonl  .json (a list, or lists by name)  .parquet  .array_record, the first three also
compressed as .gz or .xz
"""

import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from ssl_guard.errors import BadInput

OPEN = {".gz": gzip.open, ".xz": lzma.open}
FAULTS = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    csv.Error,
    pyarrow.ArrowException,
)


def rows(path: Path) -> Iterator[tuple[int, dict]]:
    """(number, row) of every row, numbers from 1. Raises BadInput for a file that is damaged."""
    try:
        if ".array_record" in path.name:
            found = _array_record(path)
        elif path.suffix == ".parquet":
            found = _parquet(path)
        else:
            found = _text(path)
        yield from enumerate(found, start=1)
    except FAULTS as error:
        raise BadInput(f"{path} is damaged or not what its name says: fetch it again.") from error


def _text(path: Path) -> Iterator[dict]:
    kind = path.with_suffix("").suffix if path.suffix in OPEN else path.suffix
    with OPEN.get(path.suffix, open)(path, "rt", encoding="utf-8-sig", newline="") as file:
        if kind == ".csv":
            csv.field_size_limit(2**31 - 1)  # a field may be a long document
            for row in csv.DictReader(file, strict=True):
                if None in row or None in row.values():
                    raise csv.Error("a row is shorter or longer than the header")
                yield row
        elif kind == ".jsonl":
            yield from (json.loads(line) for line in file if line.strip())
        else:
            found = json.load(file)
            lists = found.values() if isinstance(found, dict) else [found]
            yield from (row for rows in lists for row in rows)


def _parquet(path: Path) -> Iterator[dict]:
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


def _array_record(path: Path) -> Iterator[dict]:
    """Of a dataset that TFDS prepared: the features are described beside the file."""
    features = tfds.builder_from_directory(path.parent).info.features
    with ArrayRecordDataSource(str(path)) as records:
        for i in range(len(records)):
            row = features.deserialize_example_np(records[i])
            yield {k: v.decode() if isinstance(v, bytes) else v for k, v in row.items()}
