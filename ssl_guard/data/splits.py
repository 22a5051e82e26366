"""Which rows are labelled, unlabelled, dev and test: drawn once, frozen as JSON, then checked.

Rows whose prompts are near-duplicates form a group, and a group is on one side only, so that no
prompt of dev or test is seen in training. Groups are drawn in an order that depends on the seed
alone; test, dev and calibration come first, so they are the same for every labelled budget of a
seed. Test rows may be given instead: a test corpus of its own, whose near-duplicates are then left
out elsewhere. A split without calibration rows does not name that side: its file and its sha256
are what they were before there was one.
"""

import collections
import dataclasses
import hashlib
import json
import os
import re
import zlib
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
from datasketch import MinHash

from ssl_guard.data.schema import HARMFUL, SAFE, Corpus, normalised
from ssl_guard.errors import BadInput

SCHEMA_VERSION = 1
SIDES = ("labelled", "unlabelled", "dev", "test", "calibration")

SHINGLE = 3  # words
JACCARD = 0.5  # near-duplicates share half of their shingles
PERMUTATIONS, BAND = 63, 3  # 21 bands of 3: finds 94% of the pairs at Jaccard 0.5, 99.4% at 0.6
ATTEMPTS = 20  # orders tried until whole groups fill a side exactly
SHORTFALL = 0.05  # of a side's size, accepted where whole groups cannot fill it exactly


@dataclasses.dataclass(frozen=True)
class Split:
    """Ids of each side in corpus order; every row of the corpus is in exactly one of the tuples.

    left_out holds rows without a label whose group is on a side that needs labels, and
    near-duplicates of given test rows. asked is the request ({"labelled": n, "dev": n, "test": n},
    with "calibration" if there are such rows), counts what came out of it per side and class.
    """

    name: str
    corpus: str
    corpus_sha256: str
    task: str
    seed: int
    asked: dict[str, int]
    counts: dict[str, dict[str, int]]
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    left_out: tuple[str, ...]
    calibration: tuple[str, ...] = ()


def near_duplicate_groups(prompts: Sequence[str]) -> list[list[int]]:
    """Positions of near-duplicate prompts, as connected components in order of first position.

    Two prompts are linked if their sets of 3-word shingles have a Jaccard similarity of at least
    0.5, or if they are equal but for case, white space and punctuation, which is also all that can
    link prompts of fewer than 3 words. MinHash bands (Broder 1997; Leskovec et al., Mining of
    Massive Datasets, 3.4) propose pairs, the exact similarity decides.
    """
    texts: dict[str, list[int]] = {}  # normalised text -> positions
    for position, prompt in enumerate(prompts):
        words = re.findall(r"\w+", prompt.casefold())
        texts.setdefault(" ".join(words) or normalised(prompt), []).append(position)
    shingles = [_shingles(text) for text in texts]
    sketches = MinHash.generator(shingles, num_perm=PERMUTATIONS, seed=1, hashfunc=int)
    hashes = np.array([sketch.hashvalues for sketch in sketches]).reshape(-1, PERMUTATIONS)

    parent = list(range(len(shingles)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    def linked(i: int, j: int) -> bool:
        shared = len(shingles[i] & shingles[j])
        return shared >= JACCARD * (len(shingles[i]) + len(shingles[j]) - shared)

    for start in range(0, PERMUTATIONS, BAND):
        buckets = collections.defaultdict(list)
        for i, band in enumerate(hashes[:, start : start + BAND]):
            buckets[band.tobytes()].append(i)
        for bucket in buckets.values():
            parts: list[list[int]] = []  # of the bucket, each within one component
            for i in bucket:
                merged, others = [i], []
                for part in parts:
                    if root(i) == root(part[0]) or any(linked(i, j) for j in part):
                        parent[root(i)] = root(part[0])
                        merged += part
                    else:
                        others.append(part)
                parts = [*others, merged]

    groups = collections.defaultdict(list)
    for i, positions in enumerate(texts.values()):
        groups[root(i)] += positions
    return sorted(sorted(positions) for positions in groups.values())


def group_numbers(prompts: Sequence[str]) -> np.ndarray:
    """int64 [prompts]: the place of each prompt's group in `near_duplicate_groups`."""
    numbers = np.empty(len(prompts), np.int64)
    for number, members in enumerate(near_duplicate_groups(prompts)):
        numbers[members] = number
    return numbers


def _shingles(text: str) -> set[int]:
    """32-bit hashes of the runs of 3 words, or of the whole text if it is shorter."""
    words = text.split()
    runs = [" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)]
    return {zlib.crc32(run.encode()) for run in runs or [text]}


def make_split(
    corpus: Corpus,
    *,
    seed: int,
    labelled: int,
    dev: int,
    test: int,
    calibration: int = 0,
    given_test: Set[str] = frozenset(),
) -> Split:
    """Draws test, dev and calibration as they come, then `labelled` rows with half of each class.

    All other rows are unlabelled (their labels, where they exist, are for diagnostics only). Sizes
    are exact where the sizes of the groups permit it, and at most 5% short otherwise. given_test
    are ids of the corpus that are the test side, instead of `test` rows drawn.

    Raises BadInput if the corpus cannot give these sides.
    """
    if labelled < 2 or labelled % 2 or dev < 2 or test < 2:
        raise BadInput(
            f"config.data.labelled = {labelled}, dev = {dev}, test = {test}: each must be at least "
            "2, and labelled even, for it is half harmful and half safe."
        )
    if calibration < 0 or calibration == 1:
        raise BadInput(
            f"config.data.calibration = {calibration} must be at least 2, or 0 for no such rows."
        )
    labels = [example.label for example in corpus.examples]
    harmful, safe = labels.count(HARMFUL), labels.count(SAFE)
    if not harmful or not safe:
        raise BadInput(
            f"{corpus.name} has {harmful} harmful and {safe} safe rows, but both classes are "
            "needed: check config.data.columns.label."
        )
    asked = _asked(labelled=labelled, dev=dev, test=test, calibration=calibration)
    if sum(asked.values()) > harmful + safe:
        raise BadInput(
            f"config.data.{' + '.join(asked)} = {sum(asked.values())} is more than the "
            f"{harmful + safe} rows of {corpus.name} that have a label: ask for fewer."
        )

    prompts = [example.prompt for example in corpus.examples]
    groups = [_Group.of(corpus, positions) for positions in near_duplicate_groups(prompts)]
    sizes = {side: (asked[side],) for side in ("test", "dev", "calibration") if side in asked}
    sizes["labelled"] = (labelled // 2, labelled // 2)
    drawn = {}
    if given_test:
        del sizes["test"]
        touches = [
            any(corpus.examples[i].id in given_test for i in group.positions) for group in groups
        ]
        drawn["test"] = [group for group, hit in zip(groups, touches, strict=True) if hit]
        groups = [group for group, hit in zip(groups, touches, strict=True) if not hit]
    for side, size in sizes.items():
        drawn[side] = _draw(groups, side, size, seed)
        taken = {group.key for group in drawn[side]}
        groups = [group for group in groups if group.key not in taken]
    drawn["unlabelled"] = groups

    sides = [side for side in SIDES if side in drawn]
    side_of = {
        position: side for side in sides for group in drawn[side] for position in group.positions
    }
    ids = {side: [] for side in (*sides, "left_out")}
    counts = {side: {"rows": 0, "harmful": 0, "safe": 0, "unknown": 0} for side in ids}
    for position, example in enumerate(corpus.examples):
        side = side_of[position]
        if example.label is None and side != "unlabelled":
            side = "left_out"
        if given_test and side == "test" and example.id not in given_test:
            side = "left_out"
        ids[side].append(example.id)
        counts[side]["rows"] += 1
        counts[side][{HARMFUL: "harmful", SAFE: "safe", None: "unknown"}[example.label]] += 1
    return Split(
        name=_name(corpus, seed, labelled, calibration),
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        task=corpus.task,
        seed=seed,
        asked=asked,
        counts=counts,
        **{side: tuple(found) for side, found in ids.items()},
    )


@dataclasses.dataclass(frozen=True)
class _Group:
    """A near-duplicate group: the id of its first row, its positions, its rows of each class."""

    key: str
    positions: list[int]
    harmful: int
    safe: int

    @classmethod
    def of(cls, corpus: Corpus, positions: list[int]) -> "_Group":
        labels = [corpus.examples[position].label for position in positions]
        key = corpus.examples[positions[0]].id
        return cls(key, positions, labels.count(HARMFUL), labels.count(SAFE))


def _draw(groups: list[_Group], side: str, size: tuple[int, ...], seed: int) -> list[_Group]:
    """Groups that fill (rows,) or (harmful, safe), each taken if it still fits, in seeded order."""
    best, shortest = [], sum(size)
    for attempt in range(ATTEMPTS):
        # a hash, not a generator: the place of a group depends on no library and no other group
        order = {
            group.key: hashlib.sha256(f"{seed}:{side}:{attempt}:{group.key}".encode()).digest()
            for group in groups
        }
        taken, left = [], size
        for group in sorted(groups, key=lambda group: order[group.key]):
            need = (group.harmful, group.safe) if len(size) == 2 else (group.harmful + group.safe,)
            if any(need) and all(n <= room for n, room in zip(need, left, strict=True)):
                taken.append(group)
                left = tuple(room - n for n, room in zip(need, left, strict=True))
        both = any(group.harmful for group in taken) and any(group.safe for group in taken)
        if both and sum(left) < shortest:
            best, shortest = taken, sum(left)
        if shortest == 0:
            return best
    harmful, safe = sum(group.harmful for group in groups), sum(group.safe for group in groups)
    if shortest > SHORTFALL * sum(size) or (len(size) == 2 and min(harmful, safe) < size[0]):
        raise BadInput(
            f"config.data.{side} = {sum(size)} cannot be filled with both classes: {harmful} "
            f"harmful and {safe} safe rows are left for it, in {len(groups)} groups of "
            "near-duplicate prompts that stay together: ask for fewer."
        )
    return best


def freeze(split: Split, folder: str | Path) -> Path:
    """Writes `<folder>/<split.name>.json` with a sha256 of its content; never changes a split."""
    path = Path(folder, f"{split.name}.json")
    content = _content(split)
    text = json.dumps({**content, "sha256": _sha256(content)}, indent=1) + "\n"
    if path.exists():
        if path.read_bytes() != text.encode():
            raise BadInput(
                f"{path} holds another split, which runs may have used: use another "
                "config.data.dir or seed, or delete the file yourself."
            )
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return path


def read_split(path: str | Path, corpus: Corpus) -> Split:
    """A frozen split; BadInput if it was edited, or belongs to another corpus."""
    advice = "use another config.data.dir, or delete the file to draw a new split."
    try:
        content = json.loads(Path(path).read_bytes())
        stated, version = content.pop("sha256"), content.pop("schema_version")
        ids = {side: tuple(content.pop(side)) for side in (*SIDES, "left_out") if side in content}
        split = Split(**content, **ids)
        whole = version == SCHEMA_VERSION and stated == _sha256(_content(split))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise BadInput(f"{path} is not a split as this program froze it: {advice}")
    if (split.corpus, split.task, split.corpus_sha256) != (corpus.name, corpus.task, corpus.sha256):
        raise BadInput(f"{path} was drawn from other rows than {corpus.name} has now: {advice}")
    if sorted(sum(ids.values(), ())) != sorted(example.id for example in corpus.examples):
        raise BadInput(f"{path} does not hold every id of {corpus.name} exactly once: {advice}")
    return split


def load_or_freeze(
    corpus: Corpus,
    folder: str | Path,
    *,
    seed: int,
    labelled: int,
    dev: int,
    test: int,
    calibration: int = 0,
    given_test: Set[str] = frozenset(),
) -> Split:
    """The frozen split of this name, or a new one. BadInput if the frozen one has other sizes."""
    asked = _asked(
        labelled=labelled, dev=dev, test=len(given_test) or test, calibration=calibration
    )
    path = Path(folder, f"{_name(corpus, seed, labelled, calibration)}.json")
    if not path.exists():
        split = make_split(corpus, seed=seed, **asked, given_test=given_test)
        freeze(split, folder)
        return split
    split = read_split(path, corpus)
    if split.asked != asked or split.seed != seed:
        raise BadInput(
            f"{path} was drawn with dev = {split.asked['dev']} and test = {split.asked['test']}, "
            f"not {dev} and {test}: set these back, or use another config.data.dir."
        )
    return split


def _name(corpus: Corpus, seed: int, labelled: int, calibration: int) -> str:
    more = f"+{calibration}" if calibration else ""
    return f"{corpus.name}.{corpus.task}.{seed}@{labelled}{more}"


def _asked(*, calibration: int, **sizes: int) -> dict[str, int]:
    return sizes | ({"calibration": calibration} if calibration else {})


def content_sha256(split: Split) -> str:
    """Hexadecimal sha256 of the ids on each side and of what they were drawn from."""
    return _sha256(_content(split))


def _content(split: Split) -> dict:
    content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(split)}
    if not split.calibration:
        del content["calibration"]
    return content


def _sha256(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
