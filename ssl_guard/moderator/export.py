"""Exports a finished run as a moderator's folder (see folder.py).

The calibrator of RUN/policy.json, temperature or Platt scaling, is folded into the last layer, and
its thresholds are those of the calibrated probabilities. Without a policy.json there is one
threshold, the best on dev. The int8 model has thresholds of its own, fitted on its own scores; not
with config.eval.folds and no policy.json, since no row is left to fit it on.

The folder is written only if the models agree with the run, see parity.py.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy.special import expit, logit

from ssl_guard import algorithms, models
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import metrics, operating_point, records_io, scorer
from ssl_guard.evaluation import policy as policies
from ssl_guard.evaluation.prepare import read_split
from ssl_guard.models import convert, heads, pretrained
from ssl_guard.moderator import card, folder, parity
from ssl_guard.moderator.score import Moderator
from ssl_guard.runtime import compilation, sharding
from ssl_guard.runtime.files import (
    atomic_write,
    check_folder,
    read_json,
    whole_folder,
    write_json,
)

LABELS = ("safe", "harmful")  # names of the outputs, by number


class Source(NamedTuple):
    """A run, ready to export.

    classifier, params: in float32, as NumPy arrays, with the calibrator folded in and two classes.
    score, calibrated(records) -> float64 [rows]: scores of the run in float32, and of `params`.
    calibrate(score) -> probability.
    """

    run: scorer.Run
    classifier: models.Classifier
    params: Any
    score: Callable
    calibrated: Callable
    calibrate: Callable[[float], float]


def export(
    workdir: str | Path, to: str | Path, *, licence: str = "unknown", rows: str | None = None
) -> dict:
    """Writes the folder `to` and returns the facts of parity.measure.

    licence: of the exported model. rows: the file that RUN/policy.json was fitted on, if any.

    Raises BadInput for a run that cannot be exported, a folder that exists, and models that do not
    agree with the run.
    """
    workdir, to = Path(workdir), Path(to)
    if to.exists():
        raise BadInput(f"--to: {to} exists: delete it, or name another folder.")
    check_folder(to, "--to")
    config, report = scorer.read_config(workdir), records_io.read_report(workdir)
    _check_method(config)
    data = read_split(config)
    if data.hashes["split_sha256"] != report["provenance"]["split_sha256"]:
        raise BadInput(
            f"the corpus or the split in config.data.dir = {config.data.dir} is not the one of "
            f"{workdir}: call this in the folder that the run was trained in, with its data."
        )
    policy = _read_policy(workdir, config, report)
    compilation.configure(dtype=config.model.dtype, compilation_cache=config.compilation_cache)
    source = _load(workdir, policy["calibrator"])
    with whole_folder(to) as draft:
        _write_models(draft, source)
        write_json(draft / "policy.json", _calibrated(policy, source.calibrate))
        write_json(draft / "policy_int8.json", policy)  # until it has scores
        folder.write_manifest(draft)
        small = Moderator.load(draft, int8=True)
        # A run with folds reads no dev rows. These are then not new to it, and choose nothing.
        side = "labelled" if config.eval.folds else "dev"
        compared = data.rows[side]
        if policy["data"] == "dev":
            write_json(draft / "policy_int8.json", _dev_policy_of(small, policy, compared))
        elif policy["data"] != "folds":
            score = functools.partial(parity.scores, small)
            write_json(draft / "policy_int8.json", policies.refit(workdir, policy, score, rows))
        folder.write_manifest(draft)
        facts = parity.measure(source, draft, compared, policy) | {"side": side}
        parity.check(facts, workdir)
        atomic_write(draft / "README.md", card.text(workdir, config, report, draft, facts, licence))
        folder.write_manifest(draft)
    return facts


def _check_method(config: ConfigDict) -> None:
    """Raises BadInput for a run whose scores are not those of one network."""
    name = config.algorithm
    closed = name in algorithms.CLOSED_FORM
    if closed or algorithms.build(name, **config[name]).logistic_head:
        raise BadInput(
            f"{name} scores with a model of scikit-learn, which cannot be exported: export a run "
            "that trains a head, such as configs/supervised.py or configs/self_training.py."
        )
    if config.data.prompt_corpus:
        raise BadInput(
            "a run with config.data.prompt_corpus has a head for each of two tasks, which cannot "
            "be exported: train one run for each task."
        )


def _read_policy(workdir: Path, config: ConfigDict, report: dict) -> dict:
    """Reads RUN/policy.json, or makes a policy of the threshold that was best on dev."""
    path = workdir / "policy.json"
    if path.exists():
        operating_point.run_thresholds(report, path, operating_point.PROFILES, None)
        return read_json(path, "make it again with python -m ssl_guard calibrate")
    threshold = report["dev"][report["weights"]]["threshold"]
    data = "folds" if config.eval.folds else "dev"
    return {
        "data": data,
        "calibrator": {"kind": "none"},
        "thresholds": {
            "balanced": {
                "threshold": threshold,
                "probability": threshold,
                "promise": f"none: best F1 on {data}",
                "errors_allowed": None,
            }
        },
    }


def _dev_policy_of(small: Moderator, policy: dict, dev: Sequence[Example]) -> dict:
    """Returns the policy of a threshold that is best on dev, for the scores of the int8 model."""
    labels = np.array([example.label for example in dev])
    best = metrics.best_f1_threshold(labels, parity.scores(small, dev))
    point = policy["thresholds"]["balanced"] | {"threshold": best, "probability": best}
    return policy | {"thresholds": {"balanced": point}}


def _load(workdir: Path, calibrator: dict) -> Source:
    run = scorer.load_run(workdir)
    config, name = run.config, run.config.algorithm
    algorithm = algorithms.build(name, **config[name])
    model_folder = pretrained.resolve(config.model.name)
    slope, intercept = _line(calibrator)
    raw = jax.device_get(run.weights[run.report["weights"]])
    params = raw | {"head": heads.rescaled(raw["head"], 2, slope, intercept)}
    params = jax.tree.map(np.asarray, params)

    def classifier(extra_classes):
        return scorer.build_model(config, model_folder, extra_classes, dtype="float32")

    def predict(params, extra_classes):
        fn = scorer.predict_fn(
            config,
            algorithm._replace(extra_classes=extra_classes),
            classifier(extra_classes),
            run.tokenizer,
            sharding.make_mesh(),
            labelled=None,
        )
        return functools.partial(fn, params)

    def calibrate(score: float) -> float:
        return float(expit(slope * logit(score) + intercept)) if 0 < score < 1 else score

    return Source(
        run,
        classifier(0),
        params,
        score=predict(raw, algorithm.extra_classes),
        calibrated=predict(params, 0),
        calibrate=calibrate,
    )


def _line(calibrator: dict) -> tuple[float, float]:
    """Returns (slope, intercept) of a calibrator on the logit; (1, 0) for one that is no line."""
    if calibrator["kind"] == "temperature":
        return 1 / calibrator["temperature"], 0.0
    if calibrator["kind"] == "platt":
        return calibrator["slope"], calibrator["intercept"]
    return 1.0, 0.0


def _calibrated(policy: dict, calibrate: Callable[[float], float]) -> dict:
    """Returns a policy for the scores of the exported model."""
    found = dict(policy)
    found["thresholds"] = {
        name: point | {"threshold": calibrate(point["threshold"])}
        for name, point in policy["thresholds"].items()
    }
    if "abstain" in policy:
        ends = {end: calibrate(policy["abstain"][end]) for end in ("low", "high")}
        found["abstain"] = policy["abstain"] | ends
    if policy["calibrator"]["kind"] in ("temperature", "platt"):
        found["calibrator"] = {"kind": "none"}
        found["folded"] = policy["calibrator"]
    return found


def _write_models(draft: Path, source: Source) -> None:
    """Writes tokenizer, settings, both ONNX models and, for an "hf" head, the HF model."""
    try:
        import onnxruntime.quantization as quantization

        from ssl_guard.models.onnx.write import to_onnx
    except ImportError as error:
        raise BadInput(
            "export needs spox, onnx and onnxruntime: pip install 'ssl_guard[export]'."
        ) from error
    config, run = source.run.config, source.run
    run.tokenizer.save(draft)
    stride = config.eval.stride or max(1, config.data.max_length // 2)
    settings = folder.Settings(
        task=config.data.task,
        conversation=config.data.conversation,
        max_length=config.data.max_length,
        stride=stride,
        pad_id=run.tokenizer.pad_id,
        special=run.tokenizer.special._asdict(),
    )
    folder.write_settings(draft, settings)
    large, small = (draft / folder.MODELS[kind] for kind in ("float32", "int8"))
    atomic_write(large, to_onnx(source.classifier, source.params, longest=config.data.max_length))
    quantization.quantize_dynamic(
        large, small, op_types_to_quantize=["MatMul", "Gather"], per_channel=True
    )
    if source.classifier.hf_head and config.model.num_heads == 1:
        model_folder = pretrained.resolve(config.model.name)
        convert.save_classifier(
            draft, source.params, source.classifier, model_folder, labels=LABELS
        )
