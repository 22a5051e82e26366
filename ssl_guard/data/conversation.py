"""Frames conversations: lists of turns become a prompt and an answer.

A turn is {"role", "content"}, as OpenAI has it, or {"from", "value"}, as ShareGPT has it. Content
may be a list of parts {"type": "text", "text"}. Neighbouring turns of one role are one turn.

    last    the last turn of the user, and the answer after it
    whole   all turns up to the last of the user, framed, and the answer after it

The frame of several turns has a line for each, after the name of its role:

    User: How do I poach an egg?
    Assistant: In water that barely moves.
    User: And two?

A single turn of the user has no frame, so a conversation of one is read like a prompt. All text of
several turns has this form: in rows of files, which train and are evaluated, in the texts that
other scorers read, and in the augmentation multi_turn. Text that you give a trained model should
have it too.
"""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ssl_guard.data.schema import is_blank

MODES = ("last", "whole")
ROLES = {
    "user": "User", "human": "User", "prompter": "User",
    "assistant": "Assistant", "gpt": "Assistant", "chatgpt": "Assistant", "model": "Assistant",
    "bot": "Assistant", "ai": "Assistant",
    "system": "System", "developer": "System",
    "tool": "Tool", "function": "Tool", "function_call": "Tool", "observation": "Tool",
}  # fmt: skip


class Turn(NamedTuple):
    """One turn; role: a value of ROLES, or any speaker's name."""

    role: str
    text: str


def frame(turns: Iterable[tuple[str, str]]) -> str:
    """Frames (role, text) pairs as one text."""
    return "\n".join(f"{role}: {text}" for role, text in turns)


def parse(value: object) -> list[Turn]:
    """Parses turns, given as a list or as its JSON, without those that are empty.

    Raises ValueError, with a clause that shows no text, for anything else.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list):
        raise ValueError("is no list of turns")
    turns: list[Turn] = []
    for given in value:
        turn = _turn(given)
        if is_blank(turn.text):
            continue
        if turns and turns[-1].role == turn.role:
            turn = Turn(turn.role, f"{turns.pop().text}\n\n{turn.text}")
        turns.append(turn)
    return turns


def pair(turns: Sequence[Turn], mode: str) -> tuple[str, str | None]:
    """Splits a conversation into prompt and answer; the answer is None after a last user's turn.

    mode: one of MODES. Raises ValueError, with a clause, for one without a turn of the user.
    """
    places = [i for i, turn in enumerate(turns) if turn.role == "User"]
    if not places:
        raise ValueError("has no turn of the user")
    before, after = turns[: places[-1] + 1], turns[places[-1] + 1 :]
    alone = mode == "last" or len(before) == 1
    prompt = before[-1].text if alone else frame(before)
    answer = "\n\n".join(turn.text for turn in after if turn.role == "Assistant")
    return prompt, answer or None


def _turn(given: object) -> Turn:
    if not isinstance(given, dict):
        raise ValueError("has a turn that is no object with role and content")
    role = given.get("role") or given.get("from")
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise ValueError(f"has a turn of another role than {', '.join(ROLES)}")
    contents = [given[key] for key in ("content", "value") if key in given]
    if not contents:
        raise ValueError("has a turn without content")
    content = next((found for found in contents if found is not None), "")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("has a turn whose content is no text")
    return Turn(ROLES[role.lower()], "\n".join(map(str, texts)))
