"""SetFit (Tunstall et al., arXiv 2209.11055) on the labelled rows of the human-scored responses, no
unlabelled text.

python -m ssl_guard.main --config=configs/setfit.py --workdir=runs/setfit

As in experiments/methods (200 labelled prompts, 3 seeds): F1 68.6 ± 1.0, AUPRC 77.3 ± 1.2; 100
steps in 131 s on 1 core of AMD EPYC.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "setfit",
        C=1.0,  # inverse L2 penalty of the logistic regression
    )
    config.optim.freeze += ("head",)  # the steps read no head: it is fitted afterwards
    return base.variant(config, arg)
