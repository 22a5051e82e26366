"""TMix (Chen et al., arXiv 2004.12239) on the labelled rows of the human-scored responses, no
unlabelled text.

python -m ssl_guard.main --config=configs/tmix.py --workdir=runs/tmix

As in experiments/methods (200 labelled prompts, 3 seeds): F1 70.1 ± 2.5, AUPRC 77.0 ± 3.1; 100
steps in 63 s on 1 core of AMD EPYC. Recorded with batches sorted by length.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "tmix",
        alpha=16.0,  # a of Beta(a, a), the shares of a mixture
        depths=(7 / 12, 9 / 12, 1.0),  # shares of the layers below the mixture, one a step
    )
    return base.variant(config, arg)
