"""Scores texts with an exported moderator, in ONNX Runtime: no JAX, no PyTorch.

An input is a text, a pair (prompt, response), or a conversation: a list of turns, as
data/conversation.py describes. A moderator of responses needs the last turn to be an answer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_guard.data import conversation, windows
from ssl_guard.data.tokenizer import Encoded, FastTokenizer, Special
from ssl_guard.errors import BadInput
from ssl_guard.moderator import folder as folders

TOKENS = 8192  # of a batch, padding included
Pair = tuple[str, str | None]
NO_RUNTIME = "a moderator needs onnxruntime and tokenizers: pip install 'ssl_guard[serve]'."


class Judgement(NamedTuple):
    """A moderator's judgement of one text.

    probability: that it is harmful. verdict: "harmful" if that is at least the threshold, else
    "safe". promise: of the threshold. truncated: whether tokens were left out. windows: number of
    overlapping parts that were scored; the probability is the largest of theirs.
    """

    probability: float
    verdict: str
    promise: str
    truncated: bool
    windows: int


class Moderator:
    """A classifier of texts with thresholds.

    Attributes: settings, thresholds ({profile: (threshold, promise)}), kind ("float32" or "int8"),
    sha256 (of the manifest).
    """

    def __init__(self, settings, thresholds, kind, sha256, tokenizer: FastTokenizer, session):
        self.settings, self.thresholds, self.kind, self.sha256 = settings, thresholds, kind, sha256
        self._tokenizer, self._session = tokenizer, session
        self._inputs = [given.name for given in session.get_inputs()]

    @classmethod
    def load(cls, folder: str | Path, *, int8: bool = False, threads: int = 0) -> "Moderator":
        """Loads an exported folder and verifies its hashes.

        int8: the smaller and faster model, with thresholds of its own. threads: of the CPU, 0 for
        all. Raises BadInput for another or a changed folder.
        """
        folder, kind = Path(folder), "int8" if int8 else "float32"
        sha256 = folders.verify(folder)
        try:
            import onnxruntime
            import tokenizers
        except ImportError as error:
            raise BadInput(NO_RUNTIME) from error
        settings = folders.read_settings(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(
            folder / folders.MODELS[kind], options, providers=["CPUExecutionProvider"]
        )
        fast = tokenizers.Tokenizer.from_file(str(folder / folders.TOKENIZER))
        tokenizer = FastTokenizer(fast, Special(**settings.special), settings.max_length)
        return cls(settings, folders.thresholds(folder, kind), kind, sha256, tokenizer, session)

    def __call__(
        self, inputs: Sequence[Any], *, profile: str = "balanced", whole: bool = True
    ) -> list[Judgement]:
        """Judges inputs, in their order.

        profile: of the policy. whole: reads long texts in windows; else they are truncated.

        Raises BadInput, with the number of the input, for one of another kind, and for an unknown
        profile.
        """
        threshold, promise = self.threshold(profile)
        pairs = [self.pair(number, given) for number, given in enumerate(inputs)]
        parts = self._encode(pairs, whole)
        scores = self._scores([part for text in parts for part in text])
        found, start = [], 0
        for text in parts:
            score = float(scores[start : start + len(text)].max())
            cut = not whole and text[0].cut > 0
            verdict = "harmful" if score >= threshold else "safe"
            found.append(Judgement(score, verdict, promise, cut, len(text)))
            start += len(text)
        return found

    def threshold(self, profile: str) -> tuple[float, str]:
        """Returns (threshold, promise) of a profile, or raises BadInput."""
        if profile not in self.thresholds:
            known = ", ".join(self.thresholds)
            raise BadInput(f"there is no profile {profile!r} in the policy: choose from {known}.")
        return self.thresholds[profile]

    def pair(self, number: int | str, given: Any) -> Pair:
        """Returns (prompt, response) of an input; number: of the input, or its name, for errors.

        Raises BadInput for an input of another kind and for one without the response that is
        judged, or with one that is not.
        """
        if isinstance(given, str):
            prompt, response = given, None
        elif _is_pair(given):
            prompt, response = given
        else:
            try:
                turns = conversation.parse(given)
                prompt, response = conversation.pair(turns, self.settings.conversation)
            except ValueError as error:
                raise BadInput(
                    f"input {number} is no text, no pair of texts, and as a conversation it "
                    f"{error}: correct it."
                ) from error
            response = response if self.settings.pairs else None
        if self.settings.pairs and response is None:
            raise BadInput(
                f"input {number} has no response, and this moderator judges responses: give pairs "
                "(prompt, response)."
            )
        if not self.settings.pairs and response is not None:
            raise BadInput(
                f"input {number} has a response, and this moderator judges one text: give the text "
                "alone."
            )
        return prompt, response

    def _encode(self, pairs: Sequence[Pair], whole: bool) -> list[list[Encoded]]:
        prompts, responses = [prompt for prompt, _ in pairs], [answer for _, answer in pairs]
        if not whole:
            return [[one] for one in self._tokenizer.encode(prompts, responses)]
        return windows.encode(self._tokenizer, prompts, responses, stride=self.settings.stride)

    def _scores(self, texts: Sequence[Encoded]) -> np.ndarray:
        """Returns harmful probabilities, float64 [texts], in batches of similar lengths."""
        lengths = np.array([len(text.input_ids) for text in texts], np.int64)
        order, scores, start = np.argsort(lengths, kind="stable"), np.zeros(len(texts)), 0
        while start < len(order):
            size = max(1, TOKENS // int(lengths[order[start]]))
            while size > 1 and size * int(lengths[order[start : start + size]].max()) > TOKENS:
                size //= 2
            places = order[start : start + size]
            logits = self._session.run(["logits"], self._batch([texts[i] for i in places]))[0]
            margin = logits[:, 1].astype(np.float64) - logits[:, 0]
            scores[places] = np.exp(-np.logaddexp(0, -margin))
            start += size
        if not np.isfinite(scores).all():
            raise BadInput("the model gave a score that is not a number: export the run again.")
        return scores

    def _batch(self, texts: Sequence[Encoded]) -> dict[str, np.ndarray]:
        shape = len(texts), max(len(text.input_ids) for text in texts)
        batch = {
            "input_ids": np.full(shape, self.settings.pad_id, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for row, text in enumerate(texts):
            length = len(text.input_ids)
            batch["input_ids"][row, :length] = text.input_ids
            batch["attention_mask"][row, :length] = 1
            batch["token_type_ids"][row, text.second : length] = 1
        return {name: batch[name] for name in self._inputs}


def _is_pair(given: Any) -> bool:
    return (
        isinstance(given, (tuple, list))
        and len(given) == 2
        and isinstance(given[0], str)
        and isinstance(given[1], (str, type(None)))
    )
