"""VAT (Miyato et al., arXiv 1704.03976) on the human-scored responses: adversarial noise on the
word embeddings.

python -m ssl_guard.main --config=configs/vat.py --workdir=runs/vat

As in experiments/methods (200 labelled prompts, 3 seeds): F1 69.5 ± 2.5, AUPRC 77.4 ± 1.3; 100
steps in 404 s on 1 core of AMD EPYC. Recorded with batches sorted by length.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "vat",
        epsilon=6.0,  # length of the noise; 128 words of MiniLM have the length 13
        power_iterations=1,  # steps towards the worst direction
        unlabelled_weight=1.0,  # lambda_u, of the divergence under noise
        entropy_weight=0.06,  # of the entropy of the predictions
        ramp=0.4,  # share of the run over which lambda_u grows from 0
    )
    return base.variant(config, arg)
