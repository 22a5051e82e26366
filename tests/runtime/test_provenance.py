"""Tests the provenance that a run stores in its folder."""

import json
import subprocess
from pathlib import Path

import pytest

from ssl_guard.runtime import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository of one committed file, taken for this program's own."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "code.py").write_text("one = 1\n")

    def git(*command):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", "-C", str(folder), *identity, *command], check=True)

    git("init", "--quiet")
    git("add", "code.py")
    git("commit", "--quiet", "--message=first")
    monkeypatch.setattr(provenance, "__file__", str(folder / "provenance.py"))
    return folder


def test_changes_to_the_commit_have_a_hash(checkout):
    clean = provenance.collect()
    assert len(clean["commit"]) == 40 and clean["changes_sha256"] is None
    seen = set()
    for content in ("one = 2\n", "one = 3\n"):
        (checkout / "code.py").write_text(content)
        changed = provenance.collect()
        assert changed["commit"] == clean["commit"] + "+changes"
        seen.add(changed["changes_sha256"])
    (checkout / "new.py").write_text("two = 2\n")
    seen.add(provenance.collect()["changes_sha256"])
    assert len(seen) == 3 and all(len(found) == 64 for found in seen)
    (checkout / "new.py").unlink()
    (checkout / "code.py").write_text("one = 1\n")
    assert provenance.collect() == clean


def test_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    found = provenance.collect(corpus_sha256="c")
    assert found["commit"] is found["changes_sha256"] is None
    assert found["corpus_sha256"] == "c" and found["packages"]["jax"]


def test_a_start_with_other_code_is_another_start(checkout, tmp_path):
    starts = []
    for step, code in ((0, "one = 1\n"), (20, "one = 1\n"), (40, "one = 2\n")):
        (checkout / "code.py").write_text(code)
        provenance.record_start(tmp_path, step, split_sha256="s")
        starts = json.loads(Path(tmp_path, "provenance.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 40]
    assert starts[0]["changes_sha256"] is None and starts[1]["changes_sha256"]
    assert all(start["split_sha256"] == "s" for start in starts)
