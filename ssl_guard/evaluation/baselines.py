"""Logistic regression on fixed features: baselines without unlabelled text, and SetFit's head.

scikit-learn's LogisticRegression with an L2 penalty of 1 / C and classes weighted to count equally.
The features are

    logistic_regression   the pretrained encoder's pooled states, of unit length
    setfit                the same, after the steps of `algorithms/setfit.py`
    tfidf_logistic        TF-IDF of words, pairs of words, and runs of 3 and 4 characters, of the
                          prompt and the response as one text; vocabulary of the labelled rows
    graph                 each of these, and LSA, see graph_model.py

Only the labelled rows are fitted; dev chooses C, where there is a choice, and the threshold.
"""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_union
from sklearn.preprocessing import normalize

from ssl_guard.data.records import Records
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import inference, metrics


def logistic(features, labels: np.ndarray, C: float) -> LogisticRegression:
    """Fits the head. features: [rows, n], dense or sparse; labels: int [rows], both classes."""
    return LogisticRegression(C=C, class_weight="balanced", max_iter=5000).fit(features, labels)


def harmful(head: LogisticRegression, features) -> np.ndarray:
    """Predicts the harmful probability of each row, float64 [rows]."""
    return head.predict_proba(features)[:, 1]


def encoder_features(feature_fn: Callable, params, records: Records, **how) -> np.ndarray:
    """Computes pooled states of each record, scaled to unit length: float64 [rows, width].

    feature_fn(params, batch) -> [batch, width]; how: the arguments of `inference.outputs`.
    """
    return normalize(inference.outputs(feature_fn, params, records, **how))


def predict(features: Callable, params, records: Records, *, labelled: Records, C: float):
    """Predicts harmful probabilities, float64 [rows], with a head fitted on the labelled records.

    features(params, records) -> [rows, n].
    """
    head = logistic(features(params, labelled), inference.labels_of(labelled), C)
    return harmful(head, features(params, records))


def text_features(vocabulary: Sequence[Example]) -> Callable:
    """Returns features(examples) -> sparse [rows, n], with the terms of the `vocabulary`."""
    union = make_union(
        TfidfVectorizer(ngram_range=(1, 2)),
        TfidfVectorizer(ngram_range=(3, 4), analyzer="char"),
    ).fit(_texts(vocabulary))
    return lambda examples: union.transform(_texts(examples))


def lsa_features(vocabulary: Sequence[Example], components: int = 200) -> Callable:
    """Returns features(examples) -> float64 [rows, components] of length 1, or 0 without a word.

    Latent semantic analysis (Deerwester et al., 1990): the truncated SVD of the TF-IDF of words,
    fitted on the `vocabulary`, with fewer components where it has fewer rows or words.
    """
    words = TfidfVectorizer(sublinear_tf=True)
    counts = words.fit_transform(_texts(vocabulary))
    svd = TruncatedSVD(min(components, *counts.shape), random_state=0).fit(counts)
    return lambda examples: normalize(svd.transform(words.transform(_texts(examples))))


TEXT_FEATURES = {"tfidf": text_features, "lsa": lsa_features}


def _texts(examples: Sequence[Example]) -> list[str]:
    return [f"{example.prompt}\n{example.response or ''}" for example in examples]


def fit(
    features: Callable, labels: dict[str, np.ndarray], *, grid: tuple[float, ...], select_by: str
) -> tuple[LogisticRegression, dict[str, float]]:
    """Fits the head with the best C on dev, the smallest of ties, and returns it with dev scores.

    features(side) -> [rows, n] and labels, int [rows], for "labelled" and "dev"; select_by: a name
    of `metrics.dev_scores`. Raises BadInput for a grid that is empty or not positive.
    """
    if not grid or min(grid) <= 0:
        raise BadInput(f"C = {grid} of the logistic regression: give one or more numbers above 0.")
    labelled, dev = features("labelled"), features("dev")
    heads = [logistic(labelled, labels["labelled"], C) for C in sorted(grid)]
    scores = [metrics.dev_scores(labels["dev"], harmful(head, dev)) for head in heads]
    best = int(np.argmax([score[select_by] for score in scores]))
    return heads[best], scores[best] | {"C": heads[best].C}
