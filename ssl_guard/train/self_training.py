"""Trains teachers and all rounds of self-training.

    WORKDIR/supervised/      a run on the labelled rows alone: a teacher, and the baseline
    WORKDIR/ensemble/        logistic regressions on TF-IDF, LSA and the frozen encoder: a teacher
    WORKDIR/soft_labels-1/   of both; see evaluation/teach.py
    WORKDIR/student-1/       a run that learns them; it and the ensemble teach the next one
    WORKDIR/soft_labels-2/   ...

Given teachers take the place of both in the first round, and of the ensemble in later ones; then
there is no ensemble, and the baseline is trained last, so that a teacher is refused early.

Each run has the student's config but for its method, so the baseline has as many steps. Each is a
run of its own, and the same call resumes after an interruption, or with more rounds.
"""

from collections.abc import Sequence
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


def self_train(config: ConfigDict, workdir: str | Path, teachers: Sequence[str] = ()) -> list[Path]:
    """Trains teachers and students, and returns the folders of all runs, the last student's last.

    config: of the student, with config.teach.rounds. teachers: names (evaluation/teachers.py) of
    the first round's teachers in place of the two runs, of which the ensemble is not trained then;
    a student joins them in the next round. Raises BadInput for the config of another method and
    for anything that a run refuses, Preempted when a signal stopped one.
    """
    if config.algorithm != "self_training" or config.data.soft_labels:
        raise BadInput(
            "self_train makes the soft labels itself: use configs/self_training.py without "
            "config.data.soft_labels."
        )
    workdir = Path(workdir)
    supervised, ensemble = workdir / "supervised", workdir / "ensemble"
    first = others = list(teachers)
    if not teachers:
        # The ensemble takes seconds and supports less, so it refuses a config before the long runs.
        train_and_evaluate(other_method(config, "graph", ENSEMBLE), ensemble)
        train_and_evaluate(other_method(config, "supervised", {}), supervised)
        first, others = [str(supervised), str(ensemble)], [str(ensemble)]
    students: list[Path] = []
    for number in range(1, config.teach.rounds + 1):
        labels = workdir / f"soft_labels-{number}"
        teach.teach(config, [str(students[-1]), *others] if students else first, labels)
        student = config.copy_and_resolve_references().unlock()
        student.data.soft_labels = str(labels)
        students.append(workdir / f"student-{number}")
        train_and_evaluate(student.lock(), students[-1])
    if teachers:
        train_and_evaluate(other_method(config, "supervised", {}), supervised)
        return [supervised, *students]
    return [supervised, ensemble, *students]


def other_method(config: ConfigDict, algorithm: str, hyper_parameters: dict) -> ConfigDict:
    """Returns the config of another method with the same data, model and steps."""
    other = config.copy_and_resolve_references().unlock()
    del other[other.algorithm]
    other.algorithm = algorithm
    other[algorithm] = ConfigDict(hyper_parameters)
    other.train.oracle = False
    return other.lock()
