"""Pseudo-label on the human-scored responses, original texts alone.

python -m ssl_guard.main --config=configs/pseudo_label.py --workdir=runs/pseudo_label
"""

from ml_collections import ConfigDict

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    config.algorithm = "pseudo_label"
    config.augment.name = "identity"  # the view with gradient is the text as it is
    config.augment.ops = ("identity",)
    config.augment.copies = 1
    with config.unlocked():
        config.pseudo_label = ConfigDict(
            dict(
                threshold=0.95,  # tau: smallest confidence of a pseudo-label that is used
                unlabelled_weight=1.0,  # lambda_u
                ramp=0.4,  # share of the run over which lambda_u grows from 0
            )
        )
    return base.variant(config, arg)
