"""FixMatch whose strong view of a row is one of its nearest rows of the unlabelled pool.

python -m ssl_guard.main --config=configs/neighbours.py --workdir=runs/neighbours

For neighbours in any other method: --config.augment.neighbours=4. See
ssl_guard/train/neighbour_views.py. Not measured yet.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "fixmatch",
        threshold=0.95,  # tau: smallest confidence of a pseudo-label that is used
        unlabelled_weight=1.0,  # lambda_u
    )
    config.augment.neighbours = 4
    config.augment.features = ("lsa",)
    return base.variant(config, arg)
