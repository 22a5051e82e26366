"""What a training loop remembers between two rows of metrics, so that it can stop at any step."""

from typing import NamedTuple

import jax
import numpy as np


class Progress(NamedTuple):
    """Since the last row: pending, the metrics of each step; tokens and computed, real and computed
    tokens. skipped: how many steps up to the last one were skipped in a row."""

    pending: list
    tokens: int = 0
    computed: int = 0
    skipped: int = 0

    def as_json(self) -> dict:
        """The same as JSON values, for a checkpoint's meta: Progress(**values) has it back, bit for
        bit."""
        pending = [
            {name: [np.asarray(x).tolist() for x in pair] for name, pair in part.items()}
            for part in jax.device_get(self.pending)
        ]
        return self._replace(pending=pending)._asdict()
