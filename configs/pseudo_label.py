"""Pseudo-label (Lee, ICML 2013 workshop) on the original texts of the human-scored responses.

python -m ssl_guard.main --config=configs/pseudo_label.py --workdir=runs/pseudo_label

As in experiments/methods (200 labelled prompts, 3 seeds): F1 69.3 ± 2.0, AUPRC 75.8 ± 6.5; 100
steps in 122 s on 1 core of AMD EPYC. Recorded with batches sorted by length and with older
settings, see CHANGELOG.md.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "pseudo_label",
        threshold=0.95,  # tau: smallest confidence of a pseudo-label that is used
        unlabelled_weight=1.0,  # lambda_u
        ramp=0.4,  # share of the run over which lambda_u grows from 0
    )
    config.augment.name = "identity"  # the view with gradient is the text as it is
    config.augment.ops = ("identity",)
    config.augment.copies = 1
    return base.variant(config, arg)
