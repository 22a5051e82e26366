"""Tests one process alone or in place of another; tests/scale starts several."""

import jax
import pytest

from ssl_guard.errors import BadInput
from ssl_guard.runtime import processes


@pytest.mark.parametrize("given", [("127.0.0.1:1", None, None), (None, 2, None), (None, 2, 0)])
def test_the_three_arguments_belong_together(given):
    with pytest.raises(BadInput, match="--coordinator_address, --num_processes and --process_id"):
        processes.start(*given)


def test_alone_and_not_joined(monkeypatch):
    """JAX raises the same for no cluster, where nothing is wrong, as for wrong numbers."""

    def initialize(*given):
        raise ValueError("process_id must be less than num_processes")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    processes.start()
    with pytest.raises(BadInput, match="cannot be joined: process_id must be less"):
        processes.start("127.0.0.1:1", 2, 2)


def test_one_process_writes_into_the_workdir(tmp_path):
    with processes.process_workdir(tmp_path) as files:
        assert files == tmp_path


def test_another_process_writes_elsewhere_and_knows_the_metrics(tmp_path, monkeypatch):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with processes.process_workdir(tmp_path) as files:
        assert (files / "metrics.jsonl").read_text() == '{"step": 1}\n'
        (files / "report.json").write_text("{}")
    assert not files.exists() and [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("index, order", [(0, ["made", "met"]), (1, ["met", "made"])])
def test_the_first_process_makes_what_the_others_find(index, order, monkeypatch):
    happened = []
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(
        processes.multihost_utils, "sync_global_devices", lambda name: happened.append("met")
    )
    assert processes.first_process_first(lambda: happened.append("made") or "found") == "found"
    assert happened == order
