"""Describes an augmentation set that is to be made."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_guard.augment import gates as gates_module
from ssl_guard.augment import recipe
from ssl_guard.errors import BadInput

ROWS_PER_SHARD = 2048
MIN_SHARDS, MAX_SHARDS = 4, 256  # enough for several processes; few enough to open at once

Judges = Callable[[], Sequence[gates_module.Gate]]


class Job(NamedTuple):
    """Recipe and location of a set: everything that determines it except the rows.

    folder: of the finished set.
    ops: config.augment.ops.
    arguments: {operation: {argument: value}} of the operations in ops.
    gates: arguments of gates.build.
    judges: opens the gates that need a model; workers call it, since models cannot be pickled.
    made_from: all of this and the pool's hashes, as JSON values.
    """

    folder: Path
    ops: tuple[str, ...]
    arguments: dict[str, dict]
    copies: int
    seed: int
    gates: dict
    judges: Judges | None
    shards: int
    made_from: dict

    @property
    def partial(self) -> Path:
        """The folder of the unfinished set."""
        return self.folder.with_name(f".{self.folder.name}.making")

    def file(self, shard: int) -> str:
        """The name of a shard's file."""
        return f"{self.folder.name}.tfrecord-{shard:05d}-of-{self.shards:05d}"


def plan(
    folder: str | Path,
    *,
    rows: int,
    ops: Sequence[str],
    arguments: dict[str, dict],
    copies: int,
    seed: int,
    gates: dict,
    judged: dict,
    judges: Judges | None = None,
    pool: dict,
) -> Job:
    """Makes the job of a set.

    rows: of the pool. pool: its hashes. judged: the settings behind `judges`. The others are fields
    of `Job`. Raises BadInput for an invalid recipe or copies below 1.
    """
    if copies < 1:
        raise BadInput(f"config.augment.copies = {copies} must be at least 1.")
    names = recipe.names(recipe.parse(ops))
    arguments = {name: arguments.get(name, {}) for name in names}
    made_from = pool | {
        "ops": list(ops),
        "arguments": arguments,
        "copies": copies,
        "seed": seed,
        "gates": gates | judged,
    }
    return Job(
        folder=Path(folder),
        ops=tuple(ops),
        arguments=arguments,
        copies=copies,
        seed=seed,
        gates=gates,
        judges=judges,
        shards=min(max(-(-rows // ROWS_PER_SHARD), MIN_SHARDS), MAX_SHARDS),
        made_from=json.loads(json.dumps(made_from)),
    )
