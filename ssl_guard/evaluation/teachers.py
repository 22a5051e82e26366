"""Opens the teachers whose scores become soft labels.

FOLDER       a finished run on the same split, of any method
hf:FOLDER    a text classifier of Hugging Face
scores:FILE  JSON lines {"id", "score"}, the scores in [0, 1]
states:FILE  a NumPy .npz file with ids, str [rows], and states, float [rows, width]: features of
             any model, such as the mean hidden state of a chat model. The labelled rows fit a
             logistic regression on them

With config.eval.folds, a run must have as many, and scores and states are read of the labelled rows
in place of dev.
"""

import json
import zipfile
from pathlib import Path

import numpy as np

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import baselines, external, inference, records_io, scorer
from ssl_guard.evaluation.prepare import Prepared
from ssl_guard.evaluation.scorer import Scorer
from ssl_guard.runtime.files import sha256_file


def open_teacher(name: str, prepared: Prepared, C: float, fold: int = -1) -> Scorer:
    """Opens a teacher of the prepared pool.

    C: inverse L2 penalty of a logistic regression on states, which are scaled to variance 1; fold:
    of the labelled rows that the teacher did not learn, -1 for none. The teacher of a fold is the
    run of this fold, see train/folds.py, at its own best step. Raises BadInput for a teacher that
    is missing, or was trained on another split, on other folds or on hidden labels.
    """
    if name.startswith("scores:"):
        return _from_scores(Path(name.removeprefix("scores:")))
    if name.startswith("states:"):
        return _from_states(Path(name.removeprefix("states:")), prepared, C)
    if name.startswith("hf:"):
        return external.checkpoint_scorer(name.removeprefix("hf:"))
    config = scorer.read_config(name)
    if fold >= 0:
        if config.eval.folds != prepared.summary["folds"]:
            raise BadInput(
                f"the teacher {name} has config.eval.folds = {config.eval.folds} and not "
                f"{prepared.summary['folds']}: train it with the folds of its student."
            )
        name = str(Path(name, "folds", str(fold)))
    report = records_io.read_report(name)
    if report["provenance"]["split_sha256"] != prepared.hashes["split_sha256"]:
        raise BadInput(
            f"the teacher {name} was trained on another corpus or split, so its labelled rows may "
            "be dev rows here: train it with the same config.data and config.seed."
        )
    if config.train.oracle or config.data.all_labels:
        raise BadInput(
            f"the teacher {name} was trained on hidden labels of the pool, which soft labels "
            "must not hold: leave it out."
        )

    def score(examples):
        run = scorer.load_run(name)
        return run.predict(run.weights[report["weights"]], run.records(examples)), None

    return Scorer(config.algorithm, report["checkpoint_sha256"], score)


def _from_scores(path: Path) -> Scorer:
    """Opens a file of scores as a teacher. Raises BadInput for one that is no such file."""
    try:
        sha256, scores = sha256_file(path), _read_scores(path)
    except OSError as error:
        raise BadInput(f"the teacher scores:{path} cannot be read: {error.strerror}.") from error

    def score(examples):
        missing = [e.id for e in examples if not 0 <= scores.get(e.id, np.nan) <= 1]
        if missing:
            raise BadInput(
                f"{path} has no score in [0, 1] for {len(missing)} of {len(examples)} rows of the "
                f"pool and dev, such as {missing[0]}: score them, or leave the teacher out."
            )
        return np.array([scores[e.id] for e in examples]), None

    return Scorer(path.stem, sha256, score)


def _read_scores(path: Path) -> dict[str, float]:
    """Reads the lines of a file of scores. Raises BadInput for a broken line or a second score."""
    scores: dict[str, float] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            key, value = str(row["id"]), float(row["score"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f'line {number} of {path} must be {{"id": ..., "score": a number}}.'
            ) from error
        if key in scores:
            raise BadInput(f"line {number} of {path} is a second score of {key}: keep one.")
        scores[key] = value
    return scores


def _from_states(path: Path, prepared: Prepared, C: float) -> Scorer:
    """Fits a teacher on states of the labelled rows. Raises BadInput for missing states."""
    place, states = _read_states(path)

    def of(examples) -> np.ndarray:
        missing = [e.id for e in examples if e.id not in place]
        if missing:
            raise BadInput(
                f"{path} has no states of {len(missing)} of {len(examples)} rows of the labelled "
                f"rows, pool and dev, such as {missing[0]}: encode them, or leave the teacher out."
            )
        return states[[place[e.id] for e in examples]].astype(np.float32)

    labelled = of(prepared.texts["labelled"])
    known = np.vstack([labelled, of(prepared.texts["unlabelled"])])
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    deviation[deviation == 0] = 1
    labels = inference.labels_of(prepared.labelled)
    head = baselines.logistic((labelled - mean) / deviation, labels, C)

    def score(examples):
        return baselines.harmful(head, (of(examples) - mean) / deviation), None

    return Scorer(path.stem, sha256_file(path), score)


def _read_states(path: Path) -> tuple[dict[str, int], np.ndarray]:
    """Reads {id: row} and states [rows, width]. Raises BadInput for another file."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            ids, states = file["ids"], file["states"]
    except OSError as error:
        reason = error.strerror or "not a file of NumPy"
        raise BadInput(f"the teacher states:{path} cannot be read: {reason}.") from error
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} must be an .npz file with the arrays ids and states.") from error
    if ids.ndim != 1 or states.ndim != 2 or len(ids) != len(states):
        raise BadInput(
            f"{path} must have ids [rows] and states [rows, width], not {ids.shape} and "
            f"{states.shape}."
        )
    place = {str(key): row for row, key in enumerate(ids)}
    if len(place) < len(ids):
        raise BadInput(f"{path} has several states of one id: keep one.")
    if states.dtype.kind != "f" or not np.isfinite(states).all():
        raise BadInput(f"the states of {path} must be finite floats: encode the rows again.")
    return place, states
