"""ReMixMatch (Berthelot et al., arXiv 1911.09785) with TF-IDF word replacement on the human-scored
responses.

python -m ssl_guard.main --config=configs/remixmatch.py --workdir=runs/remixmatch

As in experiments/methods (200 labelled prompts, 3 seeds): F1 67.5 ± 3.1, AUPRC 76.3 ± 2.3; 100
steps in 218 s on 1 core of AMD EPYC. Recorded with batches sorted by length.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "remixmatch",
        alpha=0.75,  # a of Beta(a, a), the shares of a mixture
        temperature=0.5,  # T of the sharpened guess
        unlabelled_weight=1.5,  # lambda_u, of the mixed rows
        anchor_weight=0.5,  # lambda_a, of the strong view as it is
        # Share of the run over which both grow from 0. USB's 1/64 would be one step of
        # 80, when the head is still random.
        ramp=0.1,
        # Steps that the class shares are averaged over, uniform at first. With the paper's
        # 128, more than the whole run, the uniform start would never leave the average.
        window=32,
        prior=(),  # the pool's class shares, () to take those of the labelled rows
    )
    return base.variant(config, arg)
