"""Stores views of tokenised rows as sharded TFRecords (data/tfrecord_io.py) with random access.

One view of the data (labelled, unlabelled, its strong copies, dev, test) is one folder:

    <view>.tfrecord-00000-of-00004         records; record i of the view is in shard i % 4
    <view>.tfrecord-00000-of-00004.index   NumPy array of (offset, size, length), one per record
    features.json, dataset_info.json       for tfds.builder_from_directory(folder)
    manifest.json                          what the view was made from, counts, sha256 of each
                                           file, share of records that repeat another row's

A folder is renamed when it is complete, so a killed writer leaves no partial view. A record's
features are id (bytes), input_ids (bytes of little-endian int32, four times cheaper to parse than
an int64 list) and the int64 scalars second, cut, label, index, copy. In Python a record is a dict
of these: id a str, input_ids int32 [length], the rest ints.
"""

import contextlib
import hashlib
import itertools
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from ssl_guard.data import tfrecord_io
from ssl_guard.data.records import Records
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import sha256_file, whole_folder

SCHEMA_VERSION = 2
INTEGERS = ("second", "cut", "label", "index", "copy")
INDEX_DTYPE = np.dtype([("offset", "<i8"), ("size", "<i8"), ("length", "<i4")])


def write_shards(
    folder: str | Path, view: str, rows: Iterable[dict], *, num_shards: int, made_from: dict
) -> dict:
    """Writes rows, in their order, as the view's folder and returns its manifest.

    rows: dicts as described above; may be a generator, one row is held at a time.
    num_shards: files; fewer if there are fewer rows.
    made_from: all that determines the rows (hashes of corpus, split and tokenizer, settings), as
        JSON values; open_shards compares it.
    An existing view is replaced at the end. Raises BadInput for no rows, and for a disk that is
    full or not writable.
    """
    with tfrecord_io.disk_errors(f"the view {view!r}", folder), whole_folder(folder) as building:
        shards, cut_rows, repeated = _write_records(building, view, iter(rows), num_shards)
        _write_tfds_metadata(building, view, shards)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "view": view,
            "count": sum(shard["records"] for shard in shards),
            "cut_rows": cut_rows,
            "repeated_share": repeated,
            "made_from": made_from,
            "shards": shards,
        }
        (building / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def _write_records(
    folder: Path, view: str, rows: Iterator[dict], num_shards: int
) -> tuple[list[dict], int, float]:
    """Writes the shards; returns their manifest entries, truncated rows and `repeated_share`."""
    first = list(itertools.islice(rows, num_shards))
    if not first:
        raise BadInput(f"the view {view!r} has no rows; nothing was written to its folder.")
    paths = [
        folder / f"{view}.tfrecord-{shard:05d}-of-{len(first):05d}" for shard in range(len(first))
    ]
    indices, cut_rows = [array("q") for _ in paths], 0
    contents, owners = array("Q"), array("q")
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for number, row in enumerate(itertools.chain(first, rows)):
            file, index = files[number % len(files)], indices[number % len(files)]
            data = _serialise(row)
            index.extend((file.tell(), len(data), len(row["input_ids"])))
            file.write(tfrecord_io.frame(data))
            cut_rows += row["cut"] > 0
            tokens = np.ascontiguousarray(row["input_ids"], "<i4").tobytes()
            contents.frombytes(hashlib.blake2b(tokens, digest_size=8).digest())
            owners.append(row["index"])
    shards = []
    for path, index in zip(paths, indices, strict=True):
        index_path = path.with_name(path.name + ".index")
        with index_path.open("wb") as file:
            columns = np.asarray(index).reshape(-1, 3).T
            np.save(file, np.rec.fromarrays(columns, INDEX_DTYPE), allow_pickle=False)
        shards.append(
            {
                "file": path.name,
                "records": len(index) // 3,
                "bytes": path.stat().st_size,
                "sha256": sha256_file(path),
                "index_sha256": sha256_file(index_path),
            }
        )
    return shards, cut_rows, repeated_share(np.asarray(contents), np.asarray(owners))


def repeated_share(contents: np.ndarray, owners: np.ndarray) -> float:
    """Returns the share of records that equal a record of another row.

    contents: uint64 [records], hashes; owners: int64 [records], the row that each is a copy of.
    """
    order = np.lexsort((owners, contents))
    contents, owners = contents[order], owners[order]
    first = np.flatnonzero(np.r_[True, contents[1:] != contents[:-1]])  # of each distinct content
    last = np.r_[first[1:], len(contents)] - 1
    shared = owners[first] != owners[last]
    return float((last - first + 1)[shared].sum() / len(contents))


def _write_tfds_metadata(folder: Path, view: str, shards: list[dict]) -> None:
    integer = tfds.features.Tensor(shape=(), dtype=np.int64)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder,
        template="{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        dataset_name="ssl_guard",
        filetype_suffix="tfrecord",
    )
    split = tfds.core.SplitInfo(
        name=view,
        shard_lengths=[shard["records"] for shard in shards],
        num_bytes=sum(shard["bytes"] for shard in shards),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features={
            "id": tfds.features.Text(),
            "input_ids": tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding="bytes"),
            **{name: integer for name in INTEGERS},
        },
        split_infos=[split],
        filename_template=template,
        check_data=False,  # which would read a record with tensorflow
    )


def open_shards(folder: str | Path, view: str, *, made_from: dict, rebuild: str) -> Records:
    """Opens a view and checks all its files.

    made_from: the expected value. rebuild: the command that writes the view again, for errors.
    Raises BadInput for a missing or unreadable manifest, another schema version, a view made from
    something else (with the differences), and a missing or changed file.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    again = f"make it again with: {rebuild}"
    if not path.is_file():
        raise BadInput(f"there is no complete view {view!r} in {folder}; {again}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        if version != SCHEMA_VERSION:
            raise BadInput(
                f"{path} has schema version {version!r} and this code reads {SCHEMA_VERSION}; "
                f"{again}"
            )
        if manifest["view"] != view:
            raise BadInput(f"{path} is of the view {manifest['view']!r}, not {view!r}; {again}")
        differences = differences_of(manifest["made_from"], json.loads(json.dumps(made_from)))
        if differences:
            raise BadInput(
                f"the view in {folder} was made from something else "
                f"({'; '.join(differences)}); {again}"
            )
        if sum(shard["records"] for shard in manifest["shards"]) != manifest["count"]:
            raise ValueError("the shards are not the view's")
        for shard in manifest["shards"]:
            _check_file(folder / shard["file"], shard["sha256"], again)
            _check_file(folder / f"{shard['file']}.index", shard["index_sha256"], again)
        return ShardRecords(folder, manifest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is not a manifest of shards; {again}") from error


def differences_of(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Lists the leaves that differ between two JSON objects: "key: old there, new now"."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences_of(a, b, f"{prefix}{key}.")
        elif key not in old or key not in new or a != b:
            was = json.dumps(a) if key in old else "absent"
            found.append(
                f"{prefix}{key}: {was} there, {json.dumps(b) if key in new else 'absent'} now"
            )
    return found


def _check_file(path: Path, sha256: str, again: str) -> None:
    if not path.is_file():
        raise BadInput(f"{path} is missing; {again}")
    if sha256_file(path) != sha256:
        raise BadInput(f"{path} has changed since it was written; {again}")


class _Files:
    """File descriptors that are closed with the last reference to this object."""

    def __init__(self, paths: Iterable[Path]):
        self.numbers = []
        for path in paths:
            self.numbers.append(os.open(path, os.O_RDONLY))

    def __del__(self):
        for number in self.numbers:
            os.close(number)


class ShardRecords(Records):
    """A view's records, in the order they were written, read from its files one by one.

    Made by open_shards, which checks the files. Uses 24 bytes of memory a record.
    """

    def __init__(self, folder: Path, manifest: dict):
        self.manifest = manifest
        self._paths = [folder / shard["file"] for shard in manifest["shards"]]
        index = np.empty(manifest["count"], INDEX_DTYPE)
        for shard, path in enumerate(self._paths):
            index[shard :: len(self._paths)] = np.load(f"{path}.index", allow_pickle=False)
        # pread and not a memory map, whose pages would stay in memory after they are read.
        self._files = _Files(self._paths)
        self._offset, self._size = index["offset"], index["size"]
        self.lengths = np.ascontiguousarray(index["length"])

    def gather(self, indices: Iterable[int]) -> list[dict]:
        """Returns the records at these positions (0 <= i < len), in this order.

        Raises BadInput, naming shard and record, when a record does not match its CRC.
        """
        return [self._read(int(i)) for i in indices]

    def _read(self, i: int) -> dict:
        shard, size = i % len(self._paths), int(self._size[i])
        framed = tfrecord_io.HEADER.size + size + tfrecord_io.FOOTER.size
        data = tfrecord_io.unframe(os.pread(self._files.numbers[shard], framed, self._offset[i]))
        if data is None:
            raise BadInput(
                f"record {i // len(self._paths)} of {self._paths[shard]} is corrupt; "
                "delete the folder and prepare the data again."
            )
        row = tfrecord_io.parse(data)
        tokens = np.frombuffer(row["input_ids"], "<i4")
        return row | {"id": row["id"].decode(), "input_ids": tokens}


def _serialise(row: dict) -> bytes:
    tokens = np.asarray(row["input_ids"], "<i4").tobytes()
    features = {"id": row["id"].encode(), "input_ids": tokens}
    return tfrecord_io.serialise(features | {name: row[name] for name in INTEGERS})
