"""Measures rows per second on one core of the augmentations without a model.

    python experiments/speed/augmentation.py                 # generated texts, writes the table
    python experiments/speed/augmentation.py my.jsonl "my prompts"      # and a file's prompts
    python experiments/speed/augmentation.py --table         # prints the table

A file has JSON lines with a `prompt`; the second argument is its title in the table. The record has
only the number of texts and their median length. Times are CPU seconds of the process; they include
making a generator per row, but not fitting TF-IDF.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ssl_guard.augment import code_switch, eda, ops
from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import write_json

RECORD = Path(__file__).with_suffix(".json")
ARGUMENTS = {
    "tfidf": {"p": 0.3},
    "eda": {"replacement": 0.1, "insertion": 0.1, "swap": 0.1, "deletion": 0.1},
    "keyboard": {"p": 0.1},
    "ocr": {"p": 0.05},
    "framing": {},
    "persona": {},
    "leetspeak": {"p": 0.3},
    "spacing": {"p": 0.2},
    "homoglyphs": {"p": 0.2},
    "zero_width": {"p": 0.3},
    "encoded": {"words": 3},
    "masking": {"p": 0.3},
    "code_switch": {"p": 0.3},
    "quoting": {},
    "multi_turn": {"exchanges": 2},
}
LENGTHS, ROWS, ROUNDS = (20, 100, 400), 1000, 5


def generated(words: int) -> list[str]:
    """Makes ROWS sentences of `words` words, half of which are in a table of augment/."""
    rng = np.random.default_rng(words)
    known = sorted(eda.SYNONYMS.keys() | code_switch.TRANSLATIONS["es"].keys())
    names = ["".join(rng.choice(list("abcdefghilmnoprstu"), 7)) for _ in known]
    drawn = rng.choice(np.array(known + names), (ROWS, words))
    return [" ".join(row).capitalize() + "." for row in drawn.tolist()]


def seconds(rewrite: ops.Rewrite, texts: list[str], repeat: int) -> float:
    """Returns the CPU seconds of one view of every text."""
    begin = time.process_time()
    rngs = [np.random.default_rng([0, repeat, 0, i, *range(7)]) for i in range(len(texts))]
    rewrite(texts, rngs)
    return time.process_time() - begin


def measure(texts: list[str]) -> dict:
    """Measures the CPU seconds of each operation in rounds."""
    rewrites = {name: ops.build(name, texts, arguments) for name, arguments in ARGUMENTS.items()}
    times = {name: [] for name in rewrites}
    for repeat in range(ROUNDS):
        for name, rewrite in rewrites.items():
            times[name].append(seconds(rewrite, texts, repeat))
    return {"rows": len(texts), "seconds": times}


def table() -> str:
    """Tabulates median rows per second of each operation and set of texts."""
    sets = json.loads(RECORD.read_text())["sets"]
    lines = [
        [name, *(f"{s['rows'] / np.median(s['seconds'][name]):,.0f}" for s in sets.values())]
        for name in ARGUMENTS
    ]
    return tabulate(lines, ["rows/s", *sets], tablefmt="github", disable_numparse=True)


def main(arguments: list[str]) -> None:
    sets = {f"generated, {words} words": generated(words) for words in LENGTHS}
    if arguments:
        path, title = arguments
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["prompt"] for line in lines]
        median = np.median([len(text.split()) for text in texts])
        sets[f"{title}, median {median:.0f} words"] = texts
    measured = {title: measure(texts) for title, texts in sets.items()}
    write_json(RECORD, {"sets": measured, "provenance": provenance.collect()})


if __name__ == "__main__":
    if "--table" not in sys.argv:
        main(sys.argv[1:])
    print(table())
