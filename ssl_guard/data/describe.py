"""Describes a corpus: classes, lengths, repeated texts, categories. Never shows a text."""

import collections
from collections.abc import Sequence

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from ssl_guard.data import duplicates
from ssl_guard.data.corpora.parse import CLASSES
from ssl_guard.data.schema import Corpus, Example, left_out_notes, normalised
from ssl_guard.data.tokenizer import Tokenizer

PERCENTILES = (0, 50, 90, 99, 100)
COMMONEST = 20  # categories listed
CHUNK = 1024  # rows tokenised at once


def words(examples: Sequence[Example]) -> list[int]:
    """Counts the words of every example's prompt and response together."""
    return [len(f"{e.prompt} {e.response or ''}".split()) for e in examples]


def count_tokens(folder: str, examples: Sequence[Example], progress: bool) -> list[int]:
    """Counts the tokens of every example's prompt and response; folder: of the tokenizer."""
    tokenizer, found = Tokenizer(folder, max_length=2**31 - 1), []
    for start in tqdm(range(0, len(examples), CHUNK), "tokens", disable=not progress):
        part = examples[start : start + CHUNK]
        ids = tokenizer.ids([e.prompt for e in part], [e.response for e in part])
        found += [len(prompt) + len(response or ()) for prompt, response in ids]
    return found


def describe(corpus: Corpus, lengths: np.ndarray, *, progress: bool = False) -> dict:
    """Counts classes, lengths, repeats and categories of a corpus, as JSON values.

    lengths: int [rows], in words or tokens; progress: shows a bar while near-duplicates are found.

    left_out     {reason: rows of the source that are not in the corpus}
    sources      {source: {"rows", "harmful", "safe", "unlabelled"}}, and "all" of them
    lengths      {class: {percentile: length}}
    repeated     rows beyond the first of each text: "exact", up to case and white space, over
                 prompt and response; "conflicting", texts that are both harmful and safe; "near",
                 beyond the first of each group of near-duplicate prompts; "groups" of these
    categories   {category: {"rows", "harmful"}}, the commonest
    """
    examples = corpus.examples
    found = {"all": _classes(examples)}
    by_source = collections.defaultdict(list)
    for example in examples:
        by_source[example.source].append(example)
    found |= {source: _classes(part) for source, part in sorted(by_source.items())}
    return {
        "corpus": corpus.name,
        "task": corpus.task,
        "licence": corpus.licence,
        "corpus_sha256": corpus.sha256,
        "left_out": dict(corpus.left_out),
        "sources": found,
        "lengths": {
            name: dict(zip(map(str, PERCENTILES), map(int, of), strict=True))
            for name, label in (("harmful", 1), ("safe", 0), ("unlabelled", None))
            if (mask := np.array([e.label == label for e in examples])).any()
            for of in [np.percentile(lengths[mask], PERCENTILES)]
        },
        "repeated": _repeated(examples, progress),
        "categories": _categories(examples),
    }


def _classes(examples: Sequence[Example]) -> dict[str, int]:
    counts = collections.Counter(CLASSES[example.label] for example in examples)
    return {"rows": len(examples)} | {name: counts[name] for name in CLASSES.values()}


def _repeated(examples: Sequence[Example], progress: bool) -> dict[str, int]:
    labels = collections.defaultdict(set)
    for e in examples:
        labels[normalised(e.prompt), normalised(e.response or "")].add(e.label)
    prompts = [e.prompt for e in examples]
    groups = duplicates.near_duplicate_groups(
        tqdm(prompts, "near-duplicates", disable=not progress)
    )
    return {
        "exact": len(examples) - len(labels),
        "conflicting": sum({0, 1} <= found for found in labels.values()),
        "near": len(examples) - len(groups),
        "groups": len(groups),
    }


def _categories(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    rows = collections.Counter(e.category for e in examples if e.category)
    harmful = collections.Counter(e.category for e in examples if e.label == 1)
    return {
        name: {"rows": count, "harmful": harmful[name]}
        for name, count in rows.most_common(COMMONEST)
    }


def text(found: dict, unit: str) -> str:
    """Formats a description as tables; unit: of the lengths."""
    classes = [{"source": name} | counts for name, counts in found["sources"].items()]
    if len(classes) == 2:  # one source, which is all
        del classes[0]
    lengths = [{"class": name} | values for name, values in found["lengths"].items()]
    categories = [{"category": name} | counts for name, counts in found["categories"].items()]
    repeated = found["repeated"]
    parts = [
        f"{found['corpus']}, {found['task']}, {found['licence']}",
        tabulate(classes, headers="keys", tablefmt="github"),
        f"{unit}, percentiles:",
        tabulate(lengths, headers="keys", tablefmt="github"),
        f"{repeated['exact']} rows repeat another one exactly ({repeated['conflicting']} texts are "
        f"labelled both ways); the prompts are in {repeated['groups']} groups of near-duplicates.",
    ]
    parts += [f"{note}." for note in left_out_notes(found["left_out"])]
    if categories:
        parts.append(tabulate(categories, headers="keys", tablefmt="github"))
    return "\n\n".join(parts)
