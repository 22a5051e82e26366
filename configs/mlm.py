"""Masked-language-model pre-training (Devlin et al., arXiv 1810.04805) of the encoder on the texts
of the human-scored responses.

python -m ssl_guard.main --config=configs/mlm.py --workdir=runs/mlm

Other configs then take --config.model.name=runs/mlm/encoder.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "mlm",
        rate=0.15,  # share of the words that are chosen
        batch=16,  # texts of a step, global
        held_out=64,  # texts of the pool that are watched instead of learned
    )
    config.optim.lr = 5e-5
    config.optim.layer_lr_decay = 1.0
    config.optim.weight_decay = 0.01
    config.optim.freeze = ()
    config.train.steps, config.train.eval_every_steps = 300, 50
    config.optim.warmup_steps = 30
    return base.variant(config, arg)
