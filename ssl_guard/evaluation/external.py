"""Opens scorers other than runs: text classifiers of Hugging Face and moderation endpoints.

hf:FOLDER        a text classifier of Hugging Face (models/sequence_classification.py)
moderation:URL   an OpenAI-shaped endpoint (moderation.py); of a row with a response it reads
                 the response alone, as such endpoints score one text
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import jax
import numpy as np

from ssl_guard.data.encode import encode
from ssl_guard.data.records import Rows
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import inference, moderation
from ssl_guard.evaluation.scorer import Scorer
from ssl_guard.models import load_sequence_classifier
from ssl_guard.models.sequence_classification import probabilities
from ssl_guard.runtime import sharding
from ssl_guard.runtime.files import sha256_file

BATCH = 32
LONGEST = 1024  # tokens; longer inputs need too much memory

# Names of outputs without case, "-", "_" and " ". LABEL_0 and LABEL_1 are the default names of
# transformers: safe and harmful by convention, as in Prompt Guard 2 and HarmAug.
MEANS_HARMFUL = frozenset((
    "label1", "toxic", "toxicity", "severetoxic", "severetoxicity", "obscene", "threat", "insult",
    "identityhate", "identityattack", "sexualexplicit", "hate", "hateful", "hatespeech",
    "offensive", "unsafe", "harmful", "malicious", "injection", "promptinjection", "jailbreak",
    "nsfw", "violence", "selfharm",
))  # fmt: skip
MEANS_SAFE = frozenset((
    "label0", "safe", "benign", "neutral", "harmless", "unharmful", "nontoxic", "nottoxic",
    "nothate", "nonhate", "notoffensive", "nonoffensive", "normal", "legit", "legitimate", "ok",
    "none", "sfw", "notharmful",
))  # fmt: skip


def checkpoint_scorer(folder: str | Path, harmful: Sequence[str] = ()) -> Scorer:
    """Opens the text classifier in a folder.

    harmful: labels that mean harmful, by default the known names. The score is the sum of the
    softmax over the harmful labels, or the largest of their sigmoids. A pair is encoded by the
    checkpoint's tokenizer and truncated at its maximum length from the start of the prompt. Raises
    BadInput for files that cannot be read and for ambiguous labels.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}: give one with a checkpoint's files.")
    classifier = load_sequence_classifier(folder)
    chosen = np.array(harmful_outputs(classifier.labels, harmful, classifier.multi_label, folder))
    tokenizer = Tokenizer(folder, _max_length(folder, classifier.config))
    if tokenizer.vocab_size > classifier.config.vocab_size:
        raise BadInput(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens but the weights "
            f"{classifier.config.vocab_size}: they must belong to one model."
        )
    mesh = sharding.make_mesh()

    def harmful_score(params, batch):
        if not tokenizer.marks_pairs:
            batch = batch | {"token_type_ids": 0 * batch["token_type_ids"]}
        found = probabilities(classifier, params, batch)[:, chosen]
        combined = found.max(axis=1) if classifier.multi_label else found.sum(axis=1)
        return combined[:, None]

    step = jax.jit(harmful_score, out_shardings=sharding.replicated(mesh))
    how = {
        "batch_size": max(BATCH, mesh.size),
        "buckets": _buckets(tokenizer.max_length),
        "pad_id": tokenizer.pad_id,
        "mesh": mesh,
    }

    def score(examples):
        texts = ((example, 0, example.prompt, example.response) for example in examples)
        records = Rows(encode(tokenizer, texts))
        return inference.outputs(step, classifier.params, records, **how)[:, 0], None

    return Scorer(folder.resolve().name, _weights_sha256(folder), score)


def harmful_outputs(
    labels: Sequence[str], harmful: Sequence[str], multi_label: bool, where: str | Path
) -> list[int]:
    """Returns the positions of the labels that mean harmful: those given, or else the known names.

    Raises BadInput, with the labels, for a given label that does not exist, for unknown names, and
    if no label or, under a softmax, every label would be harmful.
    """
    listed = f"{where} has the labels {', '.join(labels)}"
    if unknown := [name for name in harmful if name not in labels]:
        raise BadInput(f"{listed}, but not {unknown[0]}: give --harmful_labels from these.")
    if harmful:
        chosen = [i for i, label in enumerate(labels) if label in harmful]
    elif list(labels) == ["LABEL_0"]:
        chosen = [0]
    else:
        plain = ["".join(c for c in label.casefold() if c not in "-_ ") for label in labels]
        if any(name not in MEANS_HARMFUL | MEANS_SAFE for name in plain):
            raise BadInput(f"{listed}: name those that mean harmful with --harmful_labels.")
        chosen = [i for i, name in enumerate(plain) if name in MEANS_HARMFUL]
    if not chosen or (len(chosen) == len(labels) and not multi_label):
        raise BadInput(f"{listed}: some must mean harmful, others not: see --harmful_labels.")
    return chosen


def _max_length(folder: Path, config) -> int:
    """Returns the least of the encoder's positions, the tokenizer's limit and LONGEST."""
    longest = config.max_tokens or config.max_position_embeddings
    file = folder / "tokenizer_config.json"
    if file.is_file():
        stated = json.loads(file.read_text(encoding="utf-8")).get("model_max_length")
        longest = min(longest, int(stated)) if stated else longest
    return min(longest, LONGEST)


def _buckets(longest: int) -> tuple[int, ...]:
    return (*(size for size in (64, 128, 256, 512) if size < longest), longest)


def _weights_sha256(folder: Path) -> str:
    """Returns the sha256 of model.safetensors, or of the hashes of its shards."""
    hashes = [sha256_file(file) for file in sorted(folder.glob("model*.safetensors"))]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def moderation_scorer(base_url: str, *, model: str = "", key: str = "") -> Scorer:
    """Opens an endpoint; its verdicts are `flagged`, its score that of the largest category."""

    def score(examples):
        texts = [example.response or example.prompt for example in examples]
        return moderation.moderate(base_url, texts, model=model, key=key, batch_size=BATCH)

    return Scorer(model or urlsplit(base_url).hostname or "endpoint", None, score)


def check_spec(spec: str) -> None:
    """Raises BadInput for a spec other than hf:FOLDER and moderation:URL."""
    kind, _, place = spec.partition(":")
    if kind not in ("hf", "moderation") or not place:
        raise BadInput(f"--scorers: {spec!r} is neither hf:FOLDER nor moderation:URL.")


def open_scorer(spec: str, *, harmful: Sequence[str], model: str, key: str) -> Scorer:
    """Opens the scorer of hf:FOLDER or moderation:URL. Raises BadInput for another spec."""
    check_spec(spec)
    kind, _, place = spec.partition(":")
    if kind == "hf":
        return checkpoint_scorer(place, harmful)
    return moderation_scorer(place, model=model, key=key)
