"""ReMixMatch (Berthelot et al., arXiv 1911.09785, section 3) on the pooled features of texts:
MixMatch with distribution alignment and augmentation anchoring.

    q = softmax(z(weak)), without gradient
    q^ = N(q p / p~), t = N(q^^(1/T))               p, p~: class shares, see below; N(x) = x / sum x
    F, Y = features and targets of [x, weak, strong] = [onehot y, t, t], mixed as in `mixmatch`
    L = mean_b CE(Y'_b, p(F'_b)) + r(t) lambda_u mean_u CE(Y'_u, p(F'_u))
        + r(t) lambda_a mean_u CE(t, p(strong))     the strong view as it is, un-mixed
    r(t) = min(1, t / (ramp T))                     linear over `ramp` of the run

p~ is the mean prediction q over the last `window` steps and p that of the labelled rows' classes
(or `prior`, where the pool's shares are known). As in the authors' code both start uniform, a step
uses the averages of the steps before it, and 1e-6 is added to both.

Anchoring has one strong copy (K = 1, the authors' default flag), which the pipeline gives. Left
out: rotation, which texts do not have, and the strong augmentation of labelled rows, which are not
augmented here. The ramp is not in the paper: the authors' code has it over 16 epochs of 65536
images, and USB over 1/64 of the run. Weights, a and T are the authors'.

(In USB the mixed features carry no gradient, so that the encoder learns from the un-mixed term
alone and collapses on text; p~ is a moving average with 0.999, updated before it is used.)

State: 2 window C floats; nothing per pool example.
"""

import jax
import jax.numpy as jnp
import optax

from ssl_guard.algorithms.base import Algorithm, Target, batch_mean, consistency_term
from ssl_guard.algorithms.mixmatch import forward_mixed
from ssl_guard.algorithms.mixup import mix_targets, mixed_terms, sharpen
from ssl_guard.algorithms.ramps import linear_ramp
from ssl_guard.errors import BadInput


def make(
    *,
    alpha: float = 0.75,
    temperature: float = 0.5,
    unlabelled_weight: float = 1.5,
    anchor_weight: float = 0.5,
    ramp: float = 1 / 64,
    window: int = 128,
    prior: tuple[float, ...] = (),
) -> Algorithm:
    """Builds the method.

    alpha: a > 0; temperature: T in (0, 1]; unlabelled_weight: lambda_u >= 0 of the mixed rows;
    anchor_weight: lambda_a >= 0 of the un-mixed strong view; ramp: share of the run in [0, 1] over
    which both grow from 0, 0 for none; window: steps that the class shares are averaged over;
    prior: the pool's class shares, () to take those of the labelled rows.

    Raises ValueError for a prior that is no distribution.
    """
    if prior and (min(prior) <= 0 or abs(sum(prior) - 1) > 1e-3):
        raise ValueError(f"prior {prior} must be positive shares that sum to 1")

    def init_state(pool_size, num_classes, num_heads, **sizes):
        """labelled, unlabelled: float32 [window, classes], class shares of the last steps."""
        if prior and len(prior) != num_classes:
            raise BadInput(
                f"config.remixmatch.prior has {len(prior)} shares for {num_classes} classes: give "
                "one for each."
            )
        shares = jnp.full((window, num_classes), 1 / num_classes, jnp.float32)
        return {"labelled": shares, "unlabelled": shares}

    def forward(stages, params, batch, clock, across):
        return forward_mixed(stages, params, batch, clock, across, alpha)

    def target(state, logits, batch, clock, across):
        q, label = jax.nn.softmax(logits["weak"]), batch["labelled"]["label"]
        known = jnp.array(prior) if prior else state["labelled"].mean(axis=0)
        ratio = (known + 1e-6) / (state["unlabelled"].mean(axis=0) + 1e-6)
        t = sharpen(q * ratio[None, None], temperature)
        mixed = mix_targets(label, t, 2, logits["mixture"], across)
        classes = jax.nn.one_hot(label, q.shape[-1])
        new = {
            "labelled": batch_mean(classes, batch["labelled"]["weight"], across),
            "unlabelled": batch_mean(q.mean(axis=1), batch["weight"], across),
        }
        place = clock.step % window
        state = {
            name: state[name].at[place].set(jnp.where(count > 0, mean, state[name][place]))
            for name, (mean, count) in new.items()
        }
        return state, Target(t, jnp.ones(t.shape[:2]), extra=mixed)

    def loss(logits, target, batch, clock):
        r = linear_ramp(clock.progress, until=ramp)
        loss_fn, coefficient = optax.softmax_cross_entropy, unlabelled_weight * r
        terms = mixed_terms(logits["mixed"], target.extra, batch, target, loss_fn, coefficient)
        anchor = loss_fn(logits["strong"], target.probs)
        return terms | {"anchor": consistency_term(anchor, target, batch, anchor_weight * r)}

    return Algorithm(("weak", "strong"), init_state, target, loss, forward=forward)
