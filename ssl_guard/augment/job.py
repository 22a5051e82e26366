"""Describes an augmentation set that is to be made."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ssl_guard.augment import recipe
from ssl_guard.augment.gates import Gate
from ssl_guard.errors import BadInput

ROWS_PER_SHARD = 2048
MIN_SHARDS, MAX_SHARDS = 4, 256  # enough for several processes; few enough to open at once

Judges = Callable[[], Sequence[Gate]]


@dataclasses.dataclass(frozen=True)
class Job:
    """Recipe and location of a set. Raises BadInput for an invalid recipe or copies below 1.

    folder: of the finished set.
    rows: number of rows of the pool. pool: its hashes.
    ops: config.augment.ops. arguments: {operation: {argument: value}}; others are ignored.
    copies: views of each row.
    gates: arguments of gates.build.
    judges: opens the gates that need a model; workers call it, since models cannot be pickled.
    judged: the settings behind judges.
    """

    folder: Path
    rows: int
    pool: dict
    ops: Sequence[str]
    arguments: dict[str, dict]
    copies: int
    seed: int
    gates: dict
    judged: dict
    judges: Judges | None = None

    def __post_init__(self):
        recipe.parse(self.ops)
        if self.copies < 1:
            raise BadInput(f"config.augment.copies = {self.copies} must be at least 1.")

    @functools.cached_property
    def made_from(self) -> dict:
        """Everything that determines the set, as JSON values."""
        names = recipe.names(recipe.parse(self.ops))
        made_from = self.pool | {
            "ops": list(self.ops),
            "arguments": {name: self.arguments.get(name, {}) for name in names},
            "copies": self.copies,
            "seed": self.seed,
            "gates": self.gates | self.judged,
        }
        return json.loads(json.dumps(made_from))

    @property
    def shards(self) -> int:
        """Number of files."""
        return min(max(-(-self.rows // ROWS_PER_SHARD), MIN_SHARDS), MAX_SHARDS)

    @property
    def partial(self) -> Path:
        """The folder of the unfinished set."""
        return self.folder.with_name(f".{self.folder.name}.making")

    def file(self, shard: int) -> str:
        """Returns the name of a shard's file."""
        return f"{self.folder.name}.tfrecord-{shard:05d}-of-{self.shards:05d}"
