"""Reads the rows of published files, one after another.

The formats are those of readers.py, .json that holds lists by name, and .array_record of TFDS.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from ssl_guard.data import readers
from ssl_guard.errors import BadInput


def rows(path: Path, columns: tuple[str, ...]) -> Iterator[Mapping]:
    """Yields every row. columns: to read of a Parquet file. Raises BadInput for a damaged file."""
    if ".array_record" in path.name:
        return _array_record(path)
    if path.suffix == ".json":
        return _json(path)
    return _rows(path, columns)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[Mapping]:
    for place, row in readers.rows(path, columns):
        if isinstance(row, readers.BadRow):
            raise BadInput(f"{path}, {place} {row.what}: fetch the file again.")
        yield row


def _json(path: Path) -> Iterator[Mapping]:
    try:
        found = json.loads(path.read_bytes())
        lists = found.values() if isinstance(found, dict) else [found]
        yield from (row for rows in lists for row in rows)
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path} is not JSON that holds rows: fetch it again.") from error


def _array_record(path: Path) -> Iterator[Mapping]:
    """Reads a file of a prepared TFDS dataset, whose features are described beside it."""
    try:
        features = tfds.builder_from_directory(path.parent).info.features
        with ArrayRecordDataSource(str(path)) as records:
            for i in range(len(records)):
                row = features.deserialize_example_np(records[i])
                yield {k: v.decode() if isinstance(v, bytes) else v for k, v in row.items()}
    except Exception as error:  # the readers raise many kinds for a damaged file
        raise BadInput(f"{path} is damaged: let TFDS prepare it again.") from error
