"""Streaming metrics as (sum, weight) pairs."""

import numpy as np

Metrics = dict[str, tuple]


# Lower bin edges, in nats, of the margin histograms. A margin is the weak view's logit of the
# pseudo-label minus its largest other logit. The last bin is open.
MARGINS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def merge(parts: list[Metrics]) -> dict[str, float | list[float]]:
    """Computes weighted means over any number of steps; omits metrics of zero weight.

    A histogram, whose value is an array of counts, becomes a list of shares.
    """
    sums: dict[str, list] = {}
    for part in parts:
        for name, (value, weight) in part.items():
            pair = sums.setdefault(name, [0.0, 0.0])
            pair[0] = pair[0] + np.asarray(value, float)
            pair[1] += float(weight)
    return {name: (value / weight).tolist() for name, (value, weight) in sums.items() if weight > 0}
