"""MixMatch (Berthelot et al., arXiv 1905.02249, section 3) on the pooled features of texts.

    q = 1/2 (softmax(z(weak)) + softmax(z(strong)))          the K = 2 augmentations of the paper
    t = N(q^(1/T)), without gradient                         N(x) = x / sum x
    F, Y = features and targets of [x, weak, strong] = [onehot y, t, t], one after the other
    F' = s F + (1 - s) F[pi],  Y' = s Y + (1 - s) Y[pi]      s = max(s', 1 - s'), s' ~ Beta(a, a)
    L = mean_b CE(Y'_b, p(F'_b)) + lambda_u r(t) mean_u mean_c (p_c(F'_u) - Y'_uc)^2
    r(t) = min(1, t / (ramp T))                              linear over `ramp` of the run

The paper mixes images; texts have no sum, so the pooled features are mixed, and the gradient of a
mixture goes through the encoder for both of its texts. s' is drawn for every row, and pi permutes
all rows, as in the paper. A text passes the encoder once: the guess q comes from the same features,
as the paper's from the same images. The mixtures have a head dropout of their own.
`config.augment.ops = ("identity",)` gives two dropout passes of one text.

(The reimplementation in USB mixes without gradient, so that its encoder never learns on text, and
draws one s' per batch.) lambda_u = 100, a = 0.5 and T = 0.5 are those of google-research/mixmatch;
the ramp over 0.4 of the run is USB's.

State: nothing.
"""

import jax
import jax.numpy as jnp

from ssl_guard.algorithms.base import Algorithm, Target, dropout_key, no_state
from ssl_guard.algorithms.losses import squared_error
from ssl_guard.algorithms.mixup import draw_mixture, mix, mix_targets, mixed_terms, sharpen
from ssl_guard.algorithms.ramps import linear_ramp


def make(
    *,
    alpha: float = 0.5,
    temperature: float = 0.5,
    unlabelled_weight: float = 100.0,
    ramp: float = 0.4,
) -> Algorithm:
    """Builds the method.

    alpha: a > 0, small for mixtures close to one of their texts; temperature: T in (0, 1], 1 for
    no sharpening; unlabelled_weight: lambda_u >= 0; ramp: share of the run in [0, 1] over which it
    grows from 0, 0 for none."""

    def forward(stages, params, batch, clock, across):
        return forward_mixed(stages, params, batch, clock, across, alpha)

    def target(state, logits, batch, clock, across):
        q = (jax.nn.softmax(logits["weak"]) + jax.nn.softmax(logits["strong"])) / 2
        t = sharpen(q, temperature)
        mixed = mix_targets(batch["labelled"]["label"], t, 2, logits["mixture"], across)
        return state, Target(t, jnp.ones(t.shape[:2]), extra=mixed)

    def loss(logits, target, batch, clock):
        coefficient = unlabelled_weight * linear_ramp(clock.progress, until=ramp)
        return mixed_terms(logits["mixed"], target.extra, batch, target, squared_error, coefficient)

    return Algorithm(("weak", "strong"), no_state, target, loss, forward=forward)


def forward_mixed(stages, params, batch, clock, across, alpha):
    """Runs one pass of the encoder per view, with gradient, and mixes their features. Returns
    logits of the views "weak" and "strong" as they are, and of the "mixed" rows of
    [labelled, weak, strong]."""
    views, features, logits = ("labelled", "weak", "strong"), [], {}
    for view in views:
        rows, key = batch[view], dropout_key(clock.rng, view)
        features.append(stages.features(params, rows, key, True))
        if view != "labelled":
            logits[view] = stages.classify(params, features[-1], rows["row"], key, True)
    draw, dropout = (jax.random.fold_in(clock.rng, number) for number in (3, 4))
    mixture = draw_mixture(draw, batch, views, alpha, across)
    mixed = mix(jnp.concatenate(features), mixture, across)
    logits["mixed"] = stages.classify(params, mixed, mixture.row, dropout, True)
    return logits | {"mixture": mixture}
