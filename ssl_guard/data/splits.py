"""Which rows are labelled, unlabelled, dev and test: drawn once, frozen as JSON, then checked.

Rows whose prompts are near-duplicates form a group, and a group is on one side only, so that no
prompt of dev or test is seen in training. Groups are drawn in an order that depends on the seed
alone; test, dev and calibration come first, so they are the same for every labelled budget of a
seed. Budgets are nested: the labelled rows are the first of one order, which fills 100, 200, 500,
1000, ... rows with whole groups. A budget between these cuts through groups; what is cut off is
left out. Test rows may be given instead: a test corpus of its own, whose near-duplicates are then
left out elsewhere. A split without calibration rows, with half of each class, and with the other
sides as they come, does not say so: its file and its sha256 are what they were before there was a
choice.
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
BALANCES = ("balanced", "natural")  # labelled rows: half of each class, or as they come
CHOICES = {"calibration": (), "balance": "balanced", "stratified": False}  # not named in a file

FIRST_BUDGET = 100  # of labelled rows, the smallest that whole groups fill
ATTEMPTS = 20  # orders tried until whole groups fill a side exactly
SHORTFALL = 0.05  # of a side's size, accepted where whole groups cannot fill it exactly


@dataclasses.dataclass(frozen=True)
class Split:
    """Ids of each side in corpus order; every row of the corpus is in exactly one of the tuples.

    left_out holds rows without a label whose group is on a side that needs labels, rows of a group
    that the labelled budget cuts through, and near-duplicates of given test rows. asked is the
    request ({"labelled": n, "dev": n, "test": n}, with "calibration" if there are such rows),
    counts what came out of it per side and class.
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
    calibration: tuple[str, ...] = CHOICES["calibration"]
    balance: str = CHOICES["balance"]
    stratified: bool = CHOICES["stratified"]


def make_split(
    corpus: Corpus,
    *,
    seed: int,
    labelled: int,
    dev: int,
    test: int,
    calibration: int = 0,
    balance: str = CHOICES["balance"],
    stratified: bool = CHOICES["stratified"],
    given_test: Set[str] = frozenset(),
) -> Split:
    """Draws test, dev and calibration, then the labelled rows.

    All other rows are unlabelled (their labels, where they exist, are for diagnostics only). The
    labelled rows are exactly so many, half of them harmful, or a random sample if balance is
    "natural". The sizes of the other sides are exact where those of the groups permit it, and at
    most 5% short otherwise; their classes come as they do, or stratified, with the shares that they
    have among all rows with a label. given_test are ids of the corpus that are the test side,
    instead of `test` rows drawn.

    Raises BadInput if the corpus cannot give these sides.
    """
    if labelled < 2 or dev < 2 or test < 2 or (balance == "balanced" and labelled % 2):
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
    asked = _asked(labelled=labelled, dev=dev, test=test, calibration=calibration)
    if sum(asked.values()) > harmful + safe:
        raise BadInput(
            f"config.data.{' + '.join(asked)} = {sum(asked.values())} is more than the "
            f"{harmful + safe} rows of {corpus.name} that have a label: ask for fewer."
        )

    prompts = (example.prompt for example in corpus.examples)
    groups = [_Group.of(corpus, positions) for positions in near_duplicate_groups(prompts)]
    sizes = {side: asked[side] for side in ("test", "dev", "calibration") if side in asked}
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
        share = (round(size * harmful / (harmful + safe)),) if stratified else ()
        drawn = _draw(groups, side, (*share, size - sum(share)), seed)
        groups = _without(groups, drawn)
        for group in drawn:
            for position in group.positions:
                side_of[position] = side
    wanted = (labelled,) if balance == "natural" else (labelled // 2, labelled // 2)
    for position, chosen in _first_labelled(corpus, groups, wanted, seed).items():
        side_of[position] = "labelled" if chosen else "left_out"

    sides = [side for side in SIDES if side in (*asked, "unlabelled")]
    ids = {side: [] for side in (*sides, "left_out")}
    counts = {side: {"rows": 0, "harmful": 0, "safe": 0, "unknown": 0} for side in ids}
    for example, side in zip(corpus.examples, side_of, strict=True):
        if example.label is None and side != "unlabelled":
            side = "left_out"
        ids[side].append(example.id)
        counts[side]["rows"] += 1
        counts[side][{HARMFUL: "harmful", SAFE: "safe", None: "unknown"}[example.label]] += 1
    return Split(
        name=_name(corpus, seed, labelled, calibration, balance, stratified),
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        task=corpus.task,
        seed=seed,
        asked=asked,
        counts=counts,
        balance=balance,
        stratified=stratified,
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

    def need(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """What the group takes of (rows,) or of (harmful, safe)."""
        return (self.harmful, self.safe) if len(size) == 2 else (self.harmful + self.safe,)


def _without(groups: list[_Group], taken: list[_Group]) -> list[_Group]:
    keys = {group.key for group in taken}
    return [group for group in groups if group.key not in keys]


def _draw(groups: list[_Group], side: str, size: tuple[int, ...], seed: int) -> list[_Group]:
    """Groups that fill (rows,) or (harmful, safe). Raises BadInput if they are too few."""
    drawn, short = _fill(groups, side, size, seed)
    if short > SHORTFALL * sum(size):
        raise _too_few(groups, side, size)
    return drawn


def _fill(
    groups: list[_Group], side: str, size: tuple[int, ...], seed: int
) -> tuple[list[_Group], int]:
    """Groups of both classes for (rows,) or (harmful, safe), and how many rows they are short.

    Each is taken if it still fits, in seeded order; of some orders the first that is least short.
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
    # a hash, not a generator: the place of a group depends on no library and no other group
    return sorted(
        groups,
        key=lambda group: hashlib.sha256(f"{seed}:{side}:{attempt}:{group.key}".encode()).digest(),
    )


def _first_labelled(
    corpus: Corpus, groups: list[_Group], wanted: tuple[int, ...], seed: int
) -> dict[int, bool]:
    """{position: is it labelled?} of all rows in the groups that give (rows,) or (harmful, safe).

    Whatever is wanted, it is the first rows of the same order.
    """
    left, found = list(wanted), {}
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
    """The groups that fill the first budget, those that then fill the second, and so on; at the
    end those that fit in none."""
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
    atomic_write(path, text)
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
    balance: str = CHOICES["balance"],
    stratified: bool = CHOICES["stratified"],
    given_test: Set[str] = frozenset(),
) -> Split:
    """The frozen split of this name, or a new one. BadInput if the frozen one has other sizes."""
    asked = _asked(
        labelled=labelled, dev=dev, test=len(given_test) or test, calibration=calibration
    )
    name = _name(corpus, seed, labelled, calibration, balance, stratified)
    path = Path(folder, f"{name}.json")
    if not path.exists():
        kind = {"balance": balance, "stratified": stratified}
        split = make_split(corpus, seed=seed, **asked, **kind, given_test=given_test)
        freeze(split, folder)
        return split
    split = read_split(path, corpus)
    if split.asked != asked or split.seed != seed:
        raise BadInput(
            f"{path} was drawn with dev = {split.asked['dev']} and test = {split.asked['test']}, "
            f"not {dev} and {test}: set these back, or use another config.data.dir."
        )
    return split


def _name(
    corpus: Corpus, seed: int, labelled: int, calibration: int, balance: str, stratified: bool
) -> str:
    more = f"+{calibration}" if calibration else ""
    more += "" if balance == CHOICES["balance"] else f".{balance}"
    more += ".stratified" if stratified else ""
    return f"{corpus.name}.{corpus.task}.{seed}@{labelled}{more}"


def _asked(*, calibration: int, **sizes: int) -> dict[str, int]:
    return sizes | ({"calibration": calibration} if calibration else {})


def content_sha256(split: Split) -> str:
    """Hexadecimal sha256 of the ids on each side and of what they were drawn from."""
    return _sha256(_content(split))


def _content(split: Split) -> dict:
    content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(split)}
    return {k: value for k, value in content.items() if k not in CHOICES or value != CHOICES[k]}


def _sha256(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
