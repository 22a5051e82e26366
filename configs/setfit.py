"""SetFit on the labelled rows of the human-scored responses: contrastive steps, then a logistic
regression on the features; no unlabelled text.

python -m ssl_guard.main --config=configs/setfit.py --workdir=runs/setfit
"""

from ml_collections import ConfigDict

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    config.algorithm = "setfit"
    config.optim.freeze += ("head",)  # the steps read no head: it is fitted afterwards
    with config.unlocked():
        config.setfit = ConfigDict(
            dict(C=1.0)  # inverse L2 penalty of the logistic regression
        )
    return base.variant(config, arg)
