"""The set "eda": easy data augmentation, the general-purpose one.

    python -m ssl_guard augment --config=configs/augment/eda.py

Four views of every unlabelled row, in seconds: synonyms, insertions, swaps, deletions.
"""

from ml_collections import ConfigDict

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    with config.unlocked():
        config.augment.eda = ConfigDict(  # shares of words, as the paper advises
            dict(replacement=0.1, insertion=0.1, swap=0.1, deletion=0.1)
        )
    config.augment.name = "eda"
    config.augment.ops = ("eda", "tfidf")  # a text without a word to edit gets the latter
    config.augment.gates.overlap = 1.0  # a view that says the same again is no view
    return base.variant(config, arg)
