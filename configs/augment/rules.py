"""The set "rules": rewrites that attackers use, for the task but without a language model.

    python -m ssl_guard augment --config=configs/augment/rules.py

Four views of every unlabelled row, in seconds: role-play and other framings, personas, quotation
and obfuscation. Scripts change on purpose, so there is no language gate.
"""

from ml_collections import ConfigDict

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    with config.unlocked():
        config.augment.leetspeak = ConfigDict(dict(p=0.3))  # share of words
        config.augment.spacing = ConfigDict(dict(p=0.2))
        config.augment.masking = ConfigDict(dict(p=0.2))
    config.augment.name = "rules"
    config.augment.ops = (
        "framing|persona|quoting|framing+leetspeak|persona+masking|spacing",
        "tfidf",
    )
    config.augment.gates.overlap = 1.0  # a view that says the same again is no view
    return base.variant(config, arg)
