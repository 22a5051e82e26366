"""The set "none": every text as it is, so that strong and weak view differ by dropout alone.

    python -m ssl_guard augment --config=configs/augment/none.py

The control of an experiment with augmentations.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    config.augment.name = "none"
    config.augment.ops = ("identity",)
    config.augment.copies = 1
    return base.variant(config, arg)
