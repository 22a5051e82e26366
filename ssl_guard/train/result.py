"""The interface between a run and its method."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_guard.evaluation.prepare import Prepared
from ssl_guard.runtime.checkpoint import Checkpoints


class Result(NamedTuple):
    """The result of fitting one method, as the report needs it.

    dev: metrics.dev_scores by kind of weights, "raw" and, if kept, "ema"
    scores(split) -> {kind of weights: harmful probability, float64 [rows]}
    checkpoint_sha256: of the weights that score
    steps, selected_step: number of training steps, and the best one on dev
    diagnostics: `monitor.account`, None for a method without steps
    """

    dev: dict[str, dict[str, float]]
    scores: Callable[[str], dict[str, np.ndarray]]
    checkpoint_sha256: str
    steps: int = 0
    selected_step: int = 0
    diagnostics: dict | None = None


class Run(NamedTuple):
    """A run whose input has been read and checked.

    fit(folder to write to, checkpoints) -> Result
    """

    prepared: Prepared
    fit: Callable[[Path, Checkpoints], Result]
