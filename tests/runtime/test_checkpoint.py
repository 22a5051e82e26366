"""Checkpoints: every array of every method comes back bit for bit, on another mesh too."""

import contextlib
import gc
import hashlib
import json
import os
import re
import subprocess
import time

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from ssl_guard.errors import BadInput
from ssl_guard.runtime import sharding
from ssl_guard.runtime.checkpoint import Checkpoints
from tests.toy import METHODS, batches, make


def template_of(shapes, placement):
    """Shapes and dtypes of a state with one placement to restore all of it to."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement), shapes
    )


def raw(leaf):
    """A leaf as numbers; a typed key as its words."""
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def save(folder, step, state, selection=0.0):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(
            step, state, data={"next_index": step}, meta={"step": step}, selection=selection
        )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_survives(tmp_path, method):
    step, state = make(method, **METHODS[method])
    state, _ = step(state, next(batches()))
    eight = sharding.replicated(sharding.make_mesh())
    save(tmp_path, 1, jax.device_put(state, eight))
    two = sharding.replicated(sharding.make_mesh(jax.devices()[:2]))
    with Checkpoints(tmp_path) as checkpoints:
        template = template_of(jax.eval_shape(lambda: state), two)
        restored, data, _ = checkpoints.restore(checkpoints.latest, template)
    assert data == {"next_index": 1}
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert ours.dtype == theirs.dtype and ours.sharding == two
        np.testing.assert_array_equal(raw(ours), raw(theirs))


@pytest.fixture(scope="module")
def template():
    return template_of(STATE, sharding.replicated(sharding.make_mesh(jax.devices()[:1])))


STATE = {"x": np.arange(6, dtype=np.float32), "n": np.full((), 7, np.int32)}


def keep(folder, selections, **options):
    """Saves STATE at steps 0, 1, ... with these dev scores; the steps that are left."""
    with Checkpoints(folder, **options) as checkpoints:
        for step, selection in enumerate(selections):
            checkpoints.save(
                step, STATE, data={"next_index": step}, meta={"s": [step]}, selection=selection
            )
        checkpoints.wait()
        return checkpoints.steps, checkpoints.best, checkpoints.latest


@pytest.mark.parametrize(
    "selections, keep_last, kept, best",
    [
        ([0.2, 0.9, 0.3, 0.1], 1, [1, 3], 1),
        ([0.2, 0.9, 0.3, 0.1], 2, [1, 2, 3], 1),
        ([0.2, 0.3, 0.9, 0.1], 2, [2, 3], 2),  # the best is one of the last
        ([0.9, 0.9, 0.1, 0.1], 1, [0, 3], 0),  # the earliest one on a tie
        ([0.2, None, None, None], 2, [0, 2, 3], 0),  # not evaluated, so never the best
        ([None, None, None], 1, [2], None),
    ],
)
def test_the_best_and_the_last_are_kept(tmp_path, selections, keep_last, kept, best):
    left = keep(tmp_path, selections, keep_last=keep_last)
    assert left == (kept, best, len(selections) - 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == list(map(str, kept))


def test_what_is_kept_does_not_hang_on_the_clock(tmp_path, monkeypatch):
    """Steps decide, on a machine whose clock runs backwards too."""
    now = iter(range(10**9, 0, -(10**5)))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    monkeypatch.setattr(time, "time_ns", lambda: next(now) * 10**9)
    assert keep(tmp_path, [0.2, 0.9, 0.3, 0.1]) == ([1, 2, 3], 1, 3)


def test_a_step_is_replaced(tmp_path, template):
    """A state that was saved on a signal, and again when it had been evaluated."""
    keep(tmp_path, [0.5, None])
    with Checkpoints(tmp_path) as checkpoints:
        again = {"x": STATE["x"] + 1, "n": STATE["n"]}
        checkpoints.save(1, again, data={}, meta={}, selection=0.7)
        checkpoints.wait()
        assert (checkpoints.steps, checkpoints.best) == ([0, 1], 1)
        np.testing.assert_array_equal(checkpoints.restore(1, template)[0]["x"], again["x"])


def test_what_is_saved_is_not_what_the_next_steps_write(tmp_path):
    """The step donates the state while the save is under way."""
    everywhere = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    step = jax.jit(lambda x: x + 1, donate_argnums=0, out_shardings=everywhere)
    state = jax.device_put({"x": np.zeros(2_000_000, np.float32)}, everywhere)
    template = template_of(state, everywhere)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state, data={}, meta={}, selection=None)
        for _ in range(20):
            state = {"x": step(state["x"])}
        jax.block_until_ready(state)
        checkpoints.wait()
        assert not np.asarray(checkpoints.restore(0, template)[0]["x"]).any()


def test_leftovers_of_a_kill_are_no_checkpoints(tmp_path, template):
    keep(tmp_path, [0.5])
    for name in ("1.orbax-checkpoint-tmp", "2.removed"):
        (tmp_path / name / "state").mkdir(parents=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.steps, checkpoints.latest) == ([0], 0)
        assert checkpoints.resume(template)[1] == {"next_index": 0}
        assert [path.name for path in tmp_path.iterdir()] == ["0"]
        checkpoints.save(1, STATE, data={}, meta={}, selection=0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_a_kill_before_the_manifest_costs_nothing(tmp_path, template):
    """Orbax has renamed the folder, so it is whole; it gets its manifest at the next start."""
    keep(tmp_path, [0.5, 0.6])
    manifest = tmp_path / "1" / "manifest.json"
    before = manifest.read_text()
    manifest.unlink()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.resume(template)[1] == {"next_index": 1}
    assert manifest.read_text() == before


def test_the_manifest_names_every_file(tmp_path):
    keep(tmp_path, [0.5])
    files = json.loads((tmp_path / "0" / "manifest.json").read_text())["files"]
    there = {path for path in (tmp_path / "0").rglob("*") if path.is_file()}
    assert {tmp_path / "0" / name for name in files} == there - {tmp_path / "0" / "manifest.json"}
    for name, sha256 in files.items():
        assert hashlib.sha256((tmp_path / "0" / name).read_bytes()).hexdigest() == sha256


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    """One bit, with the size and the time as they were."""
    data, times = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda folder: flip(largest(folder / "state")), "state/.* has changed"),
        (lambda folder: largest(folder / "state").write_bytes(b""), "state/.* has changed"),
        (lambda folder: largest(folder / "state").unlink(), "state/.* has changed"),
        (lambda folder: (folder / "_CHECKPOINT_METADATA").unlink(), "_METADATA has changed"),
        (lambda folder: (folder / "manifest.json").write_text('{"fil'), "JSONDecodeError"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside(tmp_path, template, capsys, damage, says):
    keep(tmp_path, [0.9, 0.5, 0.7])
    damage(tmp_path / "2")
    with Checkpoints(tmp_path) as checkpoints:
        state, data, meta = checkpoints.resume(template)
        assert (data, meta) == ({"next_index": 1}, {"s": [1]})
        np.testing.assert_array_equal(state["x"], STATE["x"])
        assert (checkpoints.steps, checkpoints.best) == ([0, 1], 0)
    (aside,) = tmp_path.glob("2.damaged-*")
    said = capsys.readouterr().err
    assert re.fullmatch(
        rf"ssl_guard: {tmp_path}/2: this checkpoint cannot be read.*{says}.* "
        rf"It is renamed to {aside.name}; resuming from step 1.\n",
        said,
    )


def test_an_older_damaged_checkpoint_is_set_aside_too(tmp_path, template, capsys):
    keep(tmp_path, [0.9, 0.5, 0.7])
    flip(largest(tmp_path / "0" / "state"))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.resume(template)[1] == {"next_index": 2}
        assert checkpoints.best == 2
    assert "/0: this checkpoint cannot be read" in capsys.readouterr().err


def test_nothing_readable_is_refused_again_and_again(tmp_path, template):
    keep(tmp_path, [0.9, 0.5])
    for step in "01":
        flip(largest(tmp_path / step / "state"))
    with Checkpoints(tmp_path) as checkpoints:
        for _ in range(2):
            with pytest.raises(BadInput, match=r"none of .* \(steps 1, 0\) can be read"):
                checkpoints.resume(template)


def test_a_damaged_checkpoint_of_a_finished_run(tmp_path, template):
    """Checks that a reader renames no damaged checkpoint."""
    keep(tmp_path, [0.9])
    flip(largest(tmp_path / "0" / "state"))
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(BadInput, match=r"cannot be read \(state/.* has changed"):
            checkpoints.restore_part(0, {"x": template["x"]})
        with pytest.raises(BadInput, match="/5: this checkpoint cannot be read"):
            checkpoints.restore(5, template)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_no_checkpoint_is_a_new_run(tmp_path, template):
    with Checkpoints(tmp_path / "none") as checkpoints:
        assert checkpoints.resume(template) is None
        assert (checkpoints.steps, checkpoints.latest, checkpoints.best) == ([], None, None)


@pytest.fixture(params=["full", "read-only"])
def bad_disk(request, tmp_path):
    """(folder, break it, mend it): a small file system of its own, which only root can mount."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        subprocess.run(["mount", *options, str(folder)], check=True, capture_output=True)

    try:
        mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    filler = folder / "filler"

    def fill():
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))

    if request.param == "full":
        yield folder / "run", fill, filler.unlink
    else:
        yield folder / "run", lambda: mount("-o", "remount,ro"), lambda: mount("-o", "remount,rw")
    subprocess.run(["umount", "-l", str(folder)], check=True)


# Orbax leaves coroutines behind when a save fails, which say so when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("on_save_error", ["stop", "continue"])
def test_a_disk_that_refuses_leaves_the_previous_checkpoint_whole(
    bad_disk, template, capsys, on_save_error
):
    folder, damage, mend = bad_disk
    with Checkpoints(folder, on_save_error=on_save_error) as checkpoints:

        def save(step):
            checkpoints.save(step, STATE, data={"at": step}, meta={}, selection=0.1 * step)

        def save_and_wait_as_the_next_save_would(step):
            save(step)
            checkpoints.wait(tolerant=on_save_error == "continue")

        save(0)
        checkpoints.wait()
        damage()
        if on_save_error == "stop":
            with pytest.raises(BadInput, match="while writing a checkpoint; older checkpoints"):
                save_and_wait_as_the_next_save_would(1)
        else:
            save_and_wait_as_the_next_save_would(1)
            assert "while writing a checkpoint; continuing without it" in capsys.readouterr().err
            with pytest.raises(BadInput, match="fix the disk"):  # the last save of a run
                save(2)
                checkpoints.wait()
        assert checkpoints.steps == [0]
        mend()
        assert checkpoints.resume(template)[1] == {"at": 0}
        save(3)
        checkpoints.wait()
        assert checkpoints.resume(template)[1] == {"at": 3}
    assert sorted(path.name for path in folder.iterdir()) == ["0", "3"]
    gc.collect()


def test_an_error_that_is_not_the_disk_is_not_hidden(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr(ocp, "save_checkpointables_async", broken)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(RuntimeError, match="something else"):
        checkpoints.save(0, STATE, data={}, meta={}, selection=None)
