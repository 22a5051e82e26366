"""Makes the set "mixed": general-purpose and task-specific rewrites.

    python -m ssl_guard augment --config=configs/augment/mixed.py

Four views of every unlabelled row. Takes seconds. To mix existing sets by weights, name them in a
training config instead: --config.augment.sets="('tfidf','rules')".
"""

from ml_collections import ConfigDict

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    with config.unlocked():
        config.augment.eda = ConfigDict(  # shares of words, as the paper recommends
            dict(replacement=0.1, insertion=0.1, swap=0.1, deletion=0.1)
        )
        config.augment.keyboard = ConfigDict(dict(p=0.1))  # share of words
    config.augment.name = "mixed"
    config.augment.ops = ("tfidf|eda|eda+keyboard|framing|persona+tfidf|quoting", "tfidf")
    config.augment.gates.overlap = 1.0  # rejects unchanged views
    return base.variant(config, arg)
