"""Defines the exception for bad user input."""

import contextlib
from collections.abc import Iterator


class BadInput(Exception):
    """User input is unusable. The message is one sentence: what is wrong, where, what to do.

    Commands print the message and exit with code 2. Messages identify rows by id or line, never by
    their text, which may be harmful.
    """


@contextlib.contextmanager
def given_as(key: str) -> Iterator[None]:
    """Adds the flag or config key by which an input was given to the message of a BadInput."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{key}: {error}") from error
