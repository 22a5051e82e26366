"""Finds near-duplicates among prompts, or of known prompts.

Two prompts are near-duplicates if their sets of 3-word shingles have a Jaccard similarity of at
least 0.5, or if they are equal up to case, white space and punctuation. Prompts of fewer than 3
words are only compared in the second way. MinHash bands (Broder 1997; Leskovec et al., Mining of
Massive Datasets, 3.4) propose pairs, and the exact similarity decides. Only the hashes of a
prompt's shingles are kept, four bytes each.
"""

import collections
import dataclasses
import hashlib
import itertools
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from datasketch import MinHash

from ssl_guard.data.schema import normalised
from ssl_guard.errors import BadInput

SHINGLE = 3  # words
JACCARD = 0.5  # near-duplicates share half of their shingles
PERMUTATIONS, BAND = 63, 3  # 21 bands of 3: finds 94% of the pairs at Jaccard 0.5, 99.4% at 0.6
CHUNK = 65536  # prompts looked up at a time


@dataclasses.dataclass(frozen=True)
class Shingles:
    """The shingles of prompts: hashes[starts[i] : starts[i + 1]] are those of prompt i.

    hashes: uint32, each once in a prompt; starts: int64 [prompts + 1].
    """

    hashes: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, prompts: Iterable[str]) -> "Shingles":
        """Returns the shingles of prompts. Holds one prompt at a time."""
        return cls.of_texts(_words(prompt) for prompt in prompts)

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> "Shingles":
        """Returns the shingles of texts that `_words` has normalised."""
        sizes = [0]

        def hashes() -> Iterator[int]:
            for text in texts:
                words = text.split()
                runs = [" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)]
                found = {zlib.crc32(run.encode()) for run in runs or [text]}
                sizes.append(len(found))
                yield from found

        flat = np.fromiter(hashes(), np.uint32)
        return cls(flat, np.cumsum(sizes))

    @classmethod
    def load(cls, path: str | Path) -> "Shingles":
        """Reads a file of `save`. Raises BadInput for a damaged file."""
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                found = cls(file["hashes"], file["starts"])
            ends = found.starts[0], found.starts[-1], len(found.hashes)
            if ends[0] != 0 or ends[1] != ends[2] or (np.diff(found.starts) < 0).any():
                raise ValueError("starts do not fit the hashes")
        except (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile) as error:
            raise BadInput(f"{path} is damaged: make its model again.") from error
        return found

    def save(self, path: str | Path) -> None:
        """Writes the hashes; the texts cannot be recovered from the file."""
        np.savez(path, hashes=self.hashes, starts=self.starts)

    def __add__(self, other: "Shingles") -> "Shingles":
        hashes = np.concatenate([self.hashes, other.hashes])
        return Shingles(hashes, np.concatenate([self.starts, self.starts[-1] + other.starts[1:]]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> set[int]:
        return set(self.hashes[self.starts[i] : self.starts[i + 1]].tolist())

    def bands(self) -> np.ndarray:
        """Computes MinHash bands, uint64 [bands, prompts], equal if all values of a band are."""
        found = np.empty((PERMUTATIONS // BAND, len(self)), np.uint64)
        mix = np.random.default_rng(1).integers(1 << 64, size=BAND, dtype=np.uint64) | 1
        sketch = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)
        for i, (start, end) in enumerate(itertools.pairwise(self.starts)):
            sketch.clear()
            sketch.update_batch(self.hashes[start:end].tolist())
            found[:, i] = sketch.hashvalues.reshape(-1, BAND).astype(np.uint64) @ mix
        return found


class Known:
    """An index of prompts, to look up near-duplicates of them."""

    def __init__(self, shingles: Shingles):
        self._shingles, bands = shingles, shingles.bands()
        self._order = np.argsort(bands, axis=1)
        self._sorted = np.take_along_axis(bands, self._order, axis=1)

    def near(self, others: Shingles) -> np.ndarray:
        """Tells which prompts are near-duplicates of a known one, bool [others]."""
        found = np.zeros(len(others), bool)
        for start in range(0, len(others), CHUNK):
            starts = others.starts[start : start + CHUNK + 1]
            part = Shingles(others.hashes[starts[0] : starts[-1]], starts - starts[0])
            found[start : start + CHUNK] = self._near(part)
        return found

    def _near(self, others: Shingles) -> np.ndarray:
        found = np.zeros(len(others), bool)
        for order, known, band in zip(self._order, self._sorted, others.bands(), strict=True):
            first, last = (np.searchsorted(known, band, side) for side in ("left", "right"))
            for i in np.flatnonzero((first < last) & ~found).tolist():
                own = others[i]
                found[i] = any(_linked(own, self._shingles[j]) for j in order[first[i] : last[i]])
        return found


def near_duplicate_groups(prompts: Iterable[str]) -> list[list[int]]:
    """Groups positions of near-duplicate prompts, as connected components by first position."""
    numbers: dict[bytes, int] = {}  # of the distinct texts, by hash
    text_of: list[int] = []

    def distinct() -> Iterator[str]:
        for prompt in prompts:
            text = _words(prompt)
            key = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if key not in numbers:
                numbers[key] = len(numbers)
                yield text
            text_of.append(numbers[key])

    component_of = _components(Shingles.of_texts(distinct()))
    groups = collections.defaultdict(list)
    for position, text in enumerate(text_of):
        groups[component_of[text]].append(position)
    return list(groups.values())


def group_numbers(prompts: Iterable[str]) -> np.ndarray:
    """Returns the number of each prompt's group in `near_duplicate_groups`, int64 [prompts]."""
    groups = near_duplicate_groups(prompts)
    numbers = np.empty(sum(map(len, groups)), np.int64)
    for number, members in enumerate(groups):
        numbers[members] = number
    return numbers


def _components(shingles: Shingles) -> list[int]:
    """Returns the representative prompt of every prompt's component."""
    parent = list(range(len(shingles)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for band in shingles.bands():
        for bucket in _buckets(band):
            if len({root(i) for i in bucket}) == 1:
                continue
            sets = {i: shingles[i] for i in bucket}
            parts: list[list[int]] = []  # of the bucket, each within one component
            for i in bucket:
                merged, others = [i], []
                for part in parts:
                    if root(i) == root(part[0]) or any(_linked(sets[i], sets[j]) for j in part):
                        parent[root(i)] = root(part[0])
                        merged += part
                    else:
                        others.append(part)
                parts = [*others, merged]
    return [root(i) for i in range(len(parent))]


def _buckets(band: np.ndarray) -> Iterator[list[int]]:
    """Yields the places of each value that occurs more than once."""
    order = np.argsort(band, kind="stable")
    ends = np.flatnonzero(np.diff(band[order])) + 1
    starts = np.concatenate([[0], ends])
    sizes = np.diff(np.concatenate([starts, [len(band)]]))
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        yield order[start : start + size].tolist()


def _linked(a: set[int], b: set[int]) -> bool:
    shared = len(a & b)
    return shared >= JACCARD * (len(a) + len(b) - shared)


def _words(prompt: str) -> str:
    """Returns the prompt's words without case and punctuation, or the prompt if it has no words."""
    return " ".join(re.findall(r"\w+", prompt.casefold())) or normalised(prompt)
