"""The ceiling: as supervised.py, but with the labels of the unlabelled rows, too.

python -m ssl_guard.main --config=configs/supervised_full.py --workdir=runs/supervised_full
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    config.algorithm = "supervised"
    config.data.all_labels = True
    config.train.steps, config.train.eval_every_steps = 240, 40  # more rows take more steps
    return base.variant(config, arg)
