"""Caches a model's answers and their cost in an append-only file of JSON lines.

A line is one attempt. Lines with a text are answers, looked up by key. The others (refusals,
errors, truncated answers) only count towards the usage, and their requests are sent again. A line
is written when its answer arrives: a killed process loses the requests in flight, a power failure
up to a second more.
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

FSYNC_SECONDS = 1.0  # answers that arrive within this time share an fsync


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attempt at a request and its outcome.

    key: of the request. text: None unless the outcome is "ok". detail: the kind of failure, such as
    "HTTP 503", never a text. Token counts are the server's; if uncertain is set, it gave none and
    they are an upper bound. cost: in the currency of the prices.
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
    """Usage: sums over attempts. Those without the server's counts are in `uncertain_*`.

    outcomes: attempts by outcome. requests: those that reached the server.
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
        """Adds one attempt."""
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
        """Attempts that got an answer of the model, usable or not."""
        return sum(self.outcomes[name] for name in (OK, REFUSED, TRUNCATED, EMPTY))

    @property
    def most_tokens(self) -> int:
        """Tokens, with the upper bound of uncertain attempts."""
        return self.prompt_tokens + self.completion_tokens + self.uncertain_tokens

    @property
    def most_cost(self) -> float:
        """Cost, with the upper bound of uncertain attempts."""
        return self.cost + self.uncertain_cost


class Cache:
    """An open cache file, locked until it is closed or garbage-collected.

    answers: {key: text}. ever: usage in the whole file. now: usage since opening.
    """

    def __init__(self, path: str | Path):
        """Opens or creates the file.

        An incomplete last line, left by a killed process, is moved to <path>.torn. Raises BadInput
        if another process has the file open, or if a line is damaged.
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
                f"the cache {path} is in use: wait for the other run to end, or set another cache."
            ) from None
        self._synced = time.monotonic()
        try:
            self._read()
        except BadInput:
            self.close()
            raise

    def append(self, attempt: Attempt) -> None:
        """Writes one attempt. It is on disk after at most a second, or after sync().

        Raises BadInput if the disk is full, and leaves the file unchanged.
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
        """Waits until all attempts are on disk."""
        os.fsync(self._fd)
        self._synced = time.monotonic()

    def _take(self, attempt: Attempt) -> None:
        self.ever.add(attempt)
        if attempt.text is not None:
            self.answers[attempt.key] = attempt.text

    def _read(self) -> None:
        whole = 0  # bytes of complete lines
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
                "request it again."
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
