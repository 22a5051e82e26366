"""Reads augmentation sets: views of a pool as text, independent of tokenizer and length.

    data/augmented/<split>/<set>/
        <set>.tfrecord-00000-of-00004   {id, copy, op, prompt, response (if the row has one)}
        manifest.json                   recipe, pool, statistics and the shards' sha256

A row's shard follows from its id. Within a shard rows are in the pool's order and the copies of a
row are consecutive.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ssl_guard.augment.gates import Text
from ssl_guard.data import tfrecord_io
from ssl_guard.data.schema import Example
from ssl_guard.data.shards import differences_of
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import sha256_file

SCHEMA_VERSION = 1


class TextSet(NamedTuple):
    """A finished set. sha256: hash of its recipe, pool and shards."""

    folder: Path
    manifest: dict
    sha256: str

    def views(self, examples: Iterable[Example]) -> Iterator[tuple[Example, int, str, str | None]]:
        """Yields (example, copy, prompt, response) in the order of the pool, copies together.

        Raises BadInput if the set holds other rows.
        """
        shards = self.manifest["shards"]
        readers: list[Iterator[dict]] = [
            tfrecord_io.read(self.folder / shard["file"]) for shard in shards
        ]
        for example in examples:
            reader = readers[shard_of(example.id, len(readers))]
            for copy in range(self.manifest["copies"]):
                row = next(reader, None)
                if row is None or (row["id"].decode(), row["copy"]) != (example.id, copy):
                    raise BadInput(
                        f"{self.folder} has no view {copy} of row {example.id} in its place; make "
                        "the set again."
                    )
                yield example, copy, *text_of(row)


def open_set(
    folder: str | Path, *, pool: dict, made_from: dict | None = None, again: str
) -> TextSet:
    """Opens a finished set. `check` compares its shards with their sha256.

    pool: expected hashes of the pool. made_from: the expected Job.made_from, if known. again: how
    to make the set, for the error. Raises BadInput if the set is missing, or differs in pool or
    recipe.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    if not path.is_file():
        raise BadInput(f"there is no augmentation set {folder.name!r} in {folder}; {again}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["schema_version"] != SCHEMA_VERSION:
            raise BadInput(
                f"{path} has schema version {manifest['schema_version']!r} and this code reads "
                f"{SCHEMA_VERSION}; {again}"
            )
        there = manifest["made_from"]
        differences = (
            differences_of({name: there.get(name) for name in pool}, pool)
            if made_from is None
            else differences_of(there, made_from)
        )
        content = [there, manifest["shards"]]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is not the manifest of a set; {again}") from error
    if differences:
        raise BadInput(
            f"the set in {folder} was made from something else ({'; '.join(differences)}); {again}"
        )
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return TextSet(folder, manifest, digest)


def check(text_set: TextSet, *, again: str) -> None:
    """Raises BadInput if a shard is missing or has changed."""
    for shard in text_set.manifest["shards"]:
        path = text_set.folder / shard["file"]
        if not path.is_file() or sha256_file(path) != shard["sha256"]:
            raise BadInput(f"{path} is missing or has changed since it was written; {again}")


def shard_of(row_id: str, shards: int) -> int:
    """Returns the number of the shard that holds a row's views."""
    return int.from_bytes(hashlib.sha256(row_id.encode()).digest()[:8], "big") % shards


def record(text: Text, **features: int | bytes) -> bytes:
    """Returns the TFRecord frame of a text and further features."""
    features["prompt"] = text.prompt.encode()
    if text.response is not None:
        features["response"] = text.response.encode()
    return tfrecord_io.frame(tfrecord_io.serialise(features))


def text_of(row: dict) -> Text:
    """Returns the text of a row written by `record`."""
    response = row.get("response")
    return Text(row["prompt"].decode(), None if response is None else response.decode())
