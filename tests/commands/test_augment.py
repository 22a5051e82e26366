"""Tests sets of a config: made by training or by the command, mixed, refused."""

import sys
import types
from typing import NamedTuple

import numpy as np
import pytest

from configs import uda
from configs.augment import rules
from ssl_guard.augment import estimate, make, ops, select, text_set
from ssl_guard.augment.ops import each
from ssl_guard.commands import augment as command
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import model_gates, prepare
from ssl_guard.runtime import compilation
from tests.train.test_own_data import write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("augment")
    write_rows(folder / "mine.jsonl")
    return folder


def of_my_rows(config, folder, **changes):
    config.data.dir = str(folder / "data")
    config.data.corpus = str(folder / "mine.jsonl")
    config.data.columns.prompt, config.data.columns.response = "text", "answer"
    config.data.columns.label = "verdict"
    config.data.harmful_values, config.data.safe_values = ("bad",), ("ok",)
    config.data.labelled, config.data.dev, config.data.test = 16, 20, 24
    config.update_from_flattened_dict(changes)
    return config


def training(folder, **changes):
    return of_my_rows(uda.get_config("smoke"), folder, **{"augment.copies": 2} | changes)


class Cost(NamedTuple):
    rows: int
    tokens: float


def run_command(monkeypatch, capsys, config, **flags):
    values = {"DRY_RUN": False, "OVERWRITE": False, "WORKERS": 1, "RUNNER": "local"}
    for name, value in (values | {"BEAM_OPTIONS": [], "CONFIG": config} | flags).items():
        flag = types.SimpleNamespace(value=value)
        monkeypatch.setattr(command, name, flag, raising=False)
    monkeypatch.setattr(compilation, "configure", lambda **settings: None)
    command.main([])
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def prepared(folder):
    """The data that training makes."""
    return prepare.prepare(training(folder), views=("weak", "strong"))


def test_the_views_of_a_set_are_what_training_reads(prepared, folder):
    config = training(folder)
    source = prepare.read_split(config)
    job = select.own_job(prepare.DataSpec(config).sets, source)
    there = text_set.open_set(job.folder, pool=source.hashes, made_from=job.made_from, again="")
    views = list(there.views(source.rows["unlabelled"]))
    encoded = prepared.tokenizer.encode([v[2] for v in views], [v[3] for v in views])
    assert prepared.strong.copies == (2,) and len(prepared.strong) == len(views) == 200
    for record, view, tokens in zip(prepared.strong, views, encoded, strict=True):
        assert (record["id"], record["copy"]) == (view[0].id, view[1])
        np.testing.assert_array_equal(record["input_ids"], tokens.input_ids)


def test_sets_of_other_recipes_and_copies_are_mixed(prepared, folder, monkeypatch, capsys):
    changes = {"augment.sets": ("tfidf", "rules"), "augment.weights": (1.0, 3.0)}
    with pytest.raises(BadInput, match="no augmentation set 'rules'.*ssl_guard.augment --config"):
        prepare.prepare(training(folder, **changes), views=("weak", "strong"))
    config = of_my_rows(rules.get_config(), folder, **{"augment.copies": 3})
    shown = run_command(monkeypatch, capsys, config)
    assert "300 views of 100 rows" in shown and "| harmful |" in shown
    mixed = prepare.prepare(training(folder, **changes), views=("weak", "strong"))
    assert mixed.strong.copies == (2, 3) and mixed.strong.weights.tolist() == [0.25, 0.75]
    for i in (0, 7, 199):
        np.testing.assert_array_equal(mixed.strong[i]["input_ids"], prepared.strong[i]["input_ids"])
    # The same command again makes nothing.
    monkeypatch.setattr(make, "make_set", None)
    assert run_command(monkeypatch, capsys, config) == shown


def test_the_tokens_follow_the_set(folder, prepared, monkeypatch, capsys):
    """Shards of an old set are refused after the set is made with another recipe."""
    monkeypatch.setitem(ops.OPS, "x", lambda texts: each(lambda text, rng: f"x {text}"))
    made = {"augment.name": "again", "augment.copies": 2}
    run_command(monkeypatch, capsys, training(folder, **made, **{"augment.ops": ("identity",)}))
    named = training(folder, **{"augment.sets": ("again",)})
    prepare.prepare(named, views=("weak", "strong"))
    config = training(folder, **made, **{"augment.ops": ("x",)})
    with pytest.raises(BadInput, match="ops: .*identity.* there, .*x.* now"):
        run_command(monkeypatch, capsys, config)
    run_command(monkeypatch, capsys, config, OVERWRITE=True)
    with pytest.raises(BadInput, match="set_sha256"):
        prepare.prepare(named, views=("weak", "strong"))
    prepare.prepare(named, views=("weak", "strong"), overwrite=True)


def test_training_does_not_judge(folder, prepared):
    config = training(folder, **{"augment.name": "judged", "augment.gates.similarity": 0.5})
    with pytest.raises(BadInput, match="judged by a model.*python -m ssl_guard augment --config"):
        prepare.prepare(config, views=("weak", "strong"))


def test_a_dry_run_counts_and_makes_nothing(folder, prepared, monkeypatch, capsys):
    class Priced:
        def __call__(self, texts, rngs):
            raise AssertionError("a dry run asks nothing")

        def estimate(self, texts, rngs):
            return Cost(len(texts), sum(map(len, texts)) / 4)

    monkeypatch.setitem(ops.OPS, "priced", lambda texts: Priced())
    monkeypatch.setitem(ops.OPS, "double", lambda texts: each(lambda text, rng: text * 2))
    changes = {"augment.name": "dry", "augment.ops": ("double+priced", "identity")}
    config = training(folder, **changes)
    source = prepare.read_split(config)
    pool = source.rows["unlabelled"]
    found = estimate.estimate(select.own_job(prepare.DataSpec(config).sets, source), pool, pool)
    characters = 2 * sum(len(e.prompt) + len(e.response) for e in pool)
    assert found == {
        "set": "dry", "rows": 100, "views": 200, "texts": 400, "characters": characters,
        "estimates": {"priced": {"rows": 400, "tokens": characters / 2}},
    }  # fmt: skip
    assert '"rows": 100' in run_command(monkeypatch, capsys, config, DRY_RUN=True)
    assert not select.own_job(prepare.DataSpec(config).sets, source).folder.exists()


def test_classes_of_rows_without_a_label_are_the_classifiers(folder, prepared, monkeypatch):
    pool = prepare.read_split(training(folder)).rows["unlabelled"]
    monkeypatch.setattr(
        model_gates, "open_classifier", lambda run: lambda texts: ["harmful"] * len(texts)
    )
    found = list(model_gates.kinds(pool, "runs/some"))
    assert len({*found}) == 2 and any(e.label is None for e in pool)
    for example, kind in zip(pool, found, strict=True):
        assert kind == ("safe" if example.label == 0 else "harmful")


def test_beam_without_beam(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    config = training(folder, **{"augment.name": "beam"})
    with pytest.raises(BadInput, match=r"pip install 'ssl_guard\[beam\]'"):
        run_command(monkeypatch, capsys, config, RUNNER="direct")
    with pytest.raises(BadInput, match="--workers=0"):
        run_command(monkeypatch, capsys, config, WORKERS=0)
