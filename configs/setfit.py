"""SetFit (Tunstall et al., arXiv 2209.11055) on the labelled rows of the human-scored responses, no
unlabelled text.

python -m ssl_guard.main --config=configs/setfit.py --workdir=runs/setfit

As in experiments/methods (200 labelled prompts, 3 seeds): F1 68.6 ± 1.0, AUPRC 77.3 ± 1.2; 100
steps in 131 s on 1 core of AMD EPYC. Recorded with batches sorted by length and with older
settings, see CHANGELOG.md.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "setfit",
        C=1.0,  # inverse L2 penalty of the logistic regression
    )
    # The paper's settings: the whole encoder at one small rate. 250 steps are its 20 pairs of each
    # kind for each of 100 rows, 16 pairs a step; here a step takes all 120 pairs of its 16 rows.
    config.optim.freeze = ("head",)  # the steps read no head: it is fitted afterwards
    config.optim.lr, config.optim.layer_lr_decay, config.optim.weight_decay = 2e-5, 1.0, 0.01
    config.train.steps, config.train.eval_every_steps = 250, 50
    config.optim.warmup_steps = 25
    return base.variant(config, arg)
