"""The augmentation operations, by name, behind one interface for word swaps and models alike.

An operation is fitted once on the training pool's texts, op(texts, **arguments), and gives a
`Rewrite`: from a batch of texts, and a generator for each, to one rewrite for each text in order,
None where there is none to give: a word that is not there to be changed, a refusal, a failed
request. What becomes of a text depends on it and on its own generator only, never on the rest of
the batch.

Operations that read differently in a prompt and in a response take the argument part, "prompt"
(the default) or "response". None of them sees a label; each says why the label survives it, and
when it may not.
"""

import inspect
from collections.abc import Iterable

from ssl_guard.augment.backtranslate import back_translation
from ssl_guard.augment.base import Rewrite, each
from ssl_guard.augment.code_switch import code_switch
from ssl_guard.augment.context import multi_turn, quoting
from ssl_guard.augment.eda import eda
from ssl_guard.augment.llm.rewrite import llm
from ssl_guard.augment.noise import keyboard, ocr
from ssl_guard.augment.obfuscation import (
    encoded,
    homoglyphs,
    leetspeak,
    masking,
    spacing,
    zero_width,
)
from ssl_guard.augment.role_play import framing, persona
from ssl_guard.augment.tfidf import tfidf
from ssl_guard.errors import BadInput


def identity(texts: Iterable[str]) -> Rewrite:
    """Changes nothing; the strong view then differs from the weak one by dropout only."""
    return each(lambda text, rng: text)


OPS = {
    "identity": identity,
    "tfidf": tfidf,
    "eda": eda,
    "keyboard": keyboard,
    "ocr": ocr,
    "framing": framing,
    "persona": persona,
    "leetspeak": leetspeak,
    "spacing": spacing,
    "homoglyphs": homoglyphs,
    "zero_width": zero_width,
    "encoded": encoded,
    "masking": masking,
    "code_switch": code_switch,
    "quoting": quoting,
    "multi_turn": multi_turn,
    "back_translation": back_translation,
    "llm": llm,
}


def build(name: str, texts: Iterable[str], arguments: dict) -> Rewrite:
    """The named operation, fitted. Raises BadInput for an unknown name or argument."""
    if name not in OPS:
        raise BadInput(f"there is no augmentation {name!r}; choose one of {', '.join(OPS)}.")
    try:
        inspect.signature(OPS[name]).bind(texts, **arguments)
    except TypeError as error:
        raise BadInput(f"the augmentation {name!r} cannot be used: {error}.") from error
    return OPS[name](texts, **arguments)
