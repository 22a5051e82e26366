"""Logistic regression on TF-IDF features of the labelled rows: no encoder, no unlabelled text.

python -m ssl_guard.main --config=configs/tfidf_logistic.py --workdir=runs/tfidf_logistic
"""

from ml_collections import ConfigDict

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    config.algorithm = "tfidf_logistic"
    with config.unlocked():
        config.tfidf_logistic = ConfigDict(
            dict(C=(10.0,))  # inverse L2 penalty; of several, dev chooses one
        )
    return base.variant(config, arg)
