import pytest

from ssl_guard.evaluation.policy import make_policy
from ssl_guard.moderator.export import export
from ssl_guard.train.run import train_and_evaluate
from tests.tiny import smoke

HF = {"model.head": "hf", "model.pooling": "cls"}
SETTINGS = {"target_fpr": 0.3, "target_recall": 0.5, "confidence": 0.8}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("moderators")


@pytest.fixture(scope="session")
def run(folder):
    """A calibrated run with the head of transformers."""
    config = smoke(folder, "supervised", **HF, **{"data.calibration": 40})
    train_and_evaluate(config, folder / "run")
    make_policy(folder / "run", **SETTINGS)
    return folder / "run"


@pytest.fixture(scope="session")
def exported(run, folder):
    """The folder of its moderator, and the facts of its export."""
    return folder / "moderator", export(run, folder / "moderator", licence="apache-2.0")
