"""Sets on the disk: resumed after a kill, byte for byte the same however they are made."""

import errno
import hashlib
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssl_guard.augment import make as make_lib
from ssl_guard.augment import text_set
from ssl_guard.augment.gates import Gate
from ssl_guard.augment.job import Job
from ssl_guard.augment.ops import OPS, each
from ssl_guard.data import tfrecord_io
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput

POOL_HASHES = {"corpus_sha256": "c0", "split_sha256": "s0"}
WORDS = ["the", "bread", "is", "on", "a", "table", "and", "some", "salt", "in", "water"]
EXAMPLES = [
    Example(
        f"row é {i}",
        " ".join(WORDS[(i + k) % 11] for k in range(3 + i % 8)),
        " ".join(WORDS[(3 * i + k) % 11] for k in range(5)) if i % 4 else None,
        (1, 0, None)[i % 3],
        None,
        "made up",
        "CC0",
    )
    for i in range(60)
]


def job_of(folder, **changes):
    settings = dict(
        rows=len(EXAMPLES),
        ops=("tfidf",),
        arguments={"tfidf": {"p": 0.5}, "eda": {"unused": 1}},
        copies=3,
        seed=0,
        gates={},
        judged={},
        pool=POOL_HASHES,
    )
    return Job(Path(folder) / "tfidf", **(settings | changes))


def make(folder, examples=EXAMPLES, how=None, **changes):
    job = job_of(folder, **changes)
    return job, make_lib.make_set(job, examples, fit_on=examples, **(how or {}))


def shards_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if "tfrecord" in path.name}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"))


def open_set(folder, **changes):
    return text_set.open_set(folder, pool=POOL_HASHES, again="make it again", **changes)


def test_the_views_come_back_in_the_order_of_the_pool(made):
    job, manifest = made
    there = open_set(job.folder, made_from=job.made_from)
    rows = list(there.views(EXAMPLES))
    assert [(e.id, copy) for e, copy, *_ in rows] == [(e.id, c) for e in EXAMPLES for c in range(3)]
    assert manifest["count"] == len(rows) == 180
    words = set(WORDS)
    for example, _, prompt, response in rows:
        assert set(prompt.lower().split()) <= words
        assert (response is None) == (example.response is None)
        if response is not None:
            assert len(response.split()) == len(example.response.split())
    assert sum(prompt != e.prompt for e, _, prompt, _ in rows) > 100


def test_what_is_on_the_disk(made):
    job, manifest = made
    assert {path.name for path in job.folder.iterdir()} == {
        "manifest.json",
        *(f"tfidf.tfrecord-{i:05d}-of-00004" for i in range(4)),
    }
    assert not job.partial.exists()
    assert json.loads((job.folder / "manifest.json").read_text()) == manifest
    assert manifest["made_from"]["arguments"] == {"tfidf": {"p": 0.5}}, "of what is used alone"
    seen = {}
    for number, shard in enumerate(manifest["shards"]):
        rows = list(tfrecord_io.read(job.folder / shard["file"]))
        assert len(rows) == shard["records"] > 0
        assert {tuple(sorted(row)) for row in rows} <= {
            ("copy", "id", "op", "prompt", "response"),
            ("copy", "id", "op", "prompt"),
        }
        places = [[e.id for e in EXAMPLES].index(row["id"].decode()) for row in rows]
        assert places == sorted(places)
        seen |= {row["id"].decode(): number for row in rows}
    # The shard follows from the id alone.
    for row_id, number in seen.items():
        assert int(hashlib.sha256(row_id.encode()).hexdigest()[:16], 16) % 4 == number


def test_the_account_is_in_the_manifest(made):
    _, manifest = made
    assert manifest["account"]["rows"] == {"harmful": 20, "safe": 20, "unknown": 20}
    assert manifest["account"]["accepted"]["tfidf"] == {"harmful": 60, "safe": 60, "unknown": 60}
    assert manifest["warnings"] == []


def test_chunks_and_processes_leave_no_trace(made, tmp_path, monkeypatch):
    job, manifest = made
    monkeypatch.setattr(make_lib, "CHUNK", 7)
    chunked, _ = make(tmp_path / "chunks")
    assert shards_of(chunked.folder) == shards_of(job.folder)
    how = {"workers": 2}
    apart, other = make(tmp_path / "apart", how=how, judges=everything_passes, judged={"all": 1})
    assert shards_of(apart.folder) == shards_of(job.folder)
    # Gates that cannot travel are opened by the workers.
    assert other["account"].pop("measured") == {"all": {"sum": 180.0, "count": 180}}
    assert other["account"] == manifest["account"]
    assert other["made_from"]["gates"] == {"all": 1}


def everything_passes():
    return (Gate("all", lambda sources, views: [1.0] * len(views), 1, 1),)


def test_the_order_of_the_pool_decides_nothing_but_the_order(made, tmp_path):
    job, _ = made
    turned, _ = make(tmp_path, EXAMPLES[::-1])
    mine = {(e.id, c): text for e, c, *text in open_set(job.folder).views(EXAMPLES)}
    theirs = {(e.id, c): text for e, c, *text in open_set(turned.folder).views(EXAMPLES[::-1])}
    assert mine == theirs


KILLED = """
import pathlib, sys, time
sys.path.insert(0, {here!r})
from ssl_guard.augment import make, ops
from tests.augment import test_sets as t

def slow(texts, *, p):
    fast = FAST(texts, p=p)
    def rewrite(texts, rngs):
        time.sleep(0.05)
        return fast(texts, rngs)
    return rewrite

FAST, ops.OPS["tfidf"] = ops.OPS["tfidf"], slow
make.CHUNK = 1
t.make(pathlib.Path({folder!r}))
"""


def test_kill_9_and_again_gives_the_same_bytes(made, tmp_path, monkeypatch):
    """Killed in the second shard: the first is kept, the rest is made, as if nothing had been."""
    code = KILLED.format(here=os.getcwd(), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code])
    job = job_of(tmp_path)
    first, second = (job.partial / job.file(shard) for shard in range(2))
    until = time.monotonic() + 60
    while not list(job.partial.glob(f".{second.name}.*")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists() and not second.exists() and not job.folder.exists()
    kept, made_again = first.stat().st_mtime_ns, []
    real = make_lib.make_shard
    monkeypatch.setattr(
        make_lib, "make_shard", lambda job, tools, shard, *a: made_again.append(shard) or
        real(job, tools, shard, *a)
    )  # fmt: skip
    make(tmp_path)
    assert made_again == [1, 2, 3]
    assert (job.folder / first.name).stat().st_mtime_ns == kept
    assert shards_of(job.folder) == shards_of(made[0].folder)
    assert {path.name for path in job.folder.iterdir()} == {
        p.name for p in made[0].folder.iterdir()
    }
    assert not job.partial.exists()


class Stop(Exception):
    pass


def interrupted(folder, monkeypatch, after=2, **changes):
    """A set of which `after` shards are finished."""
    job, real, calls = job_of(folder, **changes), make_lib.make_shard, itertools.count()

    def stops(*args):
        if next(calls) == after:
            raise Stop
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(make_lib, "make_shard", stops)
        with pytest.raises(Stop):
            make(folder, **changes)
    return job


@pytest.mark.parametrize("damage", ["shard", "missing", "account", "account missing"])
def test_a_damaged_shard_is_made_again(made, tmp_path, monkeypatch, damage):
    job = interrupted(tmp_path, monkeypatch)
    path = job.partial / job.file(1)
    beside = path.with_name(f"{path.name}.json")
    if damage == "shard":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif damage == "missing":
        path.unlink()
    elif damage == "account":
        beside.write_text(beside.read_text()[:50])
    else:
        beside.unlink()
    assert make_lib.finished(job, 0) is not None and make_lib.finished(job, 1) is None
    make(tmp_path)
    assert shards_of(job.folder) == shards_of(made[0].folder)


def test_a_set_under_way_of_other_arguments_is_not_mixed_in(made, tmp_path, monkeypatch):
    job = interrupted(tmp_path, monkeypatch)
    other = {"arguments": {"tfidf": {"p": 0.1}}}
    with pytest.raises(BadInput, match=r"arguments.tfidf.p: 0.5 there, 0.1 now\); finish that one"):
        make(tmp_path, **other)
    assert (job.partial / job.file(0)).exists(), "nothing is lost"
    _, manifest = make(tmp_path, how={"overwrite": True}, **other)
    assert manifest["made_from"]["arguments"] == {"tfidf": {"p": 0.1}}


def test_finish_wants_every_shard(tmp_path, monkeypatch):
    job = interrupted(tmp_path, monkeypatch)
    with pytest.raises(BadInput, match="shard 2 of 4 is missing or damaged"):
        make_lib.finish(job)


def test_overwriting_replaces_at_the_end(made, tmp_path, monkeypatch):
    job, _ = make(tmp_path, arguments={"tfidf": {"p": 0.1}})
    before = shards_of(job.folder)
    interrupted(tmp_path, monkeypatch)
    assert shards_of(job.folder) == before
    make(tmp_path)
    assert shards_of(job.folder) == shards_of(made[0].folder) != before


def test_sets_that_do_not_fit_are_refused(made, tmp_path):
    job, manifest = made
    with pytest.raises(BadInput, match="no augmentation set 'eda' in .*; make it again"):
        open_set(tmp_path / "eda")
    with pytest.raises(BadInput, match="corpus_sha256: .*c0.* there, .*c1.* now"):
        text_set.open_set(job.folder, pool={"corpus_sha256": "c1"}, again="")
    other = job_of(tmp_path, copies=4)
    with pytest.raises(BadInput, match="copies: 3 there, 4 now"):
        open_set(job.folder, made_from=other.made_from)
    folder = tmp_path / "changed"
    folder.mkdir()
    for name, data in shards_of(job.folder).items():
        (folder / name).write_bytes(data)
    for text, words in (
        ("{", "not the manifest of a set"),
        ("[]", "not the manifest of a set"),
        (json.dumps(manifest | {"schema_version": 0}), "schema version 0"),
    ):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(BadInput, match=words):
            open_set(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    there = open_set(folder)
    text_set.check(there, again="")
    path = folder / manifest["shards"][2]["file"]
    path.write_bytes(path.read_bytes().replace(b"salt", b"sand"))
    with pytest.raises(BadInput, match="has changed since it was written"):
        text_set.check(there, again="")
    with pytest.raises(BadInput, match="record .* is corrupt"):
        list(there.views(EXAMPLES))
    path.unlink()
    with pytest.raises(BadInput, match="missing"):
        text_set.check(there, again="")


def test_rows_that_the_set_does_not_have(made):
    there = open_set(made[0].folder)
    with pytest.raises(BadInput, match="no view 0 of row row é"):
        list(there.views(EXAMPLES[1:]))


def test_the_hash_of_a_set_follows_its_views(made, tmp_path):
    same, _ = make(tmp_path / "same")
    other, _ = make(tmp_path / "other", seed=1)
    mine = open_set(made[0].folder).sha256
    assert open_set(same.folder).sha256 == mine != open_set(other.folder).sha256


def test_a_full_disk_is_one_sentence_and_leaves_no_set(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="set 'tfidf' could not be written .*No space left"):
        make(tmp_path)
    monkeypatch.undo()
    job, _ = make(tmp_path)
    assert job.folder.exists()


def test_operations_that_read_a_response_otherwise_are_built_for_both(tmp_path, monkeypatch):
    built = []

    def told(texts, *, part="prompt"):
        built.append(part)
        return each(lambda text, rng: f"{part}: {text}")

    monkeypatch.setitem(OPS, "told", told)
    job, _ = make(tmp_path, ops=("told",))
    assert built == ["prompt", "response"]
    for _, _, prompt, response in open_set(job.folder).views(EXAMPLES):
        assert prompt.startswith("prompt: ")
        assert response is None or response.startswith("response: ")


def test_what_a_worker_cannot_use_ends_in_its_own_sentence(tmp_path, monkeypatch):
    """Opened with the first shard: a pool whose processes fail to start could not say why."""
    monkeypatch.setattr(make_lib, "_opened", [])
    job = job_of(tmp_path, arguments={"tfidf": {"p": 7}})
    make_lib.stage(job, EXAMPLES, fit_on=EXAMPLES)
    with pytest.raises(BadInput, match="a share, 0 to 1") as caught:
        make_lib._make_shard_here(job, 0)
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes back to the parent
    assert isinstance(again, BadInput) and str(again) == str(caught.value)


def test_a_progress_bar_on_request(made, tmp_path, capsys, monkeypatch):
    interrupted(tmp_path, monkeypatch)
    capsys.readouterr()
    make(tmp_path, how={"progress": True})
    shown = capsys.readouterr().err
    assert "180/180" in shown and "view/s" in shown
    assert "0/180" not in shown.split("180/180")[0].replace("180/180", ""), "it goes on"


def test_more_rows_more_shards(tmp_path):
    shards = {rows: job_of(tmp_path, rows=rows).shards for rows in (0, 9000, 300_000, 10**7)}
    assert shards == {0: 4, 9000: 5, 300_000: 147, 10**7: 256}
    with pytest.raises(BadInput, match="copies = 0"):
        job_of(tmp_path, copies=0)
