"""The set "tfidf": UDA's word replacement, which training makes by itself where it is missing.

    python -m ssl_guard augment --config=configs/augment/tfidf.py

Four views of every unlabelled row, in seconds. Words that say little of a text's topic are replaced
by others that do.
"""

from ssl_guard import config as base


def get_config(arg=None):
    return base.variant(base.default(), arg)
