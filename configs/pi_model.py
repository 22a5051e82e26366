"""Pi-model on the human-scored responses: two dropout passes of the original text.

python -m ssl_guard.main --config=configs/pi_model.py --workdir=runs/pi_model
"""

from ml_collections import ConfigDict

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    config.algorithm = "pi_model"
    config.augment.name = "identity"  # tfidf for a second, augmented pass
    config.augment.ops = ("identity",)
    config.augment.copies = 1
    with config.unlocked():
        config.pi_model = ConfigDict(
            dict(
                unlabelled_weight=10.0,  # lambda_u, of a mean over classes
                ramp=0.4,  # share of the run over which lambda_u grows from 0
            )
        )
    return base.variant(config, arg)
