"""Builds the functions that score texts: for the training loop, and from a finished run.

run = load_run("runs/uda")
scores = run.score(examples)  # {"raw": float64 [rows], "ema": ...}
"""

import functools
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ssl_guard import algorithms, models
from ssl_guard import config as config_module
from ssl_guard import steps as steps_module
from ssl_guard.data.encode import encode, encode_windows
from ssl_guard.data.records import Records, Rows
from ssl_guard.data.schema import Example
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.data.windows import Windowed
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import baselines, graph_model, inference, records_io
from ssl_guard.evaluation.prepare import Prepared, prepare, views_of
from ssl_guard.models import pretrained
from ssl_guard.runtime import sharding
from ssl_guard.runtime.checkpoint import Checkpoints
from ssl_guard.runtime.files import atomic_write, read_json


class Scorer(NamedTuple):
    """A classifier that an evaluation scores texts with.

    name: of the method or the model; sha256: of its weights, None if they cannot be seen.
    score(examples) -> (scores, verdicts): harmful scores, float64 [rows], in [0, 1], NaN for a row
    that failed; the scorer's own verdicts, bool [rows], where they are not `score >= 0.5`, else
    None. weights: kind of the weights that score, "raw" or "ema".
    """

    name: str
    sha256: str | None
    score: Callable[[Sequence[Example]], tuple[np.ndarray, np.ndarray | None]]
    weights: str = "raw"


class Run(NamedTuple):
    """A finished run, ready to score texts.

    weights: the selected step's parameters as "raw" and, if the run keeps an average, "ema"; the
    fitted head as "raw" for a run without steps. predict(weights, records) -> float64 [rows].
    report: the run's. checkpoint_sha256: of the names, shapes and values of all weights.
    """

    workdir: Path
    config: ConfigDict
    report: dict
    tokenizer: Tokenizer
    weights: dict[str, Any]
    predict: Callable
    checkpoint_sha256: str

    def records(self, examples: Sequence[Example]) -> Rows | Windowed:
        """Tokenises examples as the run tokenises dev and test, in memory."""
        texts = ((example, 0, example.prompt, example.response) for example in examples)
        rows, stride = Rows(encode(self.tokenizer, texts), examples), self.config.eval.stride
        if not stride:
            return rows
        return Windowed(rows, Rows(encode_windows(self.tokenizer, list(examples), stride)))

    def score(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
        """Predicts harmful probabilities, float64 [rows], by kind of weights."""
        records = self.records(examples)
        return {kind: self.predict(weights, records) for kind, weights in self.weights.items()}


def read_config(workdir: str | Path) -> ConfigDict:
    """Reads the config of a finished run. Raises BadInput for a folder without one."""
    workdir = Path(workdir)
    if not (workdir / "report.json").exists() or not (workdir / "config.json").exists():
        raise records_io.no_run(workdir)
    flat = read_json(workdir / "config.json", "copy the run again, or train it again")
    config = config_module.from_json(flat)
    if config.algorithm == "mlm":
        raise BadInput(
            f"{workdir} pre-trained an encoder and has no classifier: train one with "
            f"--config.model.name={workdir}/encoder."
        )
    return config


def load_run(workdir: str | Path) -> Run:
    """Loads a finished run from its config, its model folder and its selected checkpoint.

    Call `compilation.configure` with the run's config before, so that functions are compiled as in
    training. SetFit and the methods with a closed form read the corpus again, to fit their head or
    their vocabulary. Raises BadInput if a part of the run is missing.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    report = records_io.read_report(workdir)
    folder = pretrained.resolve(config.model.name)
    tokenizer = Tokenizer(folder, config.data.max_length)
    if config.algorithm in algorithms.CLOSED_FORM:
        fitted, predict = _fitted(workdir, config, report)
        weights, content = {"raw": fitted}, content_of(fitted)
    else:
        mesh = sharding.make_mesh()
        algorithm = algorithms.build(config.algorithm, **config[config.algorithm])
        model = build_model(config, folder, algorithm.extra_classes)
        labelled = prepare(config, views=()).labelled if algorithm.logistic_head else None
        predict = predict_fn(config, algorithm, model, tokenizer, mesh, labelled=labelled)
        weights = content = _selected_weights(workdir, config, report, model, mesh)
    return Run(workdir, config, report, tokenizer, weights, predict, tree_sha256(content))


def _selected_weights(workdir: Path, config, report: dict, model, mesh) -> dict[str, Any]:
    if not (workdir / "checkpoints").is_dir():
        raise BadInput(f"{workdir} has no checkpoints, so nothing can be scored: train it again.")
    shapes = jax.eval_shape(model.init, jax.random.key(0), _one_token())
    names = {"raw": "params"} | ({"ema": "ema_params"} if config.optim.ema_decay else {})
    template = sharding.shard_template({name: shapes for name in names.values()}, mesh)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        state = checkpoints.restore_part(report["selected_step"], template)
    return {kind: state[name] for kind, name in names.items()}


def _fitted(workdir: Path, config, report: dict):
    """Returns the weights of a method with a closed form, and predict(weights, records).

    A logistic regression is fitted again as it was. A graph is read from its file, and only its
    vocabularies are fitted again.
    """
    prepared = prepare(config, views=views_of(config))
    features_of = fixed_features(config, prepared, kinds_of(config))

    def features(records):
        return features_of(records.examples, records)

    if config.algorithm == "graph":
        settings = graph_model.Settings.of(config)
        return graph_model.load(workdir), lambda weights, records: graph_model.predict(
            weights, features(records), settings
        )
    (kind,) = kinds_of(config)
    taught = features_of(prepared.texts["labelled"], prepared.labelled)[kind]
    labels = inference.labels_of(prepared.labelled)
    head = baselines.logistic(taught, labels, report["dev"]["raw"]["C"])
    return head, lambda head, records: baselines.harmful(head, features(records)[kind])


def kinds_of(config) -> tuple[str, ...]:
    """Returns the kinds of features that a method with a closed form reads."""
    if config.algorithm == "graph":
        return graph_model.Settings.of(config).kinds
    return {"tfidf_logistic": ("tfidf",), "logistic_regression": ("encoder",)}[config.algorithm]


def fixed_features(config, prepared: Prepared, kinds: Sequence[str]) -> Callable:
    """Returns features(examples, records) -> {kind: [rows, n]} that no training changes.

    kinds: of graph_model.KINDS. Vocabularies are fitted on the labelled and the unlabelled rows of
    `prepared`.
    """
    encode = None
    texts = prepared.texts["labelled"] + prepared.texts.get("unlabelled", [])
    text_features = {
        kind: fit(texts) for kind, fit in baselines.TEXT_FEATURES.items() if kind in kinds
    }
    if "encoder" in kinds:
        model = build_model(config, prepared.model_folder)
        params = initial_params(config, model, prepared.model_folder)
        mesh = sharding.make_mesh()
        sharding.check_batch_sizes(mesh, **{"eval.batch": config.eval.batch})
        encode = functools.partial(
            stored_once,
            functools.partial(features_fn(config, model, prepared.tokenizer, mesh), params),
            Path(config.data.dir, "features"),
            [config.model.to_dict(), config.data.packing, prepared.hashes["weights_sha256"]],
        )

    def features(examples, records):
        found = {kind: of(examples) for kind, of in text_features.items()}
        return found | ({"encoder": encode(records)} if encode else {})

    return features


def stored_once(compute: Callable, folder: Path, made_from: list, records: Records) -> np.ndarray:
    """Returns compute(records), stored as a .npy file in the folder for a whole view of shards.

    made_from: the settings besides the view that determine the array, as JSON values.
    """
    if len(records) != records.manifest.get("count"):  # rows in memory, or some of a view
        return compute(records)
    key = json.dumps([made_from, records.manifest["shards"]])
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
    if not path.exists():
        file = io.BytesIO()
        np.save(file, compute(records))
        atomic_write(path, file.getvalue())
    return np.load(path, allow_pickle=False)


def content_of(fitted) -> dict[str, np.ndarray]:
    """Returns the arrays of a logistic regression or of a graph's model, for their sha256."""
    if isinstance(fitted, dict):
        return fitted
    return {"coef": fitted.coef_, "intercept": fitted.intercept_}


def build_model(
    config,
    model_folder: Path,
    extra_classes: int = 0,
    *,
    dtype: str | None = None,
    cached_layers: int = 0,
) -> models.Classifier:
    """Builds the classifier of a run; dtype: of the arithmetic, by default the config's.

    cached_layers: see `models.build`.

    Raises BadInput for a max_length that its encoder cannot read.
    """
    model = models.build(
        model_folder,
        num_classes=2 + extra_classes,
        num_heads=config.model.num_heads,
        num_tasks=2 if config.data.prompt_corpus else 1,
        num_layers=config.model.num_layers,
        pooling=config.model.pooling,
        head=config.model.head,
        dropout=config.model.dropout,
        dtype=dtype or config.model.dtype,
        remat=config.model.remat,
        cached_layers=cached_layers,
    )
    longest = model.config.max_tokens
    if longest is not None and config.data.max_length > longest:
        raise BadInput(
            f"config.data.max_length = {config.data.max_length} is more than the "
            f"{longest} positions of {config.model.name}: lower it "
            "and config.data.buckets."
        )
    return model


def initial_params(config, model: models.Classifier, model_folder: Path):
    """Initialises a pretrained encoder with random heads."""
    rng = jax.random.fold_in(jax.random.key(config.seed), 1)
    return models.init_from_pretrained(model, model_folder, rng, _one_token())


def _one_token() -> dict:
    token = jnp.zeros((1, 1), jnp.int32)
    return {
        "input_ids": token,
        "attention_mask": token,
        "token_type_ids": token,
        "row": token[0],
    }


def predict_fn(
    config,
    algorithm: algorithms.Algorithm,
    model: models.Classifier,
    tokenizer: Tokenizer,
    mesh,
    *,
    labelled: Records | None,
) -> Callable:
    """Returns predict(params, records) -> harmful probability, float64 [rows], compiled per shape.

    labelled: the labelled rows, for a method whose head is fitted on them.
    """
    if algorithm.logistic_head:
        assert labelled is not None
        return functools.partial(
            baselines.predict,
            features_fn(config, model, tokenizer, mesh),
            labelled=labelled,
            C=algorithm.logistic_head,
        )
    predict_step = functools.partial(
        steps_module.predict_step,
        apply=sharding.gather_fsdp_params(model.apply, mesh),
        extra_classes=algorithm.extra_classes,
    )
    step = jax.jit(predict_step, out_shardings=sharding.replicated(mesh))
    how = how_to_evaluate(config, tokenizer, mesh)
    return lambda params, records: inference.predict(
        step, model.for_scoring(params), records, **how
    )


def features_fn(
    config, model: models.Classifier, tokenizer: Tokenizer, mesh, *, unit_length: bool = True
) -> Callable:
    """Returns features(params, records): pooled states, float64 [rows, width].

    unit_length: scales each row, see `baselines.encoder_features`.
    """
    features = sharding.gather_fsdp_params(model.stages.features, mesh)
    step = functools.partial(steps_module.feature_step, features=features)
    return functools.partial(
        baselines.encoder_features if unit_length else inference.outputs,
        jax.jit(step, out_shardings=sharding.replicated(mesh)),
        **how_to_evaluate(config, tokenizer, mesh),
    )


def how_to_evaluate(config, tokenizer: Tokenizer, mesh) -> dict:
    """Returns the arguments of `inference.outputs` that all calls of a run share."""
    return {
        "batch_size": config.eval.batch,
        "buckets": tuple(config.data.buckets),
        "pad_id": tokenizer.pad_id,
        "pack_groups": pack_groups(config, mesh),
        "mesh": mesh,
    }


def pack_groups(config, mesh) -> int:
    """Returns how many row shards are packed separately (data/packing.py); 0 for no packing."""
    return sharding.row_shards(mesh) if config.data.packing else 0


def tree_sha256(tree) -> str:
    """Computes the hexadecimal sha256 of names, dtypes, shapes and values of a pytree of arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = np.ascontiguousarray(jax.device_get(leaf))
        digest.update(f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}\n".encode())
        digest.update(values)
    return digest.hexdigest()
