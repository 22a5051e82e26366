"""MixText (Chen et al., arXiv 2004.12239) with TF-IDF word replacement on the human-scored
responses.

python -m ssl_guard.main --config=configs/mixtext.py --workdir=runs/mixtext

As in experiments/methods (200 labelled prompts, 3 seeds): F1 70.0 ± 1.6, AUPRC 79.2 ± 1.1; 100
steps in 262 s on 1 core of AMD EPYC. Recorded with batches sorted by length.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "mixtext",
        alpha=16.0,  # a of Beta(a, a), the shares of a mixture
        depths=(7 / 12, 9 / 12, 1.0),  # shares of the layers below the mixture, one a step
        temperature=0.5,  # T of the sharpened guess
        strong_weight=0.0,  # w of the strong view in the guess; 0: original text alone
        unlabelled_weight=1.0,  # lambda_u
        margin_weight=0.0,  # lambda_m of the margin term, 0 for none
        margin=0.7,  # gamma: smallest squared norm of a prediction without that term
        ramp=1.0,  # share of the run over which both weights grow from 0
    )
    return base.variant(config, arg)
