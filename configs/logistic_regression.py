"""Logistic regression on the frozen encoder's features of the labelled rows; no unlabelled text.

python -m ssl_guard.main --config=configs/logistic_regression.py --workdir=runs/logistic_regression
"""

from ml_collections import ConfigDict

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    config.algorithm = "logistic_regression"
    with config.unlocked():
        config.logistic_regression = ConfigDict(
            dict(C=(0.1, 1.0, 10.0, 100.0))  # inverse L2 penalties; dev chooses one
        )
    return base.variant(config, arg)
