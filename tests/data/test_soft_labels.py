"""Soft labels on disk: exact, and refused in one sentence if they do not belong to the pool."""

import json

import numpy as np
import pytest

from ssl_guard.data import soft_labels
from ssl_guard.errors import BadInput

POOL = {"corpus_sha256": "c", "split_sha256": "s"}
IDS = ["row1", "line 7", "ü", "4"]
HARMFUL = np.array([0.1, 1 / 3, 0.0, 1.0])
WEIGHT = np.array([True, False, True, True])


@pytest.fixture
def folder(tmp_path):
    made_from = POOL | {"teachers": [["uda", "f"]]}
    arrays = HARMFUL, WEIGHT
    soft_labels.write(tmp_path / "soft", IDS, *arrays, made_from=made_from, results={"used": 3})
    return tmp_path / "soft"


def refused(folder, *, ids=IDS, pool=POOL):
    """The one sentence that refuses the soft labels."""
    with pytest.raises(BadInput) as error:
        soft_labels.open_set(folder, ids, pool=pool)
    sentence = str(error.value)
    assert str(folder) in sentence and sentence.endswith("with: python -m ssl_guard teach")
    return sentence


def test_they_come_back_bit_for_bit(folder):
    found = soft_labels.open_set(folder, IDS, pool=POOL)
    assert found.harmful.dtype == found.weight.dtype == np.float32
    np.testing.assert_array_equal(found.harmful, HARMFUL.astype(np.float32))
    np.testing.assert_array_equal(found.weight, [1, 0, 1, 1])
    manifest = soft_labels.read_manifest(folder)
    assert manifest["sha256"] == found.sha256 and manifest["count"] == 4
    assert manifest["results"] == {"used": 3} and manifest["made_from"].items() > POOL.items()
    assert {path.name for path in folder.iterdir()} == {soft_labels.RECORDS, soft_labels.MANIFEST}


def test_the_same_soft_labels_are_the_same_bytes(folder, tmp_path):
    files = [folder / name for name in (soft_labels.RECORDS, soft_labels.MANIFEST)]
    there = [path.read_bytes() for path in files]
    manifest = json.loads(there[1])
    parts = manifest["made_from"], manifest["results"]
    soft_labels.write(folder, IDS, HARMFUL, WEIGHT, made_from=parts[0], results=parts[1])
    assert [path.read_bytes() for path in files] == there
    other = HARMFUL[::-1]
    soft_labels.write(folder, IDS, other, WEIGHT, made_from=parts[0], results=parts[1])
    np.testing.assert_array_equal(
        soft_labels.open_set(folder, IDS, pool=POOL).harmful, other.astype(np.float32)
    )


@pytest.mark.parametrize("ids", [IDS[::-1], IDS[:-1], [*IDS, "5"], [*IDS[:-1], "5"], []], ids=str)
def test_other_rows(folder, ids):
    assert "of other rows than the unlabelled pool" in refused(folder, ids=ids)


def test_another_split(folder):
    assert "of another corpus or split" in refused(folder, pool=POOL | {"split_sha256": "t"})


def test_a_missing_folder_or_file(folder, tmp_path):
    assert "has no soft labels" in refused(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "has no soft labels" in refused(tmp_path / "file")
    (folder / soft_labels.RECORDS).unlink()
    assert "or damaged ones" in refused(folder)


def test_damaged_records(folder):
    """Cut off after a whole record or within one, or with any byte changed."""
    path = folder / soft_labels.RECORDS
    data = path.read_bytes()
    for length in (0, len(data) // 4, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert "or damaged ones" in refused(folder)
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert "or damaged ones" in refused(folder)
    path.write_bytes(data)
    soft_labels.open_set(folder, IDS, pool=POOL)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "\x00",
        lambda text: text.replace('"schema_version": 1', '"schema_version": 2'),
        lambda text: text.replace('"sha256"', '"sha"'),
    ],
)
def test_a_damaged_manifest(folder, change):
    path = folder / soft_labels.MANIFEST
    path.write_text(change(path.read_text()))
    assert "or damaged ones" in refused(folder)


def test_records_without_their_manifest_are_none(folder, monkeypatch):
    """Killed between the two files: the records are new and the manifest is old."""

    def killed(path, value):
        raise KeyboardInterrupt

    monkeypatch.setattr(soft_labels, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        soft_labels.write(folder, IDS, 1 - HARMFUL, WEIGHT, made_from=POOL, results={})
    assert soft_labels.read_manifest(folder) is None
    assert "or damaged ones" in refused(folder)
