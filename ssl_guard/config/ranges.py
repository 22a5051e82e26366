"""Defines the range of every number in the config, in interval notation.

A key that holds several numbers has the range of each. NaN is in no range. Keys that are not listed
here, which only a config file of your own can add, may have any finite value.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ssl_guard.errors import BadInput

COUNT, COUNT_OR_NONE = "[1, 2147483647]", "[0, 2147483647]"  # int32
SHARE, POSITIVE_SHARE, OPEN_SHARE = "[0, 1]", "(0, 1]", "[0, 1)"
POSITIVE, NOT_NEGATIVE, FINITE = "(0, 1e6]", "[0, 1e6]", "(-inf, inf)"

RANGES = {
    "seed": "[0, 4294967295]",  # JAX drops the higher bits of a key
    "data.harmful_from": SHARE,
    "data.safe_from": SHARE,
    "data.labelled": COUNT,
    "data.dev": COUNT,
    "data.test": COUNT,
    "data.calibration": COUNT_OR_NONE,
    "data.unlabelled_weights": POSITIVE,
    "data.exact_neighbours": COUNT_OR_NONE,
    "data.max_length": COUNT,
    "data.buckets": COUNT,
    "data.num_shapes": COUNT_OR_NONE,
    "data.window_steps": COUNT,
    "augment.copies": COUNT,
    "augment.weights": POSITIVE,
    "augment.neighbours": COUNT_OR_NONE,
    "augment.gates.overlap": SHARE,
    "augment.gates.length": NOT_NEGATIVE,
    "augment.gates.language": SHARE,
    "augment.gates.similarity": SHARE,
    "augment.gates.confidence": SHARE,
    "augment.tfidf.p": SHARE,
    "augment.eda.replacement": SHARE,
    "augment.eda.insertion": SHARE,
    "augment.eda.swap": SHARE,
    "augment.eda.deletion": SHARE,
    "augment.keyboard.p": SHARE,
    "augment.ocr.p": SHARE,
    "augment.leetspeak.p": SHARE,
    "augment.spacing.p": SHARE,
    "augment.homoglyphs.p": SHARE,
    "augment.zero_width.p": SHARE,
    "augment.masking.p": SHARE,
    "augment.code_switch.p": SHARE,
    "augment.encoded.words": COUNT,
    "augment.multi_turn.exchanges": COUNT,
    "augment.back_translation.temperature": NOT_NEGATIVE,
    "augment.back_translation.top_k": COUNT_OR_NONE,
    "augment.back_translation.beams": COUNT,
    "augment.back_translation.batch_size": COUNT,
    "augment.back_translation.max_tokens": COUNT,
    "augment.back_translation.threads": COUNT,
    "augment.llm.temperature": NOT_NEGATIVE,
    "augment.llm.top_p": POSITIVE_SHARE,
    "augment.llm.max_tokens": COUNT,
    "augment.llm.concurrency": COUNT,
    "augment.llm.requests_per_minute": "[0, 1e9]",
    "augment.llm.tokens_per_minute": "[0, 1e12]",
    "augment.llm.timeout": POSITIVE,
    "augment.llm.attempts": COUNT,
    "augment.llm.deadline": "[0, 1e12]",
    "augment.llm.max_cost": "[0, 1e12]",
    "augment.llm.max_total_tokens": "[0, 1e12]",
    "augment.llm.prompt_price": NOT_NEGATIVE,
    "augment.llm.completion_price": NOT_NEGATIVE,
    "model.num_layers": COUNT_OR_NONE,
    "model.num_heads": COUNT,
    "model.dropout": OPEN_SHARE,
    "optim.lr": SHARE,
    "optim.layer_lr_decay": POSITIVE_SHARE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.warmup_steps": COUNT_OR_NONE,
    "optim.clip_norm": NOT_NEGATIVE,
    "optim.ema_decay": OPEN_SHARE,
    "train.steps": COUNT,
    "train.supervised_steps": COUNT_OR_NONE,
    "train.rank_share": POSITIVE_SHARE,
    "train.steps_per_epoch": COUNT_OR_NONE,
    "train.labelled_batch": COUNT,
    "train.unlabelled_batch": COUNT,
    "train.grad_accum_steps": COUNT,
    "train.eval_every_steps": COUNT,
    "train.keep_last": COUNT,
    "train.log_every_steps": COUNT,
    "train.max_nonfinite_steps": COUNT,
    "teach.neighbours": COUNT,
    "teach.C": POSITIVE,
    "teach.alpha": OPEN_SHARE,
    "teach.prior": OPEN_SHARE,
    "teach.share": POSITIVE_SHARE,
    "teach.rounds": COUNT,
    "monitor.idle_steps": COUNT,
    "monitor.window_steps": COUNT,
    "monitor.max_kl": NOT_NEGATIVE,
    "monitor.scored_rows": COUNT_OR_NONE,
    "eval.batch": COUNT,
    "eval.stride": COUNT_OR_NONE,
    "eval.folds": COUNT_OR_NONE,  # checks.py refuses 1
    "eval.fold": "[-1, 2147483646]",
    "eval.bootstrap_samples": COUNT,
    # int32; checks.py refuses 0 and what is below -1
    "mesh.data": "[-2147483648, 2147483647]",
    "mesh.fsdp": "[-2147483648, 2147483647]",
    "mesh.tensor": "[-2147483648, 2147483647]",
    # algorithms
    "adamatch.momentum": OPEN_SHARE,
    "adamatch.threshold": SHARE,
    "dash.decay_every_steps": COUNT,
    "dash.estimate_steps": COUNT,
    "dash.gamma": "(1, 1e6]",
    "dash.rho_min": NOT_NEGATIVE,
    "dash.scale": POSITIVE,
    "dash.temperature": POSITIVE,
    "dash.warmup_steps": COUNT,
    "fixmatch.threshold": SHARE,
    "flexmatch.threshold": SHARE,
    "freematch.fairness_weight": NOT_NEGATIVE,
    "freematch.momentum": OPEN_SHARE,
    "graph.C": POSITIVE,
    "graph.alpha": OPEN_SHARE,
    "graph.neighbours": COUNT,
    "graph.rounds": COUNT_OR_NONE,
    "logistic_regression.C": POSITIVE,
    "marginmatch.agreement_quantile": SHARE,
    "marginmatch.confidence": SHARE,
    "marginmatch.cutoff": "[-1e6, 1e6]",
    "marginmatch.redraw_epochs": COUNT,
    "marginmatch.smoothness": OPEN_SHARE,
    "marginmatch.virtual_quantile": SHARE,
    "marginmatch.virtual_share": POSITIVE_SHARE,
    "marginmatch.warmup": SHARE,
    "mixmatch.alpha": POSITIVE,
    "mixmatch.temperature": POSITIVE,
    "mixtext.alpha": POSITIVE,
    "mixtext.depths": POSITIVE_SHARE,
    "mixtext.margin": SHARE,
    "mixtext.margin_weight": NOT_NEGATIVE,
    "mixtext.strong_weight": NOT_NEGATIVE,
    "mixtext.temperature": POSITIVE,
    "mlm.batch": COUNT,
    "mlm.held_out": COUNT,
    "mlm.rate": "(0, 1)",
    "multimatch.difficult_weight": NOT_NEGATIVE,
    "multimatch.momentum": OPEN_SHARE,
    "multimatch.quantile": SHARE,
    "multimatch.smoothness": OPEN_SHARE,
    "pseudo_label.threshold": SHARE,
    "remixmatch.alpha": POSITIVE,
    "remixmatch.anchor_weight": NOT_NEGATIVE,
    "remixmatch.prior": "(0, 1)",
    "remixmatch.temperature": POSITIVE,
    "remixmatch.window": COUNT,
    "self_training.supervised_weight": NOT_NEGATIVE,
    "setfit.C": POSITIVE,
    "simmatch.alpha": SHARE,
    "simmatch.momentum": OPEN_SHARE,
    "simmatch.similarity_weight": NOT_NEGATIVE,
    "simmatch.temperature": POSITIVE,
    "simmatch.threshold": SHARE,
    "simmatch.window": COUNT,
    "softmatch.momentum": OPEN_SHARE,
    "softmatch.n_sigma": POSITIVE,
    "tfidf_logistic.C": POSITIVE,
    "tmix.alpha": POSITIVE,
    "tmix.depths": POSITIVE_SHARE,
    "uda.confidence": SHARE,
    "uda.temperature": POSITIVE,
    "vat.entropy_weight": NOT_NEGATIVE,
    "vat.epsilon": POSITIVE,
    "vat.power_iterations": COUNT_OR_NONE,
}
SHARED = {"unlabelled_weight": NOT_NEGATIVE, "ramp": SHARE}  # in the groups of several algorithms


class Interval(NamedTuple):
    """A parsed range."""

    low: float
    high: float
    includes_low: bool
    includes_high: bool

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        above = self.low <= value if self.includes_low else self.low < value
        return above and (value <= self.high if self.includes_high else value < self.high)


def interval(text: str) -> Interval:
    """Parses interval notation, such as (0, 1]."""
    low, high = text[1:-1].split(",")
    return Interval(float(low), float(high), text[0] == "[", text[-1] == "]")


def range_of(key: str) -> str:
    """Returns the range of a key's numbers."""
    return RANGES.get(key) or SHARED.get(key.rpartition(".")[2], FINITE)


def numbers(values: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    """Yields (key, number) of all numbers of a config, those in tuples one by one."""
    for key, value in values.items():
        for number in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                yield key, number


def check(values: Mapping[str, object]) -> None:
    """Raises BadInput for a number outside its range. values: by dotted key."""
    for key, number in numbers(values):
        if number not in interval(text := range_of(key)):
            raise BadInput(f"config.{key} = {number} must be in {text}.")
