"""A packed run: the same method on the same texts, with less padding."""

import importlib

import pytest

from ssl_guard import steps
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.train import run as train_run


def smoke(folder, name):
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    config.data.dir, config.data.packing = str(folder / "data"), True
    config.train.steps = config.train.eval_every_steps = 6
    return config


def test_a_packed_run_trains_in_few_shapes_and_pads_little(tmp_path, monkeypatch):
    traced, original = [], steps.train_step

    def counting(state, batch, **static):
        traced.append(batch["labelled"]["text"].shape)
        return original(state, batch, **static)

    monkeypatch.setattr(steps, "train_step", counting)
    config = smoke(tmp_path, "supervised")
    result = train_run.train_and_evaluate(config, tmp_path / "run")
    assert len(traced) == len(set(traced)) <= len(config.data.buckets) + 1
    assert 0 <= result["test"]["raw"]["f1"]["value"] <= 1
    assert all("loss/supervised" in row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl"))


def test_a_method_inside_the_model_is_refused_before_it_claims_the_workdir(tmp_path):
    with pytest.raises(BadInput, match="vat: .* set config.data.packing = False"):
        train_run.train_and_evaluate(smoke(tmp_path, "vat"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
