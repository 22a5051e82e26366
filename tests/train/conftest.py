import pytest

from ssl_guard.train.run import train_and_evaluate
from tests.tiny import smoke


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def runs(folder):
    """Workdir and report of two smoke runs that a file's tests look at closely."""
    return {
        name: (folder / name, train_and_evaluate(smoke(folder, name), folder / name))
        for name in ("supervised", "uda")
    }
