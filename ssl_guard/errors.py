"""Defines the exception for bad user input."""


class BadInput(Exception):
    """User input is unusable. The message is one sentence: what is wrong, where, what to do.

    Commands print the message and exit with code 2. Messages identify rows by id or line, never by
    their text, which may be harmful.
    """
