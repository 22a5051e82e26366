"""Stores soft labels of an unlabelled pool: a probability and a weight for each row.

    <folder>/
        soft_labels.tfrecord    {id, harmful: float32 probability, weight: float32}, pool order
        manifest.json           made_from: the pool's hashes and the recipe; its results; sha256

They belong to rows and not to tokens, so they fit any tokenizer and length.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_guard.data import tfrecord_io
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import atomic_write, sha256_file, write_json

SCHEMA_VERSION = 1
RECORDS, MANIFEST = "soft_labels.tfrecord", "manifest.json"


class SoftLabels(NamedTuple):
    """Soft labels of a pool. harmful, weight: float32 [pool]; sha256: of both."""

    harmful: np.ndarray
    weight: np.ndarray
    sha256: str


def write(
    folder: Path,
    ids: Sequence[str],
    harmful: np.ndarray,
    weight: np.ndarray,
    *,
    made_from: dict,
    results: dict,
) -> dict:
    """Writes soft labels, replacing those of the folder, and returns the manifest.

    ids: of the pool's rows, in order; harmful: float [pool] in [0, 1]; weight: float [pool] >= 0.
    made_from: hashes of the pool and settings; results: anything to read later, both JSON values.
    """
    columns = (np.asarray(values, np.float32).tolist() for values in (harmful, weight))
    rows = zip(ids, *columns, strict=True)
    frames = [
        tfrecord_io.frame(tfrecord_io.serialise({"id": i.encode(), "harmful": q, "weight": w}))
        for i, q, w in rows
    ]
    content = b"".join(frames)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "count": len(ids),
        "made_from": made_from,
        "results": results,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    with tfrecord_io.disk_errors("soft labels", folder):
        atomic_write(folder / RECORDS, content)
        write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path) -> dict | None:
    """Reads the manifest; None if the folder has no soft labels, or damaged ones."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known = manifest["schema_version"] == SCHEMA_VERSION
        whole = known and manifest["sha256"] == sha256_file(folder / RECORDS)
    except (OSError, ValueError, KeyError, TypeError):  # of the files, JSON, another JSON value
        return None
    return manifest if whole else None


def open_set(folder: Path, ids: Sequence[str], *, pool: dict) -> SoftLabels:
    """Opens the soft labels of a pool.

    ids: of the pool's rows, in order; pool: expected hashes of corpus and split. Raises BadInput if
    they are missing, damaged, or of other rows.
    """
    again = "make them with: python -m ssl_guard teach"
    manifest = read_manifest(folder)
    if manifest is None:
        raise BadInput(f"{folder} has no soft labels, or damaged ones; {again}")
    if {key: manifest["made_from"].get(key) for key in pool} != pool:
        raise BadInput(f"the soft labels in {folder} are of another corpus or split; {again}")
    other = BadInput(f"{folder} has soft labels of other rows than the unlabelled pool; {again}")
    if manifest["count"] != len(ids):
        raise other
    harmful, weight = np.zeros((2, len(ids)), np.float32)
    for i, row in enumerate(tfrecord_io.read(folder / RECORDS)):
        if row["id"].decode() != ids[i]:
            raise other
        harmful[i], weight[i] = row["harmful"], row["weight"]
    return SoftLabels(harmful, weight, manifest["sha256"])
