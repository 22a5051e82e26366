"""Gates that need a model: similarity of meaning, and an unchanged class.

Values are computed in float32 and depend on the padding of a batch by rounding, so a view within
1e-6 of a bound may pass or fail.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ssl_guard import config as config_module
from ssl_guard.augment import make
from ssl_guard.augment.gates import Gate, Text
from ssl_guard.data.records import Rows
from ssl_guard.data.schema import Example
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import scorer
from ssl_guard.models import pretrained
from ssl_guard.runtime import sharding


def build(*, similarity: float, classifier: str, confidence: float) -> tuple[Gate, ...]:
    """Builds the gates, in the order in which they are applied.

    similarity: least cosine of the embeddings of source and view, from 0 (no gate) to 1
    classifier: workdir of a finished run, "" for no gate: rejects views that it assigns to another
        class than their source with at least `confidence`
    confidence: from 0.5 to 1

    Raises BadInput for values out of range and a workdir without a finished run.
    """
    if not 0 <= similarity <= 1 or not 0.5 <= confidence <= 1:
        raise BadInput(
            f"config.augment.gates: similarity = {similarity} must be between 0 (no gate) and 1, "
            f"and confidence = {confidence} between 0.5 and 1."
        )
    gates = []
    if similarity:
        gates.append(Gate("similarity", _encoder_similarity(), similarity, np.inf))
    if classifier:
        flips = functools.partial(confidence_of_flips, scores=_scores(classifier))
        gates.append(Gate("label", flips, 0, np.nextafter(confidence, 0)))
    return tuple(gates)


def open_classifier(workdir: str) -> Callable[[Sequence[Text]], list[str]]:
    """Opens a finished run as a function from texts to "harmful" or "safe" at its threshold."""
    run = scorer.load_run(workdir)
    kind = _kept_weights(run)
    threshold = run.report["dev"][kind]["threshold"]

    def classify(texts: Sequence[Text]) -> list[str]:
        harmful = run.score(_examples(texts))[kind] >= threshold
        return ["harmful" if yes else "safe" for yes in harmful]

    return classify


def confidence_of_flips(sources: Sequence[Text], views: Sequence[Text], *, scores) -> np.ndarray:
    """Computes the probability of the view's class where it differs from the source's class, else
    0: float64 [views]. The class is the more probable one; scores(texts) -> harmful probability."""
    before, after = scores(sources), scores(views)
    flipped = (before >= 0.5) != (after >= 0.5)
    return np.where(flipped, np.maximum(after, 1 - after), 0.0)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes the cosines of the rows of a and b, [rows, width]: float64 [rows]; 0 for zeros."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)


def _encoder_similarity():
    """Returns measure(sources, views) of a Gate, by the default encoder, mean-pooled."""
    config = config_module.default()
    folder = pretrained.resolve(config.model.name)
    tokenizer = Tokenizer(folder, config.data.max_length)
    model = scorer.build_model(config, folder)
    params = scorer.initial_params(config, model, folder)
    encode = scorer.features_fn(config, model, tokenizer, sharding.make_mesh())

    def embed(texts: Sequence[Text]) -> np.ndarray:
        rows = ((example, 0, *text) for example, text in zip(_examples(texts), texts, strict=True))
        return encode(params, Rows(scorer.encode(tokenizer, rows)))

    return lambda sources, views: cosines(embed(sources), embed(views))


def _scores(workdir: str):
    run = scorer.load_run(workdir)
    kind = _kept_weights(run)
    return lambda texts: run.score(_examples(texts))[kind]


def _kept_weights(run: scorer.Run) -> str:
    return "ema" if "ema" in run.weights else "raw"


def _examples(texts: Sequence[Text]) -> list[Example]:
    return [Example(str(i), *text, None, None, "", "") for i, text in enumerate(texts)]


def kinds(pool: Sequence[Example], classifier: str) -> Iterator[str]:
    """Yields the class of every row: its label where that is known, else the classifier's."""
    classify = open_classifier(classifier)
    examples = iter(pool)
    while chunk := list(itertools.islice(examples, 16 * make.CHUNK)):
        texts = [Text(e.prompt, e.response) for e in chunk if e.label is None]
        found = iter(classify(texts) if texts else ())
        yield from (next(found) if e.label is None else make.kind_of(e) for e in chunk)
