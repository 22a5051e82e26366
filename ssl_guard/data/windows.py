"""Splits texts that are too long for the encoder into overlapping windows, for scoring.

A text's score is that of its most harmful window. Every token is in some window:

    prompt alone       windows over the prompt
    prompt, response   the response whole in every window, each with another part of the prompt
    long response      windowed too, if it leaves less than a quarter of a window to the prompt:
                       each part with the newest part of the prompt, then the older parts of the
                       prompt with the opening of the response
"""

from collections.abc import Iterable, Sequence

import numpy as np

from ssl_guard.data.records import Records
from ssl_guard.data.tokenizer import Encoded, FastTokenizer
from ssl_guard.errors import BadInput

Ids = list[int]
PROMPT_SHARE = 4  # a long prompt gets at least 1 / PROMPT_SHARE of a window


def spans(length: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Returns (start, end) of windows of `size` at every `stride`; the last ends with the text."""
    last = max(0, length - size)
    starts = [*range(0, last, max(1, min(stride, size))), last]
    return [(start, min(start + size, length)) for start in starts]


def cover(
    prompt: Ids, response: Ids | None, room: int, stride: int
) -> list[tuple[Ids, Ids | None]]:
    """Splits a text into windows of at most `room` ids: (part of prompt, part of response).

    The first has the newest part of the prompt and the opening of the response.
    """
    answer = [] if response is None else response
    kept = min(len(prompt), max(room - len(answer), room // PROMPT_SHARE))
    answer_size = min(len(answer), room - kept)
    prompts = [prompt[a:b] for a, b in spans(len(prompt), room - answer_size, stride)][::-1]
    answers = [answer[a:b] for a, b in spans(len(answer), answer_size, stride)]
    pairs = [(prompts[0], part) for part in answers] + [(part, answers[0]) for part in prompts[1:]]
    return [(part, None if response is None else reply) for part, reply in pairs]


def encode(
    tokenizer: FastTokenizer, prompt: Sequence[str], response: Sequence[str | None], *, stride: int
) -> list[list[Encoded]]:
    """Tokenises the windows of every text, without truncation; response None: a prompt alone.

    stride: tokens between the beginnings of windows. Score each window and take `most_harmful`.
    Raises BadInput for a stride below 1 and for a max_length without room for both texts of a pair.
    """
    if stride < 1 or tokenizer.room(True) < PROMPT_SHARE:
        raise BadInput(
            f"windows with a stride of {stride} and max_length={tokenizer.max_length} cannot cover "
            f"texts: the stride must be at least 1 and a pair needs {PROMPT_SHARE} tokens of room."
        )
    return [
        [tokenizer.join(*part) for part in cover(*ids, tokenizer.room(ids[1] is not None), stride)]
        for ids in tokenizer.ids(prompt, response)
    ]


def most_harmful(scores: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Returns the largest harmful probability of each text's windows.

    owner: int [windows], the text of each window, increasing, with every text."""
    return np.maximum.reduceat(scores, np.unique(owner, return_index=True)[1])


class Windowed(Records):
    """Records of a view, truncated as in training, and the records of their windows.

    A row has the further key `windows`, their number. owner: int [windows], the row of each window.
    """

    def __init__(self, rows: Records, windows: Records):
        self.windows, self._rows = windows, rows
        self.manifest, self.lengths = rows.manifest, rows.lengths
        self.owner = np.array([row["index"] for row in windows])
        self.counts = np.bincount(self.owner, minlength=len(rows))

    def gather(self, indices: Iterable[int]) -> list[dict]:
        """Returns the rows at these positions, in this order."""
        indices = list(indices)
        rows = self._rows.gather(indices)
        return [
            row | {"windows": int(self.counts[i])} for i, row in zip(indices, rows, strict=True)
        ]
