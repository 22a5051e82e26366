"""The record of everything that was asked of a model: answers to use again, and what they cost.

One append-only file of JSON lines, a line for each attempt. A line that holds a text is an answer,
found again by its key; the others (refusals, errors, truncated answers) are there for the account
alone, and what they stand for is asked again. A line is written as soon as its answer is there: a
killed process loses the requests in flight, a machine without power the last second as well.
"""

import collections
import dataclasses
import errno
import json
import os
import time
import weakref
import zlib
from pathlib import Path

import filelock
from absl import logging

from ssl_guard.augment.llm.chat import EMPTY, OK, OUTCOMES, REFUSED, TRUNCATED, UNREACHABLE
from ssl_guard.errors import BadInput

FSYNC_SECONDS = 1.0  # answers that arrive within it share an fsync


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One request as it went out and what came back.

    key: of the request; text: None unless the outcome is "ok"; detail: the kind of failure, such as
    "HTTP 503", never a text. Tokens are what the server counted; if uncertain, nobody said and they
    are our upper bound. cost is in the currency of the prices.
    """

    key: str
    outcome: str
    text: str | None = None
    detail: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    uncertain: bool = False


@dataclasses.dataclass
class Account:
    """Sums over attempts. What the server did not confirm is apart, in `uncertain_*`.

    outcomes counts attempts by outcome; requests are those that the server has seen.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    uncertain_requests: int = 0
    uncertain_tokens: int = 0
    uncertain_cost: float = 0.0
    outcomes: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def add(self, attempt: Attempt) -> None:
        """Takes one attempt into the sums."""
        self.outcomes[attempt.outcome] += 1
        self.requests += attempt.outcome != UNREACHABLE
        if attempt.uncertain:
            self.uncertain_requests += 1
            self.uncertain_tokens += attempt.prompt_tokens + attempt.completion_tokens
            self.uncertain_cost += attempt.cost
        else:
            self.prompt_tokens += attempt.prompt_tokens
            self.completion_tokens += attempt.completion_tokens
            self.cost += attempt.cost

    @property
    def answered(self) -> int:
        """Attempts to which a model's answer came back, of use or not."""
        return sum(self.outcomes[name] for name in (OK, REFUSED, TRUNCATED, EMPTY))

    @property
    def most_tokens(self) -> int:
        """Tokens, with the upper bound where nobody counted."""
        return self.prompt_tokens + self.completion_tokens + self.uncertain_tokens

    @property
    def most_cost(self) -> float:
        """Cost, with the upper bound where nobody counted."""
        return self.cost + self.uncertain_cost


class Cache:
    """An open cache file, locked for this process until it is closed or dropped.

    answers: {key: text}; ever: the account of the whole file; now: of what was added since opening.
    """

    def __init__(self, path: str | Path):
        """Opens or begins the file.

        A last line without its end, as a killed process leaves it, is moved to <path>.torn. Raises
        BadInput if another process has the file open, or if a line in it is damaged.
        """
        self.path = Path(path)
        self.answers: dict[str, str] = {}
        self.ever, self.now = Account(), Account()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise BadInput(f"the cache {path} cannot be opened: {error.strerror}.") from error
        lock = filelock.FileLock(f"{path}.lock", thread_local=False)
        self.close = weakref.finalize(self, _close, self._fd, lock)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            self.close()
            raise BadInput(
                f"the cache {path} is in use: wait for the other run to end, or give this one "
                "a cache of its own."
            ) from None
        self._synced = time.monotonic()
        try:
            self._read()
        except BadInput:
            self.close()
            raise

    def append(self, attempt: Attempt) -> None:
        """Writes one attempt; it is on the disk after at most a second, or after sync().

        Raises BadInput if the disk is full; the file is then as it was.
        """
        entry = dataclasses.asdict(attempt)
        line = json.dumps({"crc": _crc(entry), **entry}).encode() + b"\n"
        end = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._fd, end)
            raise BadInput(f"the cache {self.path} cannot be written: {error.strerror}.") from None
        self._take(attempt)
        self.now.add(attempt)
        if time.monotonic() - self._synced >= FSYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Returns when all that was appended is on the disk."""
        os.fsync(self._fd)
        self._synced = time.monotonic()

    def _take(self, attempt: Attempt) -> None:
        self.ever.add(attempt)
        if attempt.outcome == OK:
            self.answers[attempt.key] = attempt.text

    def _read(self) -> None:
        whole = 0  # bytes that end in whole lines
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    self._set_aside(line, whole)
                    return
                self._take(self._parsed(line, number))
                whole += len(line)

    def _parsed(self, line: bytes, number: int) -> Attempt:
        try:
            entry = json.loads(line)
            if entry.pop("crc") != _crc(entry):
                raise ValueError
            attempt = Attempt(**entry)
            if attempt.outcome not in OUTCOMES or (attempt.outcome == OK) != bool(attempt.text):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise BadInput(
                f"{self.path}, line {number} is damaged: restore the file, or delete this line to "
                "have it asked again."
            ) from None
        return attempt

    def _set_aside(self, torn: bytes, whole: int) -> None:
        aside = self.path.with_name(self.path.name + ".torn")
        with open(aside, "ab") as file:
            file.write(torn + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.ftruncate(self._fd, whole)
        os.fsync(self._fd)
        logging.error(
            "%s ended in the middle of a line: its %d bytes were moved to %s.",
            self.path,
            len(torn),
            aside,
        )


def _close(fd: int, lock: filelock.BaseFileLock) -> None:
    os.close(fd)
    lock.release()


def _crc(entry: dict) -> int:
    return zlib.crc32(json.dumps(entry, sort_keys=True).encode())
