"""Tokenises texts: `[CLS] prompt [SEP]` or `[CLS] prompt [SEP] response [SEP]`, truncated.

Works with any fast tokenizer of transformers. The special tokens are the tokenizer's own, so a
RoBERTa folder gives `<s> prompt </s></s> response </s>`.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_guard.errors import BadInput


class Encoded(NamedTuple):
    """One tokenised text.

    input_ids: int32 [length], special tokens included, no padding.
    second: first position of the response's segment; `length` without a response.
    cut: number of tokens that were truncated.
    """

    input_ids: np.ndarray
    second: int
    cut: int


class Special(NamedTuple):
    """Ids of the special tokens: `open` before a text, `end` after a prompt alone; `middle` between
    the texts of a pair, `close` after it."""

    open: list[int]
    end: list[int]
    middle: list[int]
    close: list[int]


class FastTokenizer:
    """A tokenizer of the tokenizers library, with special tokens and a maximum length in tokens.

    Truncation removes prompt tokens first, from the beginning, then the end of the response: the
    opening of a response shows whether it refuses or complies.

    Raises BadInput for a max_length that leaves no room for one token of text.
    """

    def __init__(self, fast, special: Special, max_length: int):
        self._fast, self.special, self.max_length = fast, special, max_length
        shortest = len(special.open) + len(special.middle) + len(special.close) + 1
        if max_length < shortest:
            raise BadInput(
                f"max_length={max_length} leaves no room for text; "
                f"this tokenizer needs at least {shortest}."
            )
        # A tokenizer.json may have its own truncation and padding.
        fast.no_truncation()
        fast.no_padding()

    def encode(self, prompt: Sequence[str], response: Sequence[str | None]) -> list[Encoded]:
        """Tokenises and truncates texts; a response of None is a prompt alone.

        Fastest for many texts at once. Raises BadInput, with the number of the row in this call,
        for a text that is not Unicode.
        """
        return [self.join(*ids) for ids in self.ids(prompt, response)]

    def ids(
        self, prompt: Sequence[str], response: Sequence[str | None]
    ) -> list[tuple[list[int], list[int] | None]]:
        """Tokenises whole texts, without special tokens."""
        prompts = self._ids(prompt)
        responses = iter(self._ids([text for text in response if text is not None]))
        return [
            (first, None if text is None else next(responses))
            for first, text in zip(prompts, response, strict=True)
        ]

    def room(self, pair: bool) -> int:
        """Returns the tokens that fit beside the special tokens, of a prompt alone or of a pair."""
        first, end, middle, close = map(len, self.special)
        return self.max_length - first - (middle + close if pair else end)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            encodings = self._fast.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:  # not a string, or half of a surrogate pair
            for row, text in enumerate(texts):
                try:
                    text.encode()
                except (AttributeError, UnicodeEncodeError):
                    raise BadInput(
                        f"text {row} of a batch is not Unicode text; correct it."
                    ) from None
            raise
        return [encoding.ids for encoding in encodings]

    def join(self, prompt: list[int], response: list[int] | None) -> Encoded:
        """Joins ids with the special tokens, truncated to max_length."""
        close = self.special.end if response is None else self.special.middle
        tail = [] if response is None else response + self.special.close
        room = self.max_length - len(self.special.open) - len(close) - len(tail)  # for the prompt
        if response is not None and room < 0:
            tail = response[:room] + self.special.close
        cut_prompt = max(0, len(prompt) - max(0, room))
        head = self.special.open + prompt[cut_prompt:] + close
        return Encoded(np.array(head + tail, np.int32), len(head), cut_prompt + max(0, -room))


class Tokenizer(FastTokenizer):
    """The tokenizer of a local model folder.

    The caller checks `max_length` against the encoder's positions and `vocab_size` against its
    embedding table.

    Attributes: max_length, vocab_size, pad_id (ints), mask_id (an int, or None where there is no
    mask token), special_ids (the ints of all special tokens), marks_pairs (whether the tokenizer
    gives the second text of a pair a token type of its own), and sha256, a hash of the loaded
    tokenizer (vocabulary, merges, normalisation) and max_length.

    Raises BadInput for a folder without a usable fast tokenizer and for a max_length that leaves no
    room for one token of text.
    """

    def __init__(self, folder: str | Path, max_length: int):
        # transformers recommends PyTorch at every import; it is not needed.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        from transformers import AutoTokenizer

        folder = Path(folder)
        if not folder.is_dir():
            raise BadInput(f"there is no tokenizer folder {folder}; give a folder of a model.")
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            fast = tokenizer.backend_tokenizer
        except Exception as error:  # the tokenizers library raises bare Exception for a bad file
            raise BadInput(
                f"the folder {folder} has no readable fast tokenizer ({type(error).__name__}); "
                "restore its tokenizer.json (a sentencepiece model alone: save it once with "
                "AutoTokenizer where sentencepiece is installed)."
            ) from error
        single, pair = tokenizer("a"), tokenizer("a", "b")
        first, _, end = _around(single["input_ids"], single.sequence_ids())
        _, middle, close = _around(pair["input_ids"], pair.sequence_ids())
        super().__init__(fast, Special(first, end, middle, close), max_length)
        if tokenizer.pad_token_id is None:
            raise BadInput(f"the tokenizer in {folder} has no padding token; choose another model.")
        self.marks_pairs = 1 in pair.get("token_type_ids", ())
        self.pad_id = int(tokenizer.pad_token_id)
        self.mask_id = tokenizer.mask_token_id
        self.special_ids = tuple(sorted(tokenizer.all_special_ids))
        self.vocab_size = len(tokenizer)
        self._whole = tokenizer
        # The loaded state, because settings in tokenizer_config.json (do_lower_case) change ids.
        state = f"{self._fast.to_str()}\nmax_length={max_length}"
        self.sha256 = hashlib.sha256(state.encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json and the settings that AutoTokenizer reads."""
        self._whole.model_max_length = self.max_length
        self._whole.save_pretrained(str(folder))


def _around(ids: list[int], segments: list[int | None]) -> tuple[list[int], list[int], list[int]]:
    """Returns the special tokens before, between and after texts: those whose segment is None."""
    inside = [place for place, segment in enumerate(segments) if segment is not None]
    between = [i for i in range(inside[0], inside[-1]) if segments[i] is None]
    return ids[: inside[0]], [ids[i] for i in between], ids[inside[-1] + 1 :]
