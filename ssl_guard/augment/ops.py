"""Lists the augmentation operations by name, with one interface for word swaps and models.

An operation is fitted once on the texts of the training pool, op(texts, **arguments), and returns a
`Rewrite`. A rewrite takes a batch of texts and a random generator for each, and returns one view
per text in order, or None: no word to change, a refusal, a failed request. A view depends only on
its text and generator, not on the rest of the batch.

Operations that treat prompts and responses differently take the argument part, "prompt" (the
default) or "response". None of them sees a label. Each docstring gives the reason why the label
survives, and when it may not.
"""

import inspect
from collections.abc import Callable, Iterable

from ssl_guard.augment.backtranslate import back_translation
from ssl_guard.augment.base import Rewrite, each
from ssl_guard.augment.code_switch import code_switch
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
from ssl_guard.augment.tfidf import tfidf
from ssl_guard.augment.wrappers import framing, multi_turn, persona, quoting
from ssl_guard.errors import BadInput


def identity(texts: Iterable[str]) -> Rewrite:
    """Returns each text unchanged; strong and weak views then differ by dropout only."""
    return each(lambda text, rng: text)


OPS: dict[str, Callable[..., Rewrite]] = {
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
    """Fits the named operation. Raises BadInput for an unknown name or argument."""
    if name not in OPS:
        raise BadInput(f"there is no augmentation {name!r}; choose one of {', '.join(OPS)}.")
    try:
        inspect.signature(OPS[name]).bind(texts, **arguments)
    except TypeError as error:
        raise BadInput(f"the augmentation {name!r} cannot be used: {error}.") from error
    return OPS[name](texts, **arguments)
