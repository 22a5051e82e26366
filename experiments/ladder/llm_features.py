"""Encodes prompts with a small chat model: the mean hidden state of each, after some layers.

    python llm_features.py model.gguf 16 data/wildguard_train.jsonl features.npz

Needs torch, transformers and gguf, and nothing of this project. The file gets ids [rows] and
states, float16 [rows, width].
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

LONGEST = 256  # tokens of a prompt; of a longer one, the first and the last half of them
BATCH = 4096  # tokens, with padding
BEFORE = (
    "<|im_start|>system\nYou are a content moderator.<|im_end|>\n<|im_start|>user\n"
    'A user sent this message to an AI assistant:\n\n"'
)


def encode(model, tokenizer, prompts: list[str]) -> np.ndarray:
    """Returns the mean state of each prompt's own tokens, float16 [rows, width]."""
    before = tokenizer(BEFORE, add_special_tokens=False).input_ids
    bodies = [_shortened(tokenizer(p, add_special_tokens=False).input_ids) for p in prompts]
    order = np.argsort([-len(body) for body in bodies])
    found = np.zeros((len(prompts), model.config.hidden_size), np.float16)
    done = 0
    while done < len(order):
        length = len(before) + len(bodies[order[done]])
        rows = order[done : done + BATCH // length]
        tokens = torch.full((len(rows), length), tokenizer.pad_token_id)
        for place, row in enumerate(rows):
            text = torch.tensor(before + bodies[row])
            tokens[place, : len(text)] = text  # causal attention never sees the padding after it
        with torch.inference_mode():
            states = model.model(tokens).last_hidden_state.float()
        for place, row in enumerate(rows):
            own = states[place, len(before) : len(before) + len(bodies[row])]
            found[row] = own.mean(dim=0).numpy()
        done += len(rows)
        print(f"{done} of {len(order)}", file=sys.stderr, flush=True)
    return found


def _shortened(tokens: list[int]) -> list[int]:
    if len(tokens) <= LONGEST:
        return tokens
    return tokens[: LONGEST // 2] + tokens[-LONGEST // 2 :]


def main() -> None:
    weights, layers, corpus, out = Path(sys.argv[1]), int(sys.argv[2]), *map(Path, sys.argv[3:])
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    model = AutoModelForCausalLM.from_pretrained(
        weights.parent, gguf_file=weights.name, dtype=torch.bfloat16
    ).eval()
    model.model.layers = model.model.layers[:layers]
    model.model.norm = torch.nn.Identity()  # it follows the last layer alone
    rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    states = encode(model, tokenizer, [row["prompt"] for row in rows])
    np.savez(out, ids=np.array([row["id"] for row in rows]), states=states)


if __name__ == "__main__":
    main()
