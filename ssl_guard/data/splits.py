"""Splits a corpus into labelled, unlabelled, dev, test and calibration rows, frozen as JSON.

Rows with near-duplicate prompts form a group. All rows of a group are on the same side, so no
prompt of dev or test is seen in training. The order of groups depends on the seed alone. Test, dev
and calibration are drawn first, so they do not depend on the labelled budget. Budgets are nested:
the labelled rows are the first of one order, which fills 100, 200, 500, 1000, ... rows with whole
groups. A budget between these splits some groups; their other rows are left out. The test rows may
also be given, from a separate corpus; their near-duplicates are then left out of other sides.
Near-duplicates of further test sets are left out of the unlabelled rows alone.

Default values are omitted from the file, so splits written by older versions keep their sha256.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Set
from pathlib import Path

from ssl_guard.data.duplicates import near_duplicate_groups
from ssl_guard.data.schema import HARMFUL, SAFE, Corpus
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import atomic_write

SCHEMA_VERSION = 1
SIDES = ("labelled", "unlabelled", "dev", "test", "calibration")
BALANCES = ("balanced", "natural")  # labelled rows: half of each class, or a random sample
DEFAULTS = {  # omitted from the file
    "calibration": (),
    "balance": "balanced",
    "stratified": False,
    "other_tests": "",
}

FIRST_BUDGET = 100  # smallest number of labelled rows that whole groups fill
ATTEMPTS = 20  # orders of groups tried, until one fills a side exactly
SHORTFALL = 0.05  # accepted share of missing rows of a side


@dataclasses.dataclass(frozen=True)
class SplitSpec:
    """A requested split: its seed, the rows of each side, and how they are drawn.

    calibration: 0 for no such rows. balance: of the labelled rows, one of BALANCES. stratified:
    whether dev, test and calibration have the share of harmful rows that the corpus has.
    other_tests: hash of the test sets whose near-duplicates are left out of the unlabelled rows.
    """

    seed: int
    labelled: int
    dev: int
    test: int
    calibration: int = 0
    balance: str = "balanced"
    stratified: bool = False
    other_tests: str = ""

    @property
    def sizes(self) -> dict[str, int]:
        """Rows by side, without sides of no rows."""
        sizes = {"labelled": self.labelled, "dev": self.dev, "test": self.test}
        return sizes | ({"calibration": self.calibration} if self.calibration else {})

    def name(self, corpus: Corpus) -> str:
        """Returns the name of the split, which is also the stem of its file."""
        more = f"+{self.calibration}" if self.calibration else ""
        more += "" if self.balance == "balanced" else f".{self.balance}"
        more += ".stratified" if self.stratified else ""
        more += f".without-{self.other_tests}" if self.other_tests else ""
        return f"{corpus.name}.{corpus.task}.{self.seed}@{self.labelled}{more}"


@dataclasses.dataclass(frozen=True)
class Split:
    """Ids of each side, in corpus order. Every row of the corpus is in exactly one of the tuples.

    left_out: rows without a label whose group is on a side that needs labels, other rows of a group
    that the labelled budget splits, and near-duplicates of given test rows and of other test sets.
    asked: SplitSpec.sizes. counts: rows by side and class.
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
    balance: str = "balanced"
    stratified: bool = False
    other_tests: str = ""


def make_split(
    corpus: Corpus,
    spec: SplitSpec,
    *,
    given_test: Set[str] = frozenset(),
    near_others: Set[str] = frozenset(),
) -> Split:
    """Draws test, dev and calibration, then the labelled rows; all others are unlabelled.

    Labels of unlabelled rows, where they exist, are for diagnostics only. The labelled rows are
    exact in number: half of them harmful, or a random sample if spec.balance is "natural". The
    sizes of the other sides are exact where group sizes permit it, and at most 5% short otherwise.
    given_test: ids of the rows that are the test side, instead of `spec.test` drawn ones.
    near_others: ids of rows that may not be unlabelled ones, see SplitSpec.other_tests.

    Raises BadInput if the corpus cannot give these sides.
    """
    labelled, dev, test, calibration = spec.labelled, spec.dev, spec.test, spec.calibration
    if labelled < 2 or dev < 2 or test < 2 or (spec.balance == "balanced" and labelled % 2):
        raise BadInput(
            f"config.data.labelled = {labelled}, dev = {dev}, test = {test}: each must be at least "
            "2, and labelled even if it is half harmful and half safe."
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
    asked = spec.sizes
    if sum(asked.values()) > harmful + safe:
        raise BadInput(
            f"config.data.{' + '.join(asked)} = {sum(asked.values())} is more than the "
            f"{harmful + safe} rows of {corpus.name} that have a label: ask for fewer."
        )

    prompts = (example.prompt for example in corpus.examples)
    groups = [_Group.of(corpus, positions) for positions in near_duplicate_groups(prompts)]
    sizes: dict[str, int] = {
        side: asked[side] for side in ("test", "dev", "calibration") if side in asked
    }
    side_of = ["unlabelled"] * len(corpus.examples)
    if given_test:
        del sizes["test"]
        inside = {i for i, example in enumerate(corpus.examples) if example.id in given_test}
        touched = [group for group in groups if not inside.isdisjoint(group.positions)]
        groups = _without(groups, touched)
        for group in touched:
            for position in group.positions:
                side_of[position] = "test" if position in inside else "left_out"
    for side, size in sizes.items():
        share = (round(size * harmful / (harmful + safe)),) if spec.stratified else ()
        drawn = _draw(groups, side, (*share, size - sum(share)), spec.seed)
        groups = _without(groups, drawn)
        for group in drawn:
            for position in group.positions:
                side_of[position] = side
    wanted = (labelled,) if spec.balance == "natural" else (labelled // 2, labelled // 2)
    for position, chosen in _first_labelled(corpus, groups, wanted, spec.seed).items():
        side_of[position] = "labelled" if chosen else "left_out"

    sides = [side for side in SIDES if side in (*asked, "unlabelled")]
    ids: dict[str, list[str]] = {side: [] for side in (*sides, "left_out")}
    counts = {side: {"rows": 0, "harmful": 0, "safe": 0, "unknown": 0} for side in ids}
    for example, side in zip(corpus.examples, side_of, strict=True):
        unlabelled = side == "unlabelled"
        if example.id in near_others if unlabelled else example.label is None:
            side = "left_out"
        ids[side].append(example.id)
        counts[side]["rows"] += 1
        counts[side][{HARMFUL: "harmful", SAFE: "safe", None: "unknown"}[example.label]] += 1
    return Split(
        name=spec.name(corpus),
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        task=corpus.task,
        seed=spec.seed,
        asked=asked,
        counts=counts,
        balance=spec.balance,
        stratified=spec.stratified,
        other_tests=spec.other_tests,
        **{side: tuple(found) for side, found in ids.items()},
    )


@dataclasses.dataclass(frozen=True)
class _Group:
    """A near-duplicate group. key: id of its first row; harmful, safe: rows of each class."""

    key: str
    positions: list[int]
    harmful: int
    safe: int

    @classmethod
    def of(cls, corpus: Corpus, positions: list[int]) -> "_Group":
        labels = [corpus.examples[position].label for position in positions]
        key = corpus.examples[positions[0]].id
        return cls(key, positions, labels.count(HARMFUL), labels.count(SAFE))

    def need(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Rows of the group, as (rows,) or (harmful, safe)."""
        return (self.harmful, self.safe) if len(size) == 2 else (self.harmful + self.safe,)


def _without(groups: list[_Group], taken: list[_Group]) -> list[_Group]:
    keys = {group.key for group in taken}
    return [group for group in groups if group.key not in keys]


def _draw(groups: list[_Group], side: str, size: tuple[int, ...], seed: int) -> list[_Group]:
    """Draws groups that fill (rows,) or (harmful, safe). Raises BadInput if they are too few."""
    drawn, short = _fill(groups, side, size, seed)
    if short > SHORTFALL * sum(size):
        raise _too_few(groups, side, size)
    return drawn


def _fill(
    groups: list[_Group], side: str, size: tuple[int, ...], seed: int
) -> tuple[list[_Group], int]:
    """Draws groups of both classes for (rows,) or (harmful, safe); returns also the shortfall.

    Takes, in seeded order, each group that still fits. Of several orders the best one is used.
    """
    best, shortest = [], sum(size)
    for attempt in range(ATTEMPTS):
        taken, left = [], size
        for group in _in_order(groups, side, attempt, seed):
            need = group.need(size)
            if any(need) and all(n <= room for n, room in zip(need, left, strict=True)):
                taken.append(group)
                left = tuple(room - n for n, room in zip(need, left, strict=True))
        both = any(group.harmful for group in taken) and any(group.safe for group in taken)
        if both and sum(left) < shortest:
            best, shortest = taken, sum(left)
        if shortest == 0:
            break
    return best, shortest


def _in_order(groups: list[_Group], side: str, attempt: int, seed: int) -> list[_Group]:
    # A hash and not a generator: independent of libraries and of other groups.
    return sorted(
        groups,
        key=lambda group: hashlib.sha256(f"{seed}:{side}:{attempt}:{group.key}".encode()).digest(),
    )


def _first_labelled(
    corpus: Corpus, groups: list[_Group], wanted: tuple[int, ...], seed: int
) -> dict[int, bool]:
    """Takes the first (rows,) or (harmful, safe) of one order that does not depend on the budget.

    Returns {position: is it labelled?} of all rows of the groups used.
    """
    left, found = list(wanted), dict[int, bool]()
    for group in _labelled_order(groups, len(wanted), seed):
        labels = {position: corpus.examples[position].label for position in group.positions}
        chosen = set()
        for position, label in labels.items():
            kind = 0 if len(wanted) == 1 or label == HARMFUL else 1
            if label is not None and left[kind]:
                left[kind] -= 1
                chosen.add(position)
        if chosen:
            found |= {position: position in chosen for position in labels}
        if not any(left):
            break
    if any(left) or len({corpus.examples[i].label for i in found if found[i]}) < 2:
        raise _too_few(groups, "labelled", wanted)
    return found


def _labelled_order(groups: list[_Group], kinds: int, seed: int) -> Iterator[_Group]:
    """Yields the groups that fill the first budget, then those that extend it to the second, and so
    on; last, those that fit in no budget."""
    rest, filled = groups, (0,) * kinds
    rows = sum(group.harmful + group.safe for group in groups)
    for budget in (FIRST_BUDGET * m * 10**n for n in itertools.count() for m in (1, 2, 5)):
        room = tuple(budget // kinds - taken for taken in filled)
        block, _ = _fill(rest, "labelled", room, seed)
        yield from block
        rest = _without(rest, block)
        needs = [group.need(filled) for group in block]
        filled = tuple(map(sum, zip(filled, *needs, strict=True)))
        if budget // kinds >= rows:
            break
    yield from _in_order(rest, "labelled", 0, seed)


def _too_few(groups: list[_Group], side: str, size: tuple[int, ...]) -> BadInput:
    harmful, safe = sum(group.harmful for group in groups), sum(group.safe for group in groups)
    return BadInput(
        f"config.data.{side} = {sum(size)} cannot be filled with both classes: {harmful} harmful "
        f"and {safe} safe rows are left for it, in {len(groups)} groups of near-duplicate prompts "
        "that stay together: ask for fewer."
    )


def freeze(split: Split, folder: str | Path) -> Path:
    """Writes `<folder>/<split.name>.json`. Raises BadInput if another split is there."""
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
    atomic_write(path, text)
    return path


def read_split(path: str | Path, corpus: Corpus) -> Split:
    """Reads a frozen split. Raises BadInput if it was edited, or is of another corpus."""
    advice = "use another config.data.dir, or delete the file to draw a new split."
    try:
        content = json.loads(Path(path).read_bytes())
        stated, version = content.pop("sha256"), content.pop("schema_version")
        ids = {side: tuple(content.pop(side)) for side in (*SIDES, "left_out") if side in content}
        split = Split(**(content | ids))
        whole = version == SCHEMA_VERSION and stated == _sha256(_content(split))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise BadInput(f"{path} is not a split that this program wrote: {advice}")
    if (split.corpus, split.task, split.corpus_sha256) != (corpus.name, corpus.task, corpus.sha256):
        raise BadInput(f"{path} was drawn from other rows than {corpus.name} has now: {advice}")
    if sorted(sum(ids.values(), ())) != sorted(example.id for example in corpus.examples):
        raise BadInput(f"{path} does not hold every id of {corpus.name} exactly once: {advice}")
    return split


def load_or_freeze(
    corpus: Corpus,
    folder: str | Path,
    spec: SplitSpec,
    *,
    given_test: Set[str] = frozenset(),
    near_others: Set[str] = frozenset(),
) -> Split:
    """Reads the frozen split of this name, or draws and freezes it.

    The arguments are those of `make_split`. Raises BadInput if the frozen one has other sizes.
    """
    if given_test:
        spec = dataclasses.replace(spec, test=len(given_test))
    path = Path(folder, f"{spec.name(corpus)}.json")
    if not path.exists():
        split = make_split(corpus, spec, given_test=given_test, near_others=near_others)
        freeze(split, folder)
        return split
    split = read_split(path, corpus)
    if split.asked != spec.sizes or split.seed != spec.seed:
        raise BadInput(
            f"{path} was drawn with dev = {split.asked['dev']} and test = {split.asked['test']}, "
            f"not {spec.dev} and {spec.test}: set these back, or use another config.data.dir."
        )
    return split


def content_sha256(split: Split) -> str:
    """Returns the hexadecimal sha256 of the split: its ids, spec and corpus."""
    return _sha256(_content(split))


def _content(split: Split) -> dict:
    content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(split)}
    return {k: value for k, value in content.items() if k not in DEFAULTS or value != DEFAULTS[k]}


def _sha256(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
