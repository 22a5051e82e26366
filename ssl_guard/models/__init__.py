"""Encoders, heads and pretrained weights; the only package that imports Flax."""

from ssl_guard.models.classifier import (
    Classifier,
    Stages,
    build,
    hidden_states,
    init_from_pretrained,
)
from ssl_guard.models.masked_lm import MaskedLM, build_masked_lm
from ssl_guard.models.pretrained import resolve
from ssl_guard.models.sequence_classification import SequenceClassifier, load_sequence_classifier

__all__ = [
    "Classifier",
    "MaskedLM",
    "SequenceClassifier",
    "Stages",
    "build",
    "build_masked_lm",
    "hidden_states",
    "init_from_pretrained",
    "load_sequence_classifier",
    "resolve",
]
