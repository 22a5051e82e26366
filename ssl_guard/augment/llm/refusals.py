"""Detects answers that refuse to rewrite a text.

Matches English patterns in the opening of the answer. Misses refusals in other languages, in the
middle of a long text, or by a change of subject; the similarity gates are for these. A faithful
rewrite can be taken for a refusal if its source refuses in other words.
"""

import re

OPENING = 400  # characters that are searched

_HELP = (
    r"(?:help|assist|aid|comply|fulfil|fulfill|rewrite|rephrase|reword|paraphrase|generate|create|"
    r"produce|engage|participate|continue|proceed|accommodate|process|facilitate|condone|promote|"
    r"encourage|endorse|support|answer|respond|discuss|write|do (?:that|this|so)|give you|"
    r"offer|share|provide(?! for)|be able to|complete|carry out|go along|go into)"
)
_ADVERBS = r"(?:\s+(?:\w+ly|also|ever|be|to|just|in good conscience)){0,2}"
_REFUSALS = re.compile(
    "|".join(
        (
            # I can't help, we are unable to assist, I'm not comfortable writing, I won't do that
            rf"\b(?:i|we)(?: am|'m| are|'re)?{_ADVERBS}\s+(?:can't|cannot|can not|could not|"
            rf"couldn't|won't|will not|would not|wouldn't|must not|shouldn't|don't|do not|"
            rf"unable to|not able to|not going to|not willing to|not allowed to|not permitted to|"
            rf"not programmed to|not designed to|"
            rf"(?:have|need) to (?:decline to|refuse to)|must (?:decline|refuse) to|"
            rf"(?:decline|refuse) to){_ADVERBS}\s+{_HELP}",
            r"\b(?:i|we)(?:'d| would)? (?:(?:must|have to|need to) )?(?:respectfully |politely )?"
            r"(?:decline|refuse)(?:[.,!]|$| (?:this|that|your|the) request)",
            r"\b(?:unable|not able) to (?:help|assist|comply|fulfil|fulfill|rewrite|rephrase|"
            r"paraphrase|process)\b",
            r"\bas an? (?:\w+ )?(?:ai|artificial intelligence|language model)\b[^.]{0,40},? i\b"
            r".{0,30}?\b(?:can't|cannot|can not|won't|don't|not|unable|must|have to)\b",
            r"^\W*(?:i'm|i am|we're|we are)?\W*(?:so |very |really |truly |deeply )?"
            r"(?:sorry|afraid)\b.{0,60}\b(?:can't|cannot|can not|won't|unable|not able|isn't|"
            r"not something)",
            r"^\W*(?:i|we|my)?\s*apologi[sz]\w+.{0,80}\b(?:can't|cannot|can not|won't|unable|"
            r"not able|not something)",
            r"\bagainst my (?:\w+ )?(?:guidelines|programming|policies|policy|principles)",
            r"\b(?:this|that|your|the) (?:request|prompt|text|content|message) (?:\w+ ){0,3}"
            r"(?:violates|goes against|is against|is inappropriate|is not appropriate|"
            r"cannot be (?:rewritten|rephrased|paraphrased|fulfilled|processed))",
            r"^\W*(?:sorry|no)[,.!]? (?:but )?(?:i )?(?:can't|cannot|won't|can not)\b",
            r"\bi(?: am|'m)? (?:don't feel|do not feel|not) comfortable (?:with )?\w+ing\b",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\u00b4": "'", "`": "'"})


def is_refusal(text: str, source: str) -> bool:
    """Returns True if the text opens with a refusal and its source contains none.

    Rewrites of a source that itself refuses, or mentions refusing, are never called refusals.
    """
    refuses = _REFUSALS.search(" ".join(text[:OPENING].translate(_QUOTES).split()))
    return bool(refuses) and not _REFUSALS.search(" ".join(source.translate(_QUOTES).split()))
