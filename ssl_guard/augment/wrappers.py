"""Puts a text into a frame, a persona, a document or a conversation, and keeps its wording.

Templates are in tables/wrappers.toml. They are drawn independently of the text, so a wrapper alone
carries no information about the label. The encoder truncates the start of long prompts first: a
text far longer than the encoder's input loses its wrapper.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ssl_guard.augment.base import Rewrite, check_part, each
from ssl_guard.data import conversation
from ssl_guard.errors import BadInput

TEMPLATES = tomllib.loads(
    (Path(__file__).with_name("tables") / "wrappers.toml").read_text(encoding="utf-8")
)


def framing(texts: Iterable[str], *, part: str = "prompt") -> Rewrite:
    """Puts the text into a role-play, hypothetical, story, piece of research, or novel.

    part "prompt": the template asks for the text. The label survives because a harmful request
    stays harmful in a story, and a harmless one harmless. It may not under guidelines that excuse
    fiction or research.

    part "response": the template quotes or titles the text. The label survives because the content
    stays complete. Raises BadInput for another part.
    """
    return _filled("framing", part)


def quoting(texts: Iterable[str], *, part: str = "prompt") -> Rewrite:
    """Quotes the text verbatim in a longer benign document.

    part "prompt": the document asks for an answer to the quotation, so a request stays a request
    and the label survives. It may not if the guidelines allow mentions, as of a reported slur.

    part "response": the document reports the text. The label survives because the content stays
    complete. It may not if harm lies in saying something and not in repeating it. Raises BadInput
    for another part.
    """
    return _filled("quoting", part)


def _filled(op: str, part: str) -> Rewrite:
    check_part(op, part)
    halves = [template.split("{text}") for template in TEMPLATES[op][part]]

    def change(text: str, rng: np.random.Generator) -> str:
        before, after = halves[rng.integers(len(halves))]
        return before + text + after

    return each(change)


def persona(texts: Iterable[str], *, part: str = "prompt") -> Rewrite:
    """Puts a sentence about the speaker, or of politeness or curtness, before or around the text.

    part: "prompt" or "response"; sentences for responses fit refusals as well as answers. The label
    survives because the request, or the answer, is the same. It may not if it depends on who asks,
    as in a nurse's question about doses. Raises BadInput for another part.
    """
    check_part("persona", part)
    before, after = TEMPLATES["persona"][part]["before"], TEMPLATES["persona"][part]["after"]

    def change(text: str, rng: np.random.Generator) -> str:
        opening, closing, both = rng.random(3).tolist()
        new = f"{before[int(opening * len(before))]} {text}"
        return f"{new} {after[int(closing * len(after))]}" if both < 0.5 else new

    return each(change)


def multi_turn(texts: Iterable[str], *, exchanges: int, part: str = "prompt") -> Rewrite:
    """Makes the text the last turn of a conversation, framed as in data/conversation.py.

    exchanges: number of harmless questions and answers before it. part "prompt": the text is the
    user's last turn; "response": the assistant's last turn, after a neutral turn of the user. The
    label survives because the last turn determines it. It may not if the text refers to earlier
    turns. Raises BadInput for another part or number of exchanges.
    """
    check_part("multi_turn", part)
    templates = TEMPLATES["multi_turn"]
    speakers, known, leads = templates["speakers"], templates["exchanges"], templates["leads"]
    if not 1 <= exchanges <= len(known):
        raise BadInput(
            f"the argument exchanges of the augmentation 'multi_turn' is {exchanges}; give 1 to "
            f"{len(known)}."
        )

    def change(text: str, rng: np.random.Generator) -> str:
        user, assistant = speakers[rng.integers(len(speakers))]
        turns = []
        for number in rng.permutation(len(known))[:exchanges]:
            question, answer = known[number]
            turns += [(user, question), (assistant, answer)]
        if part == "prompt":
            turns += [(user, text)]
        else:
            turns += [(user, leads[rng.integers(len(leads))]), (assistant, text)]
        return conversation.frame(turns)

    return each(change)
