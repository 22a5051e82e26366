"""Scores the pool and dev of a seed with a logistic regression on a chat model's states.

    python -m experiments.ladder.llm_scores features.npz runs/ladder 200 5 6 7 8 9

Fits the 200 labelled rows of each seed, 5 to 9 here, and writes runs/ladder/llm_200-<seed>.jsonl, a
teacher of the command `teach`. features.npz: from llm_features.py.
"""

import sys
from pathlib import Path

import numpy as np

from experiments.methods import cells as methods
from ssl_guard import config as config_module
from ssl_guard.evaluation import baselines
from ssl_guard.prepare import read_split
from ssl_guard.runtime.files import write_jsonl

C = 0.01  # inverse L2 penalty on states of variance 1


def write_scores(features: Path, folder: Path, labelled: int, seed: int) -> None:
    """Writes the scores of one seed with a number of labels."""
    config = config_module.default().unlock()
    config.seed, config.data.labelled = seed, labelled
    for key in ("corpus", "test_corpus", "task", "dev"):
        config.data[key] = methods.SETTINGS[f"data.{key}"]
    sides = read_split(config).rows
    with np.load(features, allow_pickle=False) as file:
        place = {row: i for i, row in enumerate(file["ids"])}
        states = file["states"].astype(np.float32)
    rows = {side: [place[e.id] for e in sides[side]] for side in ("labelled", "unlabelled", "dev")}
    known = states[rows["labelled"] + rows["unlabelled"]]
    states = (states - known.mean(axis=0)) / known.std(axis=0)
    labels = np.array([example.label for example in sides["labelled"]])
    head = baselines.logistic(states[rows["labelled"]], labels, C)
    scores = [
        {"id": example.id, "score": float(score)}
        for side in ("unlabelled", "dev")
        for example, score in zip(
            sides[side], baselines.harmful(head, states[rows[side]]), strict=True
        )
    ]
    write_jsonl(folder / f"llm_{labelled}-{seed}.jsonl", scores)


if __name__ == "__main__":
    for number in sys.argv[4:]:
        write_scores(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(number))
