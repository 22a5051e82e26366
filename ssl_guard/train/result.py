"""The result of fitting one method."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Result(NamedTuple):
    """What the report of a run needs from its method.

    dev: metrics.dev_scores by kind of weights, "raw" and, if kept, "ema"; scores(split) -> harmful
    probability, float64 [rows], by kind; steps: trained; selected_step: the best one on dev;
    checkpoint_sha256: of the weights that score; observatory: `monitor.account`, if there is any.
    """

    dev: dict[str, dict[str, float]]
    scores: Callable[[str], dict[str, np.ndarray]]
    checkpoint_sha256: str
    steps: int = 0
    selected_step: int = 0
    observatory: dict | None = None
