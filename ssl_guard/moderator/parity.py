"""Compares exported models with their run: the gate of an export.

The rows are the run's dev rows (with config.eval.folds, its labelled rows) and a list of texts that
break tokenizers and arithmetic. The run scores them in float32, in windows as the moderator does.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import metrics
from ssl_guard.moderator.score import Moderator

TOLERANCE = 1e-4  # largest error of a probability of the float32 model

UGLY = {
    "empty": "",
    "space": " \n\t ",
    "one letter": "a",
    "punctuation": "?!?!?!...",
    "very long": "word " * 3000,
    "one long word": "x" * 5000,
    "emoji": "\U0001f469\u200d\U0001f52c \U0001f3f4\U000e0067\U000e0062\U000e007f \U0001f600" * 20,
    "right to left": "\u202e\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd\u202c",
    "combining": "e" + "\u0301\u0327\u0338" * 60,
    "full width": "\uff28\uff45\uff4c\uff4c\uff4f \u3000\uff01",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x85\ufeff\u200b",
    "NUL": "before\0after",
    "unassigned": "\ufffe\uffff\U0010ffff\U000e0fff",
    "special tokens": "[CLS] [SEP] [PAD] [MASK] <s> </s> <pad> <mask>",
    "ideographs": "\u4f60\u597d\u4e16\u754c" * 40,
}


def ugly(pairs: bool) -> list[Example]:
    """Returns the ugly texts as examples, and as both texts of pairs if `pairs`."""
    return [
        Example(name, text, text if pairs else None, None, None, "ugly", "")
        for name, text in UGLY.items()
    ]


def scores(moderator: Moderator, examples: Sequence[Example]) -> np.ndarray:
    """Returns the probabilities of a moderator, float64 [rows]."""
    pairs = [(e.prompt, e.response if moderator.settings.pairs else None) for e in examples]
    profile = next(iter(moderator.thresholds))
    return np.array([found.probability for found in moderator(pairs, profile=profile)])


def measure(source, folder: Path, dev: Sequence[Example], policy: dict) -> dict:
    """Compares the models in a folder with the run.

    source: export.Source; policy: of the run. Returns {"rows", "largest_error", "flips": {row id:
    profiles}} of the float32 model, and "int8": {"flips": number by profile, "auprc",
    "float32_auprc", "largest_error"} on dev.
    """
    exact = Moderator.load(folder)
    settings, run = exact.settings, source.run
    examples = [*dev, *ugly(settings.pairs)]
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.eval.stride = settings.stride
    records = run._replace(config=config).records(examples)
    reference = source.calibrated(records)
    raw = source.score(records)
    found = scores(exact, examples)
    flips: dict[str, list[str]] = {}
    for name, (threshold, _) in exact.thresholds.items():
        flipped = (raw >= policy["thresholds"][name]["threshold"]) != (found >= threshold)
        for row in np.flatnonzero(flipped):
            flips.setdefault(examples[row].id, []).append(name)
    small = Moderator.load(folder, int8=True)
    rough, labels = scores(small, examples), np.array([example.label for example in dev])
    on_dev = slice(len(dev))
    return {
        "rows": len(examples),
        "largest_error": float(np.abs(reference - found).max()),
        "flips": flips,
        "int8": {
            "rows": len(dev),
            "flips": {
                name: int(
                    ((rough >= small.thresholds[name][0]) != (found >= threshold))[on_dev].sum()
                )
                for name, (threshold, _) in exact.thresholds.items()
            },
            "largest_error": float(np.abs(reference - rough)[on_dev].max()),
            "auprc": metrics.dev_scores(labels, rough[on_dev])["auprc"],
            "float32_auprc": metrics.dev_scores(labels, found[on_dev])["auprc"],
        },
    }


def check(facts: dict, workdir: Path) -> None:
    """Raises BadInput if the float32 model flips a verdict or errs by more than TOLERANCE."""
    if facts["flips"] or not facts["largest_error"] <= TOLERANCE:
        rows = f" ({', '.join(sorted(facts['flips'])[:5])})" if facts["flips"] else ""
        raise BadInput(
            f"{workdir} cannot be exported: the ONNX model changes {len(facts['flips'])} of "
            f"{facts['rows']} verdicts{rows}, and its largest error of a probability is "
            f"{facts['largest_error']:.1e} where {TOLERANCE:g} is allowed: report this with the "
            "name of the encoder."
        )
