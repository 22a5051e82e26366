"""Checks a config as far as no data is needed."""

import re

from ml_collections import ConfigDict

from ssl_guard.config import ranges
from ssl_guard.config.defaults import leaves
from ssl_guard.errors import BadInput

CHOICES = {
    "model.pooling": ("mean", "cls"),
    "model.head": ("mlp", "linear", "hf"),
    "model.head_init": ("random", "logistic"),
    "model.dtype": ("float32", "bfloat16"),
    "train.on_save_error": ("stop", "continue"),
    "train.select_by": ("f1", "auprc"),
    "train.selection": ("threshold", "rank"),
    "teach.combine": ("rank", "probability"),
    "data.task": ("response_harm", "prompt_harm", "content_moderation"),
    "data.label_sampling": ("balanced", "random"),
    "data.conversation": ("last", "whole"),
    "data.bad_rows": ("refuse", "skip"),
}


def check(config: ConfigDict) -> None:
    """Raises BadInput for values that no run can use."""
    values, data = leaves(config), config.data
    ranges.check(values)
    for key, known in CHOICES.items():
        _require(
            values[key] in known,
            f"config.{key} = {values[key]!r} must be one of {', '.join(known)}.",
        )
    buckets = tuple(data.buckets)
    _require(
        buckets[-1:] == (data.max_length,) and list(buckets) == sorted(set(buckets)),
        f"config.data.buckets = {buckets} must rise and end at config.data.max_length = "
        f"{data.max_length}.",
    )
    _require(
        0 <= config.eval.stride <= data.max_length,
        f"config.eval.stride = {config.eval.stride} must be between 0 (truncates long texts) and "
        f"config.data.max_length = {data.max_length}.",
    )
    _require(
        config.model.head != "hf" or config.model.pooling == "cls",
        "config.model.head = 'hf' reads the first token: set config.model.pooling = 'cls'.",
    )
    _require(
        config.algorithm != "mlm" or config.train.grad_accum_steps == 1,
        "config.train.grad_accum_steps does not apply to configs/mlm.py: lower config.mlm.batch.",
    )
    _require(
        config.algorithm != "mlm" or not config.train.cache_frozen,
        "config.train.cache_frozen does not apply to configs/mlm.py: unset it.",
    )
    _require(
        not config.train.float32_check or config.model.dtype == "bfloat16",
        "config.train.float32_check compares bfloat16 with float32: set config.model.dtype = "
        "'bfloat16', or unset the check.",
    )
    _require(
        set(config.teach.features) <= {"lsa", "encoder"},
        f"config.teach.features = {config.teach.features}: name lsa, encoder, both or none.",
    )
    _require(
        not data.soft_labels or config.algorithm == "self_training",
        f"{config.algorithm} reads no soft labels: unset config.data.soft_labels, or use "
        "configs/self_training.py.",
    )
    _require(
        config.algorithm in config,
        f"config.algorithm = {config.algorithm!r} has no group config.{config.algorithm} for its "
        "hyper-parameters: set it in the config file.",
    )
    axes = {name: config.mesh[name] for name in ("data", "fsdp", "tensor")}
    _require(
        list(axes.values()).count(-1) <= 1 and all(n >= 1 or n == -1 for n in axes.values()),
        f"config.mesh = {axes} must have sizes of at least 1, or one -1 for the remaining devices.",
    )
    _require(
        not (config.augment.neighbours and data.prompt_corpus),
        "config.augment.neighbours would join rows of both tasks: set it to 0, or unset "
        "config.data.prompt_corpus.",
    )
    _check_folds(config)
    _check_patterns(config.optim.freeze)
    _check_sets(config.augment)
    _check_neighbours(config.augment)


def _check_folds(config: ConfigDict) -> None:
    folds, fold = config.eval.folds, config.eval.fold
    _require(
        folds != 1 and (fold < 0 or fold < folds),
        f"config.eval.folds = {folds} must be 0 (dev rows choose) or at least 2, and "
        f"config.eval.fold = {fold} is set by the run itself: leave it at -1.",
    )
    if not folds:
        return
    for key, value, default in (
        ("eval.stride", config.eval.stride, 0),  # labelled rows are truncated
        ("monitor.baseline_run", config.monitor.baseline_run, ""),  # it is compared on dev
        ("teach.combine", config.teach.combine, "rank"),  # probabilities are scaled on dev
    ):
        _require(
            value == default,
            f"config.eval.folds reads no dev rows and does not support config.{key} = {value!r}: "
            f"set it to {default!r}.",
        )
    _require(
        config.algorithm != "mlm",
        "configs/mlm.py has no labels to cross-validate: set config.eval.folds = 0.",
    )
    _require(
        config.algorithm != "graph" or config.graph.nodes == "pool",
        "config.graph.nodes = 'labelled' takes its quantiles from dev rows, which "
        "config.eval.folds does not read: set config.eval.folds = 0.",
    )


def _check_patterns(patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise BadInput(
                f"config.optim.freeze has {pattern!r}, which is no regular expression: {error}."
            ) from error


def _check_sets(augment: ConfigDict) -> None:
    sets, weights = tuple(augment.sets), tuple(augment.weights)
    for name in (augment.name, *sets):
        _require(
            isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) is not None,
            f"{name!r} in config.augment.name or config.augment.sets is no folder name: use "
            "letters, digits, _, - and dots.",
        )
    _require(len(set(sets)) == len(sets), f"config.augment.sets = {sets} names a set twice.")
    _require(
        not weights or (len(weights) == max(len(sets), 1) and min(weights) > 0),
        f"config.augment.weights = {weights} must be a positive number for each of "
        f"config.augment.sets = {sets}, or () for equal ones.",
    )


def _check_neighbours(augment: ConfigDict) -> None:
    sets, features = tuple(augment.sets), tuple(augment.features)
    _require(
        not (augment.neighbours and sets),
        f"config.augment.neighbours = {augment.neighbours} replaces the views of "
        f"config.augment.sets = {sets}: set only one of the two.",
    )
    _require(
        len(features) > 0 and set(features) <= {"lsa", "tfidf", "encoder"},
        f"config.augment.features = {features}: name one or more of lsa, tfidf and encoder.",
    )


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise BadInput(sentence)
