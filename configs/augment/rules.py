"""Makes the set "rules": rewrites that attackers use, without a language model.

    python -m ssl_guard augment --config=configs/augment/rules.py

Four views of every unlabelled row: role-play and other framings, personas, quotation, obfuscation.
Takes seconds. Has no language gate, since obfuscated words look like other languages.
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
    config.augment.gates.overlap = 1.0  # rejects unchanged views
    return base.variant(config, arg)
