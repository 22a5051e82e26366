"""metrics.jsonl: no gap, no duplicate, no half line."""

import json

import pytest

from ssl_guard.runtime.files import read_jsonl, write_json
from ssl_guard.runtime.writer import Writer


def steps(path):
    return [row["step"] for row in read_jsonl(path / "metrics.jsonl")]


def test_rows_are_read_back(tmp_path):
    writer = Writer(tmp_path, resume_step=0)
    writer.write(5, {"loss/total": 0.25})
    writer.close()
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 5, "loss/total": 0.25}]


def test_resume_drops_what_will_be_done_again(tmp_path):
    writer = Writer(tmp_path, resume_step=0)
    for step in (5, 10, 15):
        writer.write(step, {})
    writer.close()
    writer = Writer(tmp_path, resume_step=10)
    assert steps(tmp_path) == [5, 10]
    writer.write(15, {})
    writer.close()
    assert steps(tmp_path) == [5, 10, 15]


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n{"step": 10, "lo')
    Writer(tmp_path, resume_step=5).close()
    assert steps(tmp_path) == [5]


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_kill_at_any_byte_of_a_row(tmp_path, cut):
    """The rows of the last checkpoint are whole; those after it are written again, each once."""
    whole = '{"step": 5, "x": 1.5}\n{"step": 10, "x": 2.5}\n'
    (tmp_path / "metrics.jsonl").write_text(whole[: len(whole) - cut // 2])
    with Writer(tmp_path, resume_step=5) as writer:
        assert [row["step"] for row in writer.rows] == [5]
        writer.write(10, {"x": 2.5})
    assert (tmp_path / "metrics.jsonl").read_text() == whole


def test_json_is_replaced_whole(tmp_path, monkeypatch):
    write_json(tmp_path / "a" / "b.json", {"x": 1})
    monkeypatch.setattr(json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_json(tmp_path / "a" / "b.json", {"x": 2})
    monkeypatch.undo()
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {"x": 1}


def test_tensorboard_gets_the_same_values(tmp_path):
    with Writer(tmp_path, resume_step=0, tensorboard=True) as writer:
        writer.write(5, {"loss/total": 0.25})
    events = list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1 and b"loss/total" in events[0].read_bytes()
