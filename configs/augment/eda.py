"""Makes the set "eda": easy data augmentation.

    python -m ssl_guard augment --config=configs/augment/eda.py

Four views of every unlabelled row: synonyms, insertions, swaps, deletions. Takes seconds.
"""

from ml_collections import ConfigDict

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    with config.unlocked():
        config.augment.eda = ConfigDict(  # shares of words, as the paper recommends
            dict(replacement=0.1, insertion=0.1, swap=0.1, deletion=0.1)
        )
    config.augment.name = "eda"
    config.augment.ops = ("eda", "tfidf")  # tfidf if no word can be edited
    config.augment.gates.overlap = 1.0  # rejects unchanged views
    return base.variant(config, arg)
