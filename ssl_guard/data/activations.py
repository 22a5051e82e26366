"""Stores hidden states of records, the output of an encoder's frozen layers, for reuse in training.

    data/activations/<key>/states.npy     float32 [tokens of all records, width]
    data/activations/<key>/manifest.json  what the states were made from, sha256 of states.npy

The key is the sha256 of what the states were made from. A folder is renamed when it is complete.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ssl_guard.data import tfrecord_io
from ssl_guard.data.records import Records
from ssl_guard.runtime.files import sha256_file, whole_folder


class WithStates(Records):
    """Records with `states` beside their input_ids: float32 [length, width] each.

    states: float32 [tokens of all records, width], one record after the other.
    """

    def __init__(self, records: Records, states: np.ndarray):
        self._records, self._states = records, states
        self.lengths, self.manifest = records.lengths, records.manifest
        self._ends = np.cumsum(self.lengths, dtype=np.int64)

    def gather(self, indices: Iterable[int]) -> list[dict]:
        """Returns the records at these positions, in this order."""
        indices = list(indices)
        return [
            row | {"states": self._states[self._ends[i] - self.lengths[i] : self._ends[i]]}
            for i, row in zip(indices, self._records.gather(indices), strict=True)
        ]


def with_states(
    records: Records,
    batches: Iterator[tuple[np.ndarray, np.ndarray]],
    folder: Path,
    *,
    width: int,
    made_from: dict,
) -> WithStates:
    """Returns the records with their stored states, which are computed if they are missing.

    batches: (states, float32 [rows, length, width], without padding before a text; the positions
        of the rows in `records`, int [rows]), until all records had their turn. Read only if the
        states are missing, damaged, or made from something else.
    folder: of all stored states; made_from: JSON values that determine these states.

    Raises BadInput for a disk that is full or not writable.
    """
    made_from = {"tokens_sha256": _tokens_sha256(records)} | made_from
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    if not _whole(folder / key):
        with tfrecord_io.disk_errors("the activations", folder):
            _write(folder / key, records, batches, width, made_from)
    # A memory map: states are many times larger than tokens.
    return WithStates(records, np.load(folder / key / "states.npy", mmap_mode="r"))


def _tokens_sha256(records: Records) -> str:
    """Hashes the tokens of records: some rows of a view have the manifest of the whole view."""
    digest = hashlib.sha256(records.lengths.astype("<i4").tobytes())
    for row in records:
        digest.update(np.array([row["second"], *row["input_ids"]], "<i4").tobytes())
    return digest.hexdigest()


def _whole(folder: Path) -> bool:
    """Returns whether the states are there as they were written."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return manifest["states_sha256"] == sha256_file(folder / "states.npy")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(folder: Path, records: Records, batches, width: int, made_from: dict) -> None:
    with whole_folder(folder) as building:
        path = building / "states.npy"
        ends = np.cumsum(records.lengths, dtype=np.int64)
        shape = (int(ends[-1]), width)
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for states, positions in batches:
            for row, i in zip(states, positions, strict=True):
                length = records.lengths[i]
                file[ends[i] - length : ends[i]] = row[:length]
        file.flush()
        del file
        manifest = {"made_from": made_from, "states_sha256": sha256_file(path)}
        (building / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
