"""Makes the set "tfidf": UDA's word replacement. Training makes it if it is missing.

    python -m ssl_guard augment --config=configs/augment/tfidf.py

Four views of every unlabelled row. Takes seconds. Replaces words that carry little of a text's
topic by others of the same kind.
"""

from ssl_guard import config as base


def get_config(arg=None):
    return base.variant(base.default(), arg)
