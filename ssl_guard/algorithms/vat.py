"""VAT, virtual adversarial training (Miyato et al., arXiv 1704.03976, section 3) on the word
embeddings of a text (arXiv 1605.07725, section 3).

    p = softmax(z(e)), without gradient             e: word embeddings [length, width], one text
    d ~ N(0, I), d <- d / |d|                       norms over the text's real tokens; pads get 0
    d <- H d / |H d|, `power_iterations` times      H: Hessian of KL(p || p(e + r)) by r, at r = 0
    r = epsilon d                                   (eqs. 10 to 12), without gradient
    L = mean_b CE(y_b, p(x_b))
        + r(t) lambda_u mean_u KL(p || p(e + r)) + lambda_e mean_u H(p(e))
    r(t) = min(1, t / (ramp T))                     linear over the first `ramp` of the run

The noise goes to the word embeddings before positions and token types are added. All passes over a
text in one step share one dropout mask: with two masks KL(p || p(e + r)) is not 0 at r = 0, and the
first-order difference of the masks, not the curvature, would choose the direction. Several heads:
the KL is summed over them to find r.

H d = J' (diag(p) - p p') J d, J the Jacobian of the logits, comes from forward and reverse mode
exactly. The finite difference of the paper and its followers, grad KL(p || p(e + xi d)) with xi =
1e-6, rounds to noise in float32, and to nothing in half precision.

(USB feeds the first hidden state back as word embeddings, so that positions and LayerNorm are
applied twice, and normalises over pads too.) The entropy term is the paper's "VAT + EntMin", with
the weight 0.06 of USB; the ramp and lambda_u = 1 are USB's as well (google-research/mixmatch: 0.3).

State: nothing. The view is "weak", the text as it is, and it runs with gradient.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ssl_guard.algorithms.base import (
    Algorithm,
    Target,
    consistency_term,
    dropout_key,
    no_state,
    supervised_term,
)
from ssl_guard.algorithms.losses import kl_divergence
from ssl_guard.algorithms.ramps import linear_ramp


def make(
    *,
    epsilon: float = 6.0,
    power_iterations: int = 1,
    unlabelled_weight: float = 1.0,
    entropy_weight: float = 0.06,
    ramp: float = 0.4,
) -> Algorithm:
    """Builds the method.

    epsilon: length of the noise on a whole text; power_iterations: 1 is the paper's, 0 leaves
    the random direction; unlabelled_weight: lambda_u >= 0; entropy_weight: lambda_e >= 0; ramp:
    share of the run in [0, 1] over which lambda_u grows from 0, 0 for none."""

    def forward(stages, params, batch, clock, across):
        rows, key = batch["weak"], dropout_key(clock.rng, "weak")

        def logits_of(params, words):
            features = stages.features(params, rows, key, True, word_embeddings=words)
            return stages.classify(params, features, rows["row"], key, True)

        labelled, labelled_key = batch["labelled"], dropout_key(clock.rng, "labelled")
        features = stages.features(params, labelled, labelled_key, True)
        words = stages.word_embeddings(params, rows)
        # No gradient goes through the search: its inputs are stopped, so none is even traced.
        direction = adversarial_direction(
            lambda words: logits_of(jax.lax.stop_gradient(params), words),
            jax.lax.stop_gradient(words),
            random_direction(jax.random.fold_in(clock.rng, 3), rows, words.shape),
            power_iterations,
        )
        return {
            "labelled": stages.classify(params, features, labelled["row"], labelled_key, True),
            "weak": logits_of(params, words),
            "adversarial": logits_of(params, words + epsilon * direction),
        }

    def target(state, logits, batch, clock, across):
        p = jax.nn.softmax(logits["weak"])
        return state, Target(p, jnp.ones(p.shape[:2]))

    def loss(logits, target, batch, clock):
        divergence = kl_divergence(logits["adversarial"], target.probs)
        entropy = optax.softmax_cross_entropy(logits["weak"], jax.nn.softmax(logits["weak"]))
        coefficient = unlabelled_weight * linear_ramp(clock.progress, until=ramp)
        return {
            "supervised": supervised_term(logits["labelled"], batch["labelled"]),
            "unlabelled": consistency_term(divergence, target, batch, coefficient),
            "entropy": consistency_term(entropy, target, batch, entropy_weight),
        }

    return Algorithm(("weak",), no_state, target, loss, forward=forward)


def random_direction(
    rng: jax.Array, rows: dict, shape: tuple[int, int, int]
) -> Float[Array, "batch length width"]:
    """Returns a normal direction for every text, keyed by its row's place; zero on pads."""
    keys = jax.vmap(lambda row: jax.random.fold_in(rng, row))(rows["row"])
    noise = jax.vmap(lambda key: jax.random.normal(key, shape[1:]))(keys)
    return jnp.where(rows["attention_mask"][:, :, None] > 0, noise, 0.0)


def adversarial_direction(
    logits_of, words: Float[Array, "batch length width"], direction, power_iterations: int
) -> Float[Array, "batch length width"]:
    """Runs power iteration from `direction` and returns a unit direction per text."""
    logits, jacobian = jax.linearize(logits_of, words)
    transposed = jax.linear_transpose(jacobian, words)
    p = jax.nn.softmax(logits)
    direction = unit(direction)
    for _ in range(power_iterations):
        slope = jacobian(direction)
        (direction,) = transposed(p * (slope - (p * slope).sum(axis=-1, keepdims=True)))
        direction = unit(direction)
    return direction


def unit(x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
    """Computes x / |x| per text, 0 for 0; scaled by the maximum first, as squares underflow."""
    largest = jnp.abs(x).max(axis=(1, 2), keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1.0)
    norm = jnp.sqrt(jnp.square(x).sum(axis=(1, 2), keepdims=True))
    return x / jnp.where(largest > 0, norm, 1.0)
