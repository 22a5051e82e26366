"""Defines sizes, batches and the worker protocol of encoders.py with NumPy only."""

import json
import sys
import time

import numpy as np

SIZES = {  # hidden size, layers, attention heads, feed-forward size, padded tokens of a step
    "minilm": (384, 6, 12, 1536, 2048),
    "base": (768, 12, 12, 3072, 1024),
}
VOCAB = 30522


def config(size: str) -> dict:
    """Returns the keys of a BERT config.json."""
    width, layers, attn, mlp, _ = SIZES[size]
    return {
        "model_type": "bert",
        "vocab_size": VOCAB,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": attn,
        "intermediate_size": mlp,
    }


def batch(size: str, length: int) -> dict[str, np.ndarray]:
    """Makes labelled rows of length / 2 to `length` tokens, the first one full."""
    rows = SIZES[size][-1] // length
    rng = np.random.default_rng(length)
    lengths = rng.integers(length // 2, length + 1, rows)
    lengths[0] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    return {
        "input_ids": rng.integers(1000, VOCAB, mask.shape).astype(np.int32) * mask,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(mask),
        "row": np.arange(rows, dtype=np.int32),
        "label": rng.integers(0, 2, rows).astype(np.int32),
    }


def serve(build) -> None:
    """Answers lines of JSON: {"build": cell} by making a step, {"steps": n} by their seconds.

    build(cell) returns a function without arguments that takes one step and waits for its end.
    """
    step = None
    answers, sys.stdout = sys.stdout, sys.stderr  # other output must not mix with the answers
    for line in sys.stdin:
        order = json.loads(line)
        if "build" in order:
            step = build(order["build"])
            start = time.perf_counter()
            step()
            step()
            answer = {"first_two_steps": time.perf_counter() - start}
        else:
            seconds = []
            for _ in range(order["steps"]):
                start = time.perf_counter()
                step()
                seconds.append(time.perf_counter() - start)
            answer = {"seconds": seconds}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
