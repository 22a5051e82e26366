"""Converts examples to TFDS features and back."""

from pathlib import Path

import tensorflow_datasets as tfds

from ssl_guard.data.schema import Example


def citation(key: str) -> str:
    """Returns the BibTeX entry of this key in references.bib."""
    entries = Path(__file__).with_name("references.bib").read_text(encoding="utf-8")
    return next(e for e in entries.strip().split("\n\n") if f"{{{key}," in e.partition("\n")[0])


def features() -> tfds.features.FeaturesDict:
    """Returns the features of every corpus; label is -1 where it is unknown."""
    text = {
        name: tfds.features.Text()
        for name in ("id", "prompt", "response", "category", "source", "licence")
    }
    return tfds.features.FeaturesDict(
        text | {"label": tfds.features.ClassLabel(names=["safe", "harmful"])}
    )


def to_record(example: Example) -> dict:
    """Converts an example to features. TFDS has no None: missing texts are "" and labels -1."""
    return {
        "id": example.id,
        "prompt": example.prompt,
        "response": example.response or "",
        "category": example.category or "",
        "source": example.source,
        "licence": example.licence,
        "label": -1 if example.label is None else example.label,
    }


def from_record(record: dict) -> Example:
    """Converts a record of a TFDS data source to an example."""
    text = {name: value.decode() for name, value in record.items() if name != "label"}
    label = int(record["label"])
    return Example(
        id=text["id"],
        prompt=text["prompt"],
        response=text["response"] or None,
        label=None if label < 0 else label,
        category=text["category"] or None,
        source=text["source"],
        licence=text["licence"],
    )
