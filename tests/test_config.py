"""Configs: defaults, checks, and overrides that do not exist."""

import importlib
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

from experiments.ladder import cells as ladder
from experiments.methods import cells as methods
from experiments.tables import runs_of, scores_of
from ssl_guard import algorithms
from ssl_guard import config as base
from ssl_guard.augment import gates, ops, recipe
from ssl_guard.config import ranges
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import model_gates
from ssl_guard.runtime import cli

CONFIGS = sorted(path.stem for path in Path("configs").glob("*.py"))
SETS = sorted(f"augment.{path.stem}" for path in Path("configs/augment").glob("*.py"))


def load(name, arg=None):
    return importlib.import_module(f"configs.{name}").get_config(arg)


@pytest.mark.parametrize("arg", [None, "smoke"])
@pytest.mark.parametrize("name", CONFIGS + SETS)
def test_every_config_loads_and_passes_the_checks(name, arg):
    config = load(name, arg)
    base.check(config)
    assert config.is_locked
    assert all(
        isinstance(value, (str, int, float, bool, tuple)) for value in base.leaves(config).values()
    )


@pytest.mark.parametrize("name", CONFIGS + SETS)
def test_every_config_shows_its_command(name):
    path = f"configs/{name.replace('.', '/')}.py"
    command = " augment" if name in SETS else ".main"
    assert f"python -m ssl_guard{command} --config={path}" in Path(path).read_text()


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_config_states_scores_and_time_of_its_records(name):
    runs = runs_of("methods", [f"short/{name}-{seed}" for seed in methods.SEEDS])
    scores = {
        metric: [100 * scores_of(run)[metric]["value"] for run in runs]
        for metric in ("f1", "auprc")
    }
    f1, auprc = (f"{np.mean(x):.1f} ± {np.std(x, ddof=1):.1f}" for x in scores.values())
    seconds = np.mean([run["report"]["training"]["seconds"] for run in runs])
    (cores,) = {run["report"]["provenance"]["machine"]["cores"] for run in runs}
    docstring = " ".join(importlib.import_module(f"configs.{name}").__doc__.split())
    setting = f"({methods.SETTINGS['data.labelled']} labelled prompts, {len(runs)} seeds)"
    assert f"{setting}: F1 {f1}, AUPRC {auprc};" in docstring
    assert f"{seconds:.0f} s on {cores} core" in docstring


@pytest.mark.parametrize("arm", ["student", "llm_student", "llm_1.5b_student", "supervised"])
def test_self_training_states_the_scores_of_the_ladder(arm):
    means, _ = ladder.rows("confirming")
    (row,) = [row for row in means if row[0] == arm]
    docstring = " ".join(importlib.import_module("configs.self_training").__doc__.split())
    assert f"F1 {row[3]}, AUPRC {row[2]}" in docstring
    assert f"(200 labelled prompts, {row[1]} seeds)" in docstring


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_a_recipe_gates_and_arguments_that_fit(name):
    augment = load(name).augment
    assert augment.name == name.removeprefix("augment.")
    for op in recipe.names(recipe.parse(augment.ops)):
        inspect.signature(ops.OPS[op]).bind((), **augment.get(op, {}))
    for build in (gates.build, model_gates.build):
        asked = inspect.signature(build).parameters
        inspect.signature(build).bind(**{key: augment.gates[key] for key in asked})
    keys = [set(inspect.signature(build).parameters) for build in (gates.build, model_gates.build)]
    assert keys[0] | keys[1] == set(augment.gates)


def test_the_twin_differs_in_the_algorithm_alone():
    uda, twin = base.leaves(load("uda")), base.leaves(load("supervised"))
    different = {key for key in uda.keys() | twin.keys() if uda.get(key) != twin.get(key)}
    assert {key.split(".")[0] for key in different} == {"algorithm", "uda"}


def test_every_key_is_read_somewhere():
    """A key that nothing reads would be a promise that nothing keeps."""
    sources = [p for p in Path("ssl_guard").rglob("*.py") if p.parent.name != "config"]
    text = "\n".join(path.read_text() for path in sources)
    for key in base.leaves(base.default()):
        group, _, name = key.rpartition(".")
        if group in ("data.columns", "augment.tfidf"):  # passed on whole
            continue
        assert re.search(rf"\b{name}\b", text), f"config.{key} is read nowhere"


@pytest.mark.parametrize(
    "argument, meant",
    [
        ("--config.uda.temprature=1", "config.uda.temperature"),
        ("--config.lr=1", "config.optim.lr"),
        ("--config.train.step=1", "config.train.steps"),
        ("--config.optim.lr.x=1", "config.optim.lr"),
        ("--config.trian.steps", "config.train.steps"),
        ("--config.optm.lr=1", "config.optim.lr"),
    ],
)
def test_an_unknown_override_names_the_key_that_was_meant(argument, meant):
    with pytest.raises(BadInput, match=re.escape(f"did you mean {meant}?")):
        cli.check_overrides(load("uda"), ["main", argument])


def test_a_key_unlike_any_lists_those_of_its_group():
    with pytest.raises(BadInput, match="its keys are clip_norm, .*, lr, "):
        cli.check_overrides(load("uda"), ["main", "--config.optim.learning_rate=1"])


def test_known_overrides_pass():
    cli.check_overrides(load("uda"), ["--config.optim.lr=1", "--workdir=x", "--config=a.py"])


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("data.buckets", (64, 32), "config.data.buckets"),
        ("data.buckets", (64, 128), "max_length"),
        ("data.buckets", (), "config.data.buckets"),
        ("data.num_shapes", -1, "config.data.num_shapes"),
        ("train.steps", 0, "config.train.steps"),
        ("train.supervised_steps", -1, "config.train.supervised_steps"),
        ("train.rank_share", 0.0, "in (0, 1]"),
        ("optim.lr", -1.0, "config.optim.lr = -1.0 must be in [0, 1]"),
        ("optim.freeze", ("layer_[",), "no regular expression"),
        ("seed", 2**32, "config.seed = 4294967296 must be in [0, 4294967295]"),
        ("train.selection", "confidence", "threshold, rank"),
        ("model.dtype", "float16", "float32, bfloat16"),
        ("train.select_by", "accuracy", "f1, auprc"),
        ("train.float32_check", True, "config.model.dtype = 'bfloat16'"),
        ("algorithm", "fixmatch", "config.fixmatch"),
        ("data.soft_labels", "runs/soft", "uda reads no soft labels"),
        ("teach.combine", "mean", "rank, probability"),
        ("teach.features", ("lsa", "tfidf"), "config.teach.features"),
        ("teach.alpha", 1.0, "in [0, 1)"),
        ("teach.share", 0.0, "in (0, 1]"),
        ("teach.rounds", 0, "config.teach.rounds"),
        ("augment.name", "../tfidf", "no folder name"),
        ("augment.sets", ("a", ".b"), "no folder name"),
        ("augment.sets", ("a", "a"), "names a set twice"),
        ("augment.weights", (1.0, 2.0), "for each of config.augment.sets = ()"),
        ("augment.weights", (0.0,), "in (0, 1e6]"),
        ("data.unlabelled_weights", (1.0, 0.0), "config.data.unlabelled_weights = 0.0 must be in"),
    ],
)
def test_values_no_run_can_use(key, value, words):
    config = load("uda")
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(BadInput, match=re.escape(words)):
        base.check(config)


def numeric_keys():
    """Every key that holds numbers: of all configs, methods and augmentations."""
    for name in CONFIGS + SETS:
        yield from (key for key, _ in ranges.numbers(base.leaves(load(name))))
    groups = {"": algorithms.ALGORITHMS, "augment.": ops.OPS}
    for prefix, functions in groups.items():
        for name, function in functions.items():
            for argument in inspect.signature(function).parameters.values():
                if argument.annotation in (int, float, tuple[float, ...]):
                    yield f"{prefix}{name}.{argument.name}"
    yield from ("augment.gates.length", "augment.weights", "remixmatch.prior")  # () by default
    yield "data.unlabelled_weights"


@pytest.mark.parametrize("key", sorted(set(numeric_keys())))
def test_every_number_has_a_range(key):
    """Both ends are accepted or refused as the notation says, and what is beyond is refused."""
    low, high, *closed = ranges.interval(text := ranges.range_of(key))
    assert text != ranges.FINITE, f"config.{key} has no range in config/ranges.py"
    assert low > -np.inf and (closed == [text[0] == "[", text[-1] == "]"])
    refused = [np.nan, np.inf, -np.inf, 10**400, low - 1, np.nextafter(low, -np.inf)]
    refused += [high + 1, np.nextafter(high, np.inf)]
    accepted = []
    for end, included in zip((low, high), closed, strict=True):
        (accepted if included else refused).append(end)
    for value in refused:
        for given in (value, (value,), [value]):
            with pytest.raises(BadInput, match=re.escape(f"must be in {text}")):
                ranges.check({key: given})
    ranges.check({key: tuple(accepted)})


def test_ranges_are_of_keys_that_exist():
    assert set(ranges.RANGES) <= set(numeric_keys())


def test_a_key_of_ones_own_is_finite():
    ranges.check({"mine.weight": -1e30, "mine.flag": True, "mine.word": "x"})
    with pytest.raises(BadInput, match="config.mine.weight = nan"):
        ranges.check({"mine.weight": np.nan})


def test_an_unknown_argument_of_a_config():
    with pytest.raises(BadInput, match="smoke"):
        load("uda", "smok")


def test_keys_of_older_runs_have_their_new_names():
    flat = base.as_json(base.default())
    old = {new: old for old, new in base.RENAMED.items()}
    assert set(old) <= set(flat)
    values = {"data.num_shapes": 4, "monitor.baseline_run": "runs/x", "optim.layer_lr_decay": 0.5}
    stored = {old.get(key, key): values.get(key, value) for key, value in flat.items()}
    stored["data.balance"] = "natural"
    stored |= dict.fromkeys(base.REMOVED, 20)
    found = base.as_json(base.from_json(stored))
    assert found == flat | values | {"data.label_sampling": "random"}


def stored(tmp_path, **changes):
    """The config of configs/self_training.py, stored as that of a run, with some keys changed."""
    flat = base.as_json(load("self_training")) | changes
    (tmp_path / "config.json").write_text(
        json.dumps({key: value for key, value in flat.items() if value != "missing"})
    )
    return load("self_training")


def test_a_run_may_move_with_its_soft_labels(tmp_path):
    config = stored(tmp_path, **{"data.soft_labels": "there/soft_labels-1"})
    config.data.soft_labels = "here/soft_labels-1"
    base.refuse_other(tmp_path, config)
    config.data.soft_labels = ""
    with pytest.raises(BadInput, match="another config: data.soft_labels"):
        base.refuse_other(tmp_path, config)


def test_a_key_that_an_older_run_lacks_has_its_default(tmp_path):
    config = stored(tmp_path, **{"data.bad_rows": "missing"})
    base.refuse_other(tmp_path, config)
    config.data.bad_rows = "skip"
    with pytest.raises(BadInput, match="data.bad_rows .'refuse' there, 'skip' now"):
        base.refuse_other(tmp_path, config)


@pytest.mark.parametrize("content", ["", '{"algorithm": "self', "[]", "{}", "7"])
def test_a_damaged_config_of_a_run(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadInput, match="config.json is damaged: choose another --workdir"):
        base.refuse_other(tmp_path, load("self_training"))
