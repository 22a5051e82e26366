"""MixText (Chen et al., ACL 2020, arXiv 2004.12239, section 4) with TMix (section 3): the hidden
states of two texts are mixed at a random layer.

    h_m = s h_m(x) + (1 - s) h_m(x')                s = max(s', 1 - s'), s' ~ Beta(a, a)
    q = (p(weak) + w p(strong)) / (1 + w)           without gradient
    t = N(q^(1/T))                                  N(x) = x / sum x
    X, Y = texts and targets of [x, strong, weak] = [onehot y, t, t], Y' = s Y + (1 - s) Y[pi]
    L = mean_b CE(Y'_b, p(X'_b)) + r(t) lambda_u mean_u KL(Y'_u || p(X'_u))
        + r(t) lambda_m mean_u max(0, gamma - |p(weak)|^2)
    r(t) = min(1, t / (ramp T))                     linear over `ramp` of the run

Both texts go through the layers below m with the same weights, and the mixture through those above.
m is drawn for each step from `depths`, shares of the number of layers, rounded up: the paper's 7, 9
and 12 of BERT's 12. s' is drawn for every row (one for a batch in the authors' code) and pi is a
permutation of all rows. Since the partner of a row is another row of the same pass, it has the
dropout it has there; the authors run it a second time.

Texts of different lengths: above m a token of either text is a token of the mixture, and pads are
mixed as zeros, so that padding moves nothing. The authors attend to pads and average over them.

One strong view stands for the two back-translations; w = 0, the authors' setting for most data
sets, guesses from the original text alone. The margin term is the paper's and off by default, as in
the authors' code. That code has max(0, H(p) - gamma) instead, which with gamma = 0.7 is always 0
for two classes (H <= 0.693), and adds it on un-mixed steps only.

State: nothing.
"""

import jax
import jax.numpy as jnp

from ssl_guard.algorithms.base import (
    Algorithm,
    Target,
    consistency_term,
    dropout_key,
    no_state,
)
from ssl_guard.algorithms.losses import kl_divergence
from ssl_guard.algorithms.mixup import draw_mixture, mix, mix_targets, mixed_terms, sharpen
from ssl_guard.algorithms.ramps import linear_ramp

DEPTHS = (7 / 12, 9 / 12, 1.0)


def make(
    *,
    alpha: float = 16.0,
    depths: tuple[float, ...] = DEPTHS,
    temperature: float = 0.5,
    strong_weight: float = 0.0,
    unlabelled_weight: float = 1.0,
    margin_weight: float = 0.0,
    margin: float = 0.7,
    ramp: float = 1.0,
) -> Algorithm:
    """Builds the method.

    alpha: a > 0, large for shares near one half; depths: in (0, 1]; temperature: T in (0, 1];
    strong_weight: w >= 0 of the strong view in the guess; unlabelled_weight: lambda_u >= 0;
    margin_weight: lambda_m >= 0; margin: gamma in [0, 1]; ramp: share of the run in [0, 1] over
    which both weights grow from 0, 0 for none.

    Raises ValueError for a depth outside (0, 1].
    """
    check_depths(depths)

    def forward(stages, params, batch, clock, across):
        logits, mixture = mix_hidden(
            stages, params, batch, ("labelled", "strong", "weak"), clock, across, alpha, depths
        )
        logits = {"mixed": logits, "mixture": mixture}
        for view in ("weak", "strong") if strong_weight > 0 else ("weak",):
            rows, key = batch[view], dropout_key(clock.rng, view)
            features = stages.features(params, rows, key, True)
            logits[view] = stages.classify(params, features, rows["row"], key, True)
        return logits

    def target(state, logits, batch, clock, across):
        q = jax.nn.softmax(logits["weak"])
        if strong_weight > 0:
            q = (q + strong_weight * jax.nn.softmax(logits["strong"])) / (1 + strong_weight)
        t = sharpen(q, temperature)
        mixed = mix_targets(batch["labelled"]["label"], t, 2, logits["mixture"], across)
        return state, Target(t, jnp.ones(t.shape[:2]), extra=mixed)

    def loss(logits, target, batch, clock):
        r = linear_ramp(clock.progress, until=ramp)
        terms = mixed_terms(
            logits["mixed"], target.extra, batch, target, kl_divergence, unlabelled_weight * r
        )
        if margin_weight > 0:
            norm = jnp.square(jax.nn.softmax(logits["weak"])).sum(axis=-1)
            hinge = jnp.maximum(0.0, margin - norm)
            terms["margin"] = consistency_term(hinge, target, batch, margin_weight * r)
        return terms

    return Algorithm(("weak", "strong"), no_state, target, loss, forward=forward)


def check_depths(depths: tuple[float, ...]) -> None:
    """Raises ValueError for a depth outside (0, 1], or none."""
    if not depths or min(depths) <= 0 or max(depths) > 1:
        raise ValueError(f"depths {tuple(depths)} must be shares of the layers in (0, 1]")


def mix_hidden(stages, params, batch, views, clock, across, alpha, depths):
    """Computes (logits, mixture) of the views' rows, one view after the other.

    One pass of the encoder mixes their hidden states at a random one of `depths`.
    """
    draw, dropout, choice = (jax.random.fold_in(clock.rng, number) for number in (3, 4, 5))
    mixture = draw_mixture(draw, batch, views, alpha, across)
    rows = {
        name: jnp.concatenate([batch[view][name] for view in views])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    } | {"row": mixture.row}
    features = stages.features(
        params,
        rows,
        dropout,
        True,
        mixup_fn=lambda x: mix(x, mixture, across),
        depth=jax.random.choice(choice, jnp.array(depths)),
    )
    return stages.classify(params, features, mixture.row, dropout, True), mixture
