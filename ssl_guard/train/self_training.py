"""Trains teachers and all rounds of self-training.

    WORKDIR/supervised/      a run on the labelled rows alone: a teacher, and the baseline
    WORKDIR/ensemble/        logistic regressions on TF-IDF, LSA and the frozen encoder: a teacher
    WORKDIR/soft_labels-1/   of both; see evaluation/teach.py
    WORKDIR/student-1/       a run that learns them; it and the ensemble teach the next one
    WORKDIR/soft_labels-2/   ...

Each run has the student's config but for its method, so the baseline has as many steps. Each is a
run of its own, and the same call resumes after an interruption, or with more rounds.
"""

from pathlib import Path

from ml_collections import ConfigDict

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import graph_model, teach
from ssl_guard.train.run import train_and_evaluate

ENSEMBLE = {
    "scores": graph_model.KINDS,
    "features": ("lsa",),
    "nodes": "pool",
    "neighbours": 1,
    "alpha": 0.0,  # the soft labels are smoothed, with the other teacher's scores
    "rounds": 0,
    "C": 10.0,
}


def self_train(config: ConfigDict, workdir: str | Path) -> list[Path]:
    """Trains teachers and students, and returns the folders of all runs, the last student's last.

    config: of the student, with config.teach.rounds. Raises BadInput for the config of another
    method and for anything that a run refuses, Preempted when a signal stopped one.
    """
    if config.algorithm != "self_training" or config.data.soft_labels:
        raise BadInput(
            "self_train makes the soft labels itself: use configs/self_training.py without "
            "config.data.soft_labels."
        )
    workdir = Path(workdir)
    learnt, ensemble = workdir / "supervised", workdir / "ensemble"
    # The ensemble takes seconds and supports less, so it refuses a config before the long runs.
    train_and_evaluate(other_method(config, "graph", ENSEMBLE), ensemble)
    train_and_evaluate(other_method(config, "supervised", {}), learnt)
    runs = [learnt, ensemble]
    for number in range(1, config.teach.rounds + 1):
        labels = workdir / f"soft_labels-{number}"
        teach.teach(config, [str(learnt), str(ensemble)], labels)
        student = config.copy_and_resolve_references().unlock()
        student.data.soft_labels = str(labels)
        learnt = workdir / f"student-{number}"
        train_and_evaluate(student.lock(), learnt)
        runs.append(learnt)
    return runs


def other_method(config: ConfigDict, algorithm: str, hyper_parameters: dict) -> ConfigDict:
    """Returns the config of another method with the same data, model and steps."""
    other = config.copy_and_resolve_references().unlock()
    del other[other.algorithm]
    other.algorithm = algorithm
    other[algorithm] = ConfigDict(hyper_parameters)
    other.train.oracle = False
    return other.lock()
