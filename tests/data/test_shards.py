import errno
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

from ssl_guard.data import shards
from ssl_guard.data.shards import open_shards, write_shards
from ssl_guard.errors import BadInput

MADE_FROM = {"corpus_sha256": "c0", "op": "tfidf", "args": {"p": 0.3}, "copies": 2}
REBUILD = "python -m ssl_guard prepare --overwrite"


def make_rows(count):
    rng = np.random.default_rng(0)
    for i in range(count):
        length = int(rng.integers(0, 200))
        yield {
            "id": f"id {i} é",
            "input_ids": rng.integers(0, 2**31 - 1, length).astype(np.int32),
            "second": length // 2,
            "cut": i % 3,
            "label": i % 3 - 1,
            "index": i // 2,
            "copy": i % 2,
        }


def write(folder, count=23, num_shards=4, view="strong"):
    return write_shards(folder, view, make_rows(count), num_shards=num_shards, made_from=MADE_FROM)


def read(folder, view="strong", **changes):
    return open_shards(folder, view, made_from=MADE_FROM | changes, rebuild=REBUILD)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def crc32c(data):
    """Bit by bit, from the polynomial (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("count,num_shards", [(1, 1), (1, 4), (4, 4), (23, 4), (24, 1)])
def test_records_come_back_as_written(tmp_path, count, num_shards):
    write(tmp_path / "strong", count, num_shards)
    records, rows = read(tmp_path / "strong"), list(make_rows(count))
    assert len(records) == count
    assert len(records.manifest["shards"]) == min(count, num_shards)
    for found, expected in zip(records, rows, strict=True):
        assert_same(found, expected)
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(count), 2))
    for found, i in zip(records.gather(order), order, strict=True):
        assert_same(found, rows[i])
    assert records.gather([]) == []
    assert_same(records[-1], rows[-1])
    with pytest.raises(IndexError):
        records[count]
    assert records.lengths.dtype == np.int32
    assert records.lengths.tolist() == [len(row["input_ids"]) for row in rows]


def test_framing_is_that_of_the_tfrecord_format(tmp_path):
    write(tmp_path / "v", count=3, num_shards=1, view="v")
    data = (tmp_path / "v" / "v.tfrecord-00000-of-00001").read_bytes()
    assert crc32c(b"123456789") == 0xE3069283

    def masked(data):
        crc = crc32c(data)
        return ((crc >> 15 | crc << 17) % 2**32 + 0xA282EAD8) % 2**32

    place = records = 0
    while place < len(data):
        size, size_crc = struct.unpack_from("<QI", data, place)
        record = data[place + 12 : place + 12 + size]
        (record_crc,) = struct.unpack_from("<I", data, place + 12 + size)
        assert size_crc == masked(data[place : place + 8])
        assert record_crc == masked(record)
        place, records = place + 12 + size + 4, records + 1
    assert (place, records) == (len(data), 3)


def test_manifest_counts_and_equal_rows_give_equal_hashes(tmp_path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first == second == json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert (first["count"], first["made_from"], first["view"]) == (23, MADE_FROM, "strong")
    assert first["cut_rows"] == sum(row["cut"] > 0 for row in make_rows(23))
    assert [shard["records"] for shard in first["shards"]] == [6, 6, 6, 5]
    assert (tmp_path / "a" / first["shards"][0]["file"]).stat().st_size == (
        first["shards"][0]["bytes"]
    )


def test_the_package_does_not_import_tensorflow(tmp_path):
    code = (
        "import sys; from ssl_guard.data.shards import *\n"
        "row = dict(id='a', input_ids=[1], second=1, cut=0, label=0, index=0, copy=0)\n"
        f"folder = {str(tmp_path / 'v')!r}\n"
        "write_shards(folder, 'v', [row], num_shards=1, made_from={})\n"
        "open_shards(folder, 'v', made_from={}, rebuild='')[0]\n"
        "assert not {'tensorflow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_writer_that_dies_leaves_no_view_and_keeps_the_old_one(tmp_path):
    def broken(error):
        yield from make_rows(10)
        raise error

    for error in (RuntimeError("stop"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            write_shards(tmp_path / "v", "v", broken(error), num_shards=2, made_from=MADE_FROM)
        assert list(tmp_path.iterdir()) == []
    write(tmp_path / "v", count=3, view="v")
    with pytest.raises(RuntimeError):
        write_shards(tmp_path / "v", "v", broken(RuntimeError()), num_shards=2, made_from=MADE_FROM)
    assert len(read(tmp_path / "v", "v")) == 3
    write(tmp_path / "v", count=5, view="v")
    assert len(read(tmp_path / "v", "v")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_a_killed_writer_leaves_no_view(tmp_path):
    code = (
        "import os; from ssl_guard.data.shards import write_shards\n"
        "row = dict(id='a', input_ids=[1], second=1, cut=0, label=0, index=0, copy=0)\n"
        "rows = (row if i < 50_000 else os.kill(os.getpid(), 9) for i in range(60_000))\n"
        f"write_shards({str(tmp_path / 'v')!r}, 'v', rows, num_shards=2, made_from={{}})"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with pytest.raises(BadInput, match="no complete view"):
        read(tmp_path / "v", "v")
    write(tmp_path / "v", view="v")
    assert len(read(tmp_path / "v", "v")) == 23


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_full_or_closed_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BadInput, match=f"'strong' could not be written .*{os.strerror(code)}"):
        write(tmp_path / "strong")
    assert list(tmp_path.iterdir()) == []


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(BadInput, match="'strong' has no rows"):
        write(tmp_path / "strong", count=0)
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused_by_name_with_the_command_that_helps(tmp_path):
    write(tmp_path / "strong")
    read(tmp_path / "strong", args={"p": 0.3})
    with pytest.raises(BadInput) as error:
        read(tmp_path / "strong", args={"p": 0.5, "q": 1}, corpus_sha256="c1")
    assert str(error.value).endswith(
        "was made from something else (args.p: 0.3 there, 0.5 now; args.q: absent there, 1 now; "
        f'corpus_sha256: "c0" there, "c1" now); make it again with: {REBUILD}'
    )
    with pytest.raises(BadInput, match='op: "tfidf" there, null now'):
        read(tmp_path / "strong", op=None)
    with pytest.raises(BadInput, match="is of the view 'strong', not 'weak'"):
        read(tmp_path / "strong", "weak")
    with pytest.raises(BadInput, match="no complete view 'strong'"):
        read(tmp_path / "nothing")


def test_settings_are_compared_as_json(tmp_path):
    write_shards(tmp_path / "v", "v", make_rows(1), num_shards=1, made_from={"a": (1, 2)})
    open_shards(tmp_path / "v", "v", made_from={"a": (1, 2)}, rebuild="")
    open_shards(tmp_path / "v", "v", made_from={"a": [1, 2]}, rebuild="")


@pytest.mark.parametrize(
    "text,message",
    [
        ("", "not a manifest of shards"),
        ("{", "not a manifest of shards"),
        ("[]", "not a manifest of shards"),
        ("{}", "not a manifest of shards"),
        ('{"schema_version": 2}', "not a manifest of shards"),
        ('{"schema_version": 2, "view": "strong", "made_from": 3}', "not a manifest of shards"),
        ('{"schema_version": 3, "files": []}', "schema version 3 and this code reads 2"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, text, message):
    write(tmp_path / "strong")
    (tmp_path / "strong" / "manifest.json").write_text(text)
    with pytest.raises(BadInput, match=f"{message}; make it again with: python"):
        read(tmp_path / "strong")


@pytest.mark.parametrize("suffix", ["", ".index"])
def test_missing_truncated_or_changed_files_are_refused_by_name(tmp_path, suffix):
    write(tmp_path / "strong")
    path = tmp_path / "strong" / f"strong.tfrecord-00002-of-00004{suffix}"
    data = path.read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    for broken in (data[:-1], data + b"\0", bytes(changed), b""):
        path.write_bytes(broken)
        with pytest.raises(BadInput, match=f"{path.name} has changed .* make it again"):
            read(tmp_path / "strong")
    path.unlink()
    with pytest.raises(BadInput, match=f"{path.name} is missing; make it again"):
        read(tmp_path / "strong")


def test_files_of_other_shards_are_refused(tmp_path):
    write(tmp_path / "strong")
    first, second = (f"strong.tfrecord-0000{i}-of-00004" for i in range(2))
    for suffix in ("", ".index"):
        paths = [tmp_path / "strong" / f"{name}{suffix}" for name in (first, second)]
        contents = [path.read_bytes() for path in paths]
        paths[0].write_bytes(contents[1])
        with pytest.raises(BadInput, match=f"{first}{suffix} has changed .* make it again"):
            read(tmp_path / "strong")
        paths[0].write_bytes(contents[0])
    assert len(read(tmp_path / "strong")) == 23


@pytest.mark.parametrize("change", [{"count": 24}, {"count": 5}, {"shards": []}, {"shards": 3}])
def test_a_manifest_that_does_not_fit_its_shards_is_refused(tmp_path, change):
    manifest = write(tmp_path / "strong")
    path = tmp_path / "strong" / "manifest.json"
    path.write_text(json.dumps(manifest | change))
    with pytest.raises(BadInput, match="is not a manifest of shards; make it again with: python"):
        read(tmp_path / "strong")


def test_shards_of_another_tokenizer_are_refused(tmp_path):
    settings = MADE_FROM | {"tokenizer_sha256": "t0"}
    write_shards(tmp_path / "v", "v", make_rows(3), num_shards=1, made_from=settings)
    with pytest.raises(BadInput, match='tokenizer_sha256: "t0" there, "t1" now.*make it again'):
        read(tmp_path / "v", "v", tokenizer_sha256="t1")


def test_a_file_that_is_cut_off_after_opening_is_noticed_when_read(tmp_path):
    write(tmp_path / "strong")
    records = read(tmp_path / "strong")
    path = tmp_path / "strong" / "strong.tfrecord-00003-of-00004"
    os.truncate(path, path.stat().st_size - 1)
    records.gather(range(19))
    with pytest.raises(BadInput, match=f"record 4 of .*{path.name} is corrupt"):
        records.gather([19])


def test_a_record_that_goes_bad_after_opening_is_noticed_when_read(tmp_path):
    write(tmp_path / "strong")
    records = read(tmp_path / "strong")
    path = tmp_path / "strong" / "strong.tfrecord-00002-of-00004"
    place = path.read_bytes().index(records[10]["id"].encode())  # record 2 of shard 2
    with path.open("rb+") as file:
        file.seek(place)
        file.write(b"X")
    records.gather([0, 2, 6, 9, 11, 14])
    with pytest.raises(BadInput, match=f"record 2 of .*{path.name} is corrupt"):
        records.gather([0, 10])


def test_the_scalars_of_a_record_are_named_once():
    (row,) = make_rows(1)
    assert set(row) == {"id", "input_ids", *shards.INTEGERS}


def test_repeated_share_counts_what_another_row_has_too():
    rng = np.random.default_rng(0)
    for rows in (1, 2, 7, 60):
        contents = rng.integers(0, max(2, rows // 2), rows).astype(np.uint64)
        owners = rng.integers(0, max(1, rows // 3), rows)
        expected = np.mean(
            [
                any(contents[i] == contents[j] and owners[i] != owners[j] for j in range(rows))
                for i in range(rows)
            ]
        )
        assert shards.repeated_share(contents, owners) == pytest.approx(expected)


def test_the_manifest_says_how_many_views_repeat_another_rows(tmp_path):
    """Copies 0 and 1 of row 3 may be equal; row 4's first copy is what row 1 has."""
    rows = list(make_rows(10))
    rows[7]["input_ids"] = rows[6]["input_ids"]
    rows[8]["input_ids"] = rows[2]["input_ids"]
    manifest = write_shards(tmp_path / "v", "v", rows, num_shards=2, made_from={})
    assert manifest["repeated_share"] == pytest.approx(0.2)


def test_a_subset_reads_its_own_records(tmp_path):
    write(tmp_path / "strong")
    whole = read(tmp_path / "strong")
    part = whole.subset(np.array([20, 3, 3]))
    assert len(part) == 3
    np.testing.assert_array_equal(part.lengths, whole.lengths[[20, 3, 3]])
    for ours, number in zip(part.gather([0, 1, 2]), (20, 3, 3), strict=True):
        assert_same(ours, whole[number])
    assert_same(part.subset(np.array([1]))[0], whole[3])
