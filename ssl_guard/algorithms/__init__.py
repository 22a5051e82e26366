"""The semi-supervised methods, one file each, and their table by name."""

import difflib
import inspect

from ssl_guard.algorithms import (
    adamatch,
    dash,
    fixmatch,
    flexmatch,
    freematch,
    marginmatch,
    mean_teacher,
    mixmatch,
    mixtext,
    multihead_cotraining,
    multimatch,
    pi_model,
    pseudo_label,
    remixmatch,
    self_training,
    setfit,
    simmatch,
    softmatch,
    supervised,
    tmix,
    uda,
    vat,
)
from ssl_guard.algorithms.base import (
    NO_COLLECTIVES,
    Algorithm,
    Collectives,
    StepInfo,
    Target,
    dropout_key,
)
from ssl_guard.errors import BadInput

ALGORITHMS = {
    "supervised": supervised.make,
    "pseudo_label": pseudo_label.make,
    "self_training": self_training.make,
    "pi_model": pi_model.make,
    "mean_teacher": mean_teacher.make,
    "vat": vat.make,
    "mixmatch": mixmatch.make,
    "remixmatch": remixmatch.make,
    "simmatch": simmatch.make,
    "setfit": setfit.make,
    "tmix": tmix.make,
    "mixtext": mixtext.make,
    "uda": uda.make,
    "fixmatch": fixmatch.make,
    "flexmatch": flexmatch.make,
    "freematch": freematch.make,
    "softmatch": softmatch.make,
    "adamatch": adamatch.make,
    "dash": dash.make,
    "marginmatch": marginmatch.make,
    "multihead_cotraining": multihead_cotraining.make,
    "multimatch": multimatch.make,
}

# no steps, see train/baselines.py
CLOSED_FORM = ("logistic_regression", "tfidf_logistic", "graph")


def build(name: str, **hyper_parameters) -> Algorithm:
    """Builds the algorithm `name` with its keyword hyper-parameters.

    Raises BadInput for an unknown name, an unknown hyper-parameter or an invalid value.
    """
    if name not in ALGORITHMS:
        raise BadInput(
            f"config.algorithm {name!r} is unknown: use one of "
            f"{', '.join([*ALGORITHMS, *CLOSED_FORM])}."
        )
    known = inspect.signature(ALGORITHMS[name]).parameters
    for key in hyper_parameters:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1) or list(known)
            raise BadInput(f"{name} has no hyper-parameter {key!r}: did you mean {near}?")
    try:
        return ALGORITHMS[name](**hyper_parameters)
    except ValueError as error:
        raise BadInput(f"config.{name}: {error}.") from error


__all__ = [
    "ALGORITHMS",
    "CLOSED_FORM",
    "NO_COLLECTIVES",
    "Collectives",
    "Algorithm",
    "StepInfo",
    "Target",
    "build",
    "dropout_key",
]
