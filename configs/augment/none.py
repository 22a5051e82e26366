"""Makes the set "none": unchanged texts, so that strong and weak views differ by dropout only.

    python -m ssl_guard augment --config=configs/augment/none.py

The control in experiments on augmentation.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    config.augment.name = "none"
    config.augment.ops = ("identity",)
    config.augment.copies = 1
    return base.variant(config, arg)
