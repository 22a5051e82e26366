"""Files are written as a whole or not at all."""

import os

import pytest

from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import (
    atomic_write,
    check_folder,
    read_json,
    read_jsonl,
    whole_folder,
    write_json,
    write_jsonl,
)


@pytest.mark.parametrize("write", [atomic_write, write_json, write_jsonl])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(write, call, tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.json"
    write(path, "old")
    before = path.read_bytes()

    def fail(*_):
        assert path.read_bytes() == before  # a reader never meets a part of the new content
        raise OSError("No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        write(path, "much longer")
    assert path.read_bytes() == before and [*path.parent.iterdir()] == [path]


def test_the_new_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        done = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=done: (calls.append(n), f(*a))[1])
    atomic_write(tmp_path / "a", b"1")
    assert calls == ["fsync", "replace"]


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("fails", ["inside", "fsync", "replace"])
def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, before, fails):
    folder = tmp_path / "a" / "folder"
    if before:
        (folder / "inner").mkdir(parents=True)
        (folder / "inner/file").write_text(before)

    def fail(*_):
        raise OSError("No space left on device")

    def write():
        with whole_folder(folder) as building:
            (building / "inner").mkdir()
            (building / "inner/file").write_text("new")
            if fails == "inside":
                fail()

    with monkeypatch.context() as patch:
        if fails != "inside":
            patch.setattr(os, fails, fail)
        with pytest.raises(OSError, match="No space left"):
            write()
    assert folder.exists() == bool(before)
    assert not before or (folder / "inner/file").read_text() == before
    assert [*folder.parent.iterdir()] == [folder] * bool(before)
    fails = ""
    write()
    assert (folder / "inner/file").read_text() == "new" and [*folder.parent.iterdir()] == [folder]


def test_lines_that_are_cut_off_are_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert read_jsonl(path) == []
    write_jsonl(path, [{"a": 1}, {"a": "é"}])
    assert read_jsonl(path) == [{"a": 1}, {"a": "é"}]
    path.write_text(path.read_text()[:-3])
    assert read_jsonl(path) == [{"a": 1}]


def test_a_folder_to_write_to_is_checked_and_not_made(tmp_path):
    for path in (tmp_path, tmp_path / "new" / "folder"):
        check_folder(path, "--workdir")
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "file").write_text("")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("file", "file/run", "gone", "gone/run", "x" * 300):
        with pytest.raises(BadInput, match=f"^--workdir: {tmp_path}/.* cannot be a folder"):
            check_folder(tmp_path / name, "--workdir")
    for path in ("/proc/run", "/dev/null/run"):
        with pytest.raises(BadInput, match="cannot be a folder to write to"):
            check_folder(path, "--workdir")


def test_a_damaged_object_is_named_with_a_remedy(tmp_path):
    path = tmp_path / "report.json"
    path.write_text('{"a": "é"}', encoding="utf-8")
    assert read_json(path, "delete it") == {"a": "é"}
    for content in (b"", b'{"a"', b"[]", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"report.json is damaged: delete it\.$"):
            read_json(path, "delete it")
