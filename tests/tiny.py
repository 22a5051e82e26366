"""A tiny BERT with a WordPiece tokenizer, harmless rows, and smoke runs on both."""

import importlib
import json
import signal
import warnings
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp
from safetensors.numpy import save_file

from ssl_guard import models
from ssl_guard.models import convert
from ssl_guard.runtime import preemption
from ssl_guard.runtime.files import read_jsonl

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'"
TOPICS = [
    "bread",
    "garden",
    "music",
    "river",
    "kettle",
    "ladder",
    "market",
    "pencil",
    "window",
    "forest",
    "blanket",
    "bicycle",
    "lantern",
    "orchard",
    "puzzle",
    "recipe",
    "sailor",
    "teapot",
    "violin",
    "walnut",
    "meadow",
    "button",
    "candle",
    "desert",
    "engine",
    "feather",
    "hammer",
    "island",
    "jacket",
    "library",
    "mirror",
    "notebook",
]
ANSWERS = {0: "Of course, with pleasure.", 1: "Never, thanks."}
WORDS = [*TOPICS, "question", "please", "of", "course", "with", "pleasure", "never", "thanks"]
VOCABULARY = [*SPECIAL, *CHARACTERS, *(f"##{c}" for c in CHARACTERS), *WORDS]
CONFIG = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
}


def write_encoder(folder: Path, vocabulary=VOCABULARY, *, head=None, prefix="", **changes) -> Path:
    """Writes a model folder: a BERT with random weights, none of them trivial, and its tokenizer.

    head: further tensors by name; prefix: of the encoder's names; changes: of config.json.
    """
    folder.mkdir(parents=True)
    config = CONFIG | {"vocab_size": len(vocabulary)} | changes
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    model, token = models.build(folder), np.zeros((1, 1), np.int32)
    shapes = jax.eval_shape(model.encoder.init, jax.random.key(0), token, token, token)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)
    tensors = convert.to_hf(params, model.config.hf_names)
    save_file(
        {prefix + name: tensor for name, tensor in tensors.items()} | (head or {}),
        folder / "model.safetensors",
    )
    return folder


def write_rows(path: Path, rows: int = 160) -> Path:
    """Writes harmless rows of 10 to 60 tokens; the answer tells the label, 1 for every other."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for i in range(rows):
            words = rng.choice(TOPICS, rng.integers(6, 45))
            prompt = f"Question {i}: {' '.join(words)}, please?"
            row = {"id": f"row{i}", "prompt": prompt, "response": ANSWERS[i % 2], "label": i % 2}
            file.write(json.dumps(row) + "\n")
    return path


def smoke(folder: Path, name: str, **changes):
    """The smoke config of configs/`name`.py on the tiny encoder and rows, written on first use."""
    if not (folder / "encoder").exists():
        write_encoder(folder / "encoder")
        write_rows(folder / "rows.jsonl")
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    config.data.dir, config.data.corpus = str(folder / "data"), str(folder / "rows.jsonl")
    config.model.name = str(folder / "encoder")
    config.update_from_flattened_dict(changes)
    return config


def final_checkpoint(workdir: Path) -> list[np.ndarray]:
    """Every array of the newest checkpoint, as Orbax stored it."""
    steps = [int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    newest = workdir / "checkpoints" / str(max(steps))
    with warnings.catch_warnings(action="ignore"):  # Orbax warns when no shardings are given
        tree = ocp.load_checkpointables(newest, {"state": None})["state"]
    return [
        np.asarray(
            jax.random.key_data(leaf)
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
        )
        for leaf in jax.tree.leaves(tree)
    ]


def signal_at(monkeypatch, at: int | None) -> None:
    """Sends SIGTERM after step `at`, or at the first batch of an evaluation for None."""
    check = preemption.check

    def signalled(step=None):
        if step == at:
            monkeypatch.setattr(preemption, "_asked", signal.SIGTERM)
        check(step)

    monkeypatch.setattr(preemption, "check", signalled)


def timeless(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl without the times."""
    rows = read_jsonl(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
