"""Fits the heads before the first step: LP-FT (Kumar et al., arXiv 2202.10054, section 4).

The paper finds that the gradients of a random head distort pretrained features, and that a fitted
one ("linear probing") leaves them nearly as they are. Heads are scikit-learn's logistic
regressions, with an L2 penalty, on the labelled rows' features of the pretrained encoder, dropout
off. A fitted head starts with larger gradients than a random one, which is near 0 here.

The features are standardised for the fit, and the shift and the scale are then part of the layer.
The features of a "linear" head are the pooled states. An "mlp" head keeps its random dense layer
and GELU, whose outputs are the features of its last layer: this is a regression on random features,
not the best head of this shape, and different for each head of `model.num_heads`.

The two logits are -d / 2 and d / 2 for a decision function d. The paper chooses the penalty on
validation data; here it is fixed, see `C`.
"""

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssl_guard import models
from ssl_guard.algorithms import Algorithm
from ssl_guard.data import pipeline
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import inference, scorer
from ssl_guard.evaluation.prepare import Prepared
from ssl_guard.models import heads
from ssl_guard.runtime import processes, sharding

# Inverse of the L2 penalty. With some hundred rows, fewer than features, the usual 1 separates the
# classes, and such a sure head would have all its first pseudo-labels used.
C = 0.01


def check(config, algorithm: Algorithm) -> None:
    """Raises BadInput for several linear heads, which would be equal, and for a method without."""
    if algorithm.logistic_head:
        raise BadInput(
            f"the steps of {config.algorithm} read no head, which every evaluation fits: set "
            "config.model.head_init = 'random'."
        )
    if config.model.head == "linear" and config.model.num_heads > 1:
        raise BadInput(
            f"config.model.head_init = 'logistic' makes all {config.model.num_heads} linear heads "
            "equal, with nothing to teach each other: set config.model.head = 'mlp'."
        )


def logistic(config, model: models.Classifier, params, prepared: Prepared, mesh) -> dict:
    """Returns the parameters of the heads, float32 NumPy arrays, with fitted last layers.

    params: of the classifier, before the first step. The outputs of a method's extra classes stay
    random. All processes get the first one's fit.
    Raises BadInput if the labelled rows of a task are not of both classes.
    """
    features = scorer.features_fn(config, model, prepared.tokenizer, mesh, unit_length=False)
    params = jax.device_get(params)
    pooled = features(sharding.gather(params, mesh), prepared.labelled).astype(np.float32)
    labels = inference.labels_of(prepared.labelled)
    mine, head = np.ones(len(labels), bool), dict(params["head"])
    num_heads = config.model.num_heads  # of each task
    for number in range((2 if config.data.prompt_corpus else 1) * num_heads):
        if config.data.prompt_corpus:
            mine = pipeline.tasks_of(prepared.labelled) == number // num_heads
        if len(set(labels[mine])) < 2:
            raise BadInput(
                f"head {number} cannot be fitted, since its labelled rows are not of both classes: "
                "raise config.data.labelled, or set config.model.head_init = 'random'."
            )
        inputs = np.asarray(heads.last_inputs(head, pooled, number, model.hidden), np.float64)
        inputs = inputs[mine]
        output = {name: np.array(values) for name, values in head[f"output_{number}"].items()}
        weight, bias = _fit(inputs, labels[mine])
        output["kernel"][:, :2] = np.stack([-weight, weight], axis=1) / 2
        output["bias"][:2] = -bias / 2, bias / 2
        head[f"output_{number}"] = output
    return processes.of_first_process(head)


def _fit(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns (w [n], b) with w . x + b the decision function of features x, not standardised."""
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(C=C, max_iter=5000).fit(scaler.transform(features), labels)
    weight = fitted.coef_[0] / scaler.scale_
    return weight, fitted.intercept_[0] - weight @ scaler.mean_
