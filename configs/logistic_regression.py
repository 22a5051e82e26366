"""Logistic regression on the frozen encoder's features of the labelled rows, no unlabelled text.

python -m ssl_guard.main --config=configs/logistic_regression.py --workdir=runs/logistic_regression

As in experiments/methods (200 labelled prompts, 3 seeds): F1 65.9 ± 1.7, AUPRC 69.8 ± 2.4; 16 s
on 1 core of AMD EPYC.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "logistic_regression",
        C=(0.1, 1.0, 10.0, 100.0),  # inverse L2 penalties; dev chooses one
    )
    return base.variant(config, arg)
