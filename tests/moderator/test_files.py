"""The moderate command: formats, rows that cannot be read, and a kill between any two bytes."""

import csv
import io
import json
import sys

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ssl_guard.data import readers
from ssl_guard.errors import BadInput
from ssl_guard.moderator import Moderator, files

ROWS = [
    {"id": f"r{i}", "prompt": f"Question {i}: bread garden?", "response": ("Never.", "Yes.")[i % 2]}
    for i in range(20)
]


ANSWER = {"role": "assistant", "content": "Never."}


@pytest.fixture(scope="module")
def moderator(exported):
    return Moderator.load(exported[0])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 3)


def write(path, rows=ROWS):
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path):
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("form", [".jsonl", ".csv", ".parquet"])
def test_every_format_in_and_out(moderator, tmp_path, form):
    source, out = write(tmp_path / f"in{form}"), tmp_path / f"out{form}"
    counts = files.moderate(moderator, source, str(out))
    expected = moderator([(row["prompt"], row["response"]) for row in ROWS])
    found = read(out)
    assert [row["id"] for row in found] == [row["id"] for row in ROWS]
    assert [row["verdict"] for row in found] == [one.verdict for one in expected]
    np.testing.assert_allclose(
        [float(row["probability"]) for row in found],
        [one.probability for one in expected],
        atol=1e-6,
    )
    assert counts == (20, sum(one.verdict == "harmful" for one in expected), 0, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"in{form}", f"out{form}"]


def test_a_killed_command_continues_after_the_last_whole_row(moderator, tmp_path, monkeypatch):
    source, out = write(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    files.moderate(moderator, source, str(out))
    whole = out.read_bytes()
    out.unlink()
    scored, limit = [], 12

    class Dying:
        def __getattr__(self, name):
            return getattr(moderator, name)

        def __call__(self, inputs, **how):
            if sum(scored) >= limit:
                raise KeyboardInterrupt
            scored.append(len(inputs))
            return moderator(inputs, **how)

    with pytest.raises(KeyboardInterrupt):
        files.moderate(Dying(), source, str(out))
    part, limit = tmp_path / "out.jsonl.part", len(ROWS)
    header, rows = part.read_bytes().split(b"\n", 1)
    assert rows.count(b"\n") == 12
    begun = header + b"\n" + rows
    for kept in (0, 5, len(header), len(header) + 1, len(header) + 40, len(begun) - 1, len(begun)):
        part.write_bytes(begun[:kept])
        scored.clear()
        counts = files.moderate(Dying(), source, str(out))
        assert out.read_bytes() == whole and counts.rows == len(ROWS)
        assert sum(scored) == len(ROWS) - max(0, begun[:kept].count(b"\n") - 1)
        out.unlink()


def test_a_part_of_another_input_is_refused(moderator, tmp_path):
    source, out = write(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    (tmp_path / "out.jsonl.part").write_text('{"moderator": "another"}\n')
    with pytest.raises(BadInput, match="begun with another input"):
        files.moderate(moderator, source, str(out))
    out.write_text("")
    with pytest.raises(BadInput, match="exists: delete it"):
        files.moderate(moderator, source, str(out))


def test_rows_that_cannot_be_read_are_counted_and_named(moderator, tmp_path):
    secret = "a harmful text"
    lines = [
        json.dumps(ROWS[0]),
        '{"prompt": "' + secret,
        json.dumps({"id": "b", "prompt": secret}),
        json.dumps({"id": "c", "prompt": secret, "response": 3}),
        json.dumps({"id": "d", "prompt": secret, "response": "\ud800"}),
        json.dumps({"id": "e", "messages": [{"role": "user", "content": secret}]}),
        json.dumps({"id": "f", "text": secret}),
        json.dumps({"id": "g", "messages": [{"role": "user", "content": "\ud800"}, ANSWER]}),
        "[1]",
        json.dumps(ROWS[1]),
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(lines) + "\n")
    counts = files.moderate(moderator, str(source), str(out))
    found = read(out)
    assert counts.rows == len(found) == 10 and counts.bad == 8
    ids = ["r0", "line 2", "b", "c", "d", "e", "f", "g", "line 9", "r1"]
    assert [row["id"] for row in found] == ids
    assert [row["error"] is None for row in found] == [True, *[False] * 8, True]
    assert "has no response" in found[2]["error"] and "no column 'prompt'" in found[6]["error"]
    assert secret not in out.read_text() + str(counts.named)


def test_standard_input_and_output(moderator, tmp_path, monkeypatch, capsys):
    text = "".join(json.dumps(row) + "\n" for row in ROWS).encode() + b'{"prompt": "\xff"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    counts = files.moderate(moderator, "-", None)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert counts.rows == len(found) == 21 and found[20]["error"] == "is not UTF-8"
    assert [row["id"] for row in found[:20]] == [row["id"] for row in ROWS]


def test_a_line_of_standard_input_too_long_for_memory(moderator, monkeypatch):
    line = json.dumps(ROWS[0]).encode() + b"\n"
    monkeypatch.setattr(readers, "LONGEST", len(line))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line + b" " + line)))
    with pytest.raises(BadInput, match="standard input, line 2 is longer than"):
        files.moderate(moderator, "-", None)


def test_conversations_and_other_columns(moderator, tmp_path):
    turns = [
        {"role": "user", "content": ROWS[0]["prompt"]},
        {"role": "assistant", "content": ROWS[0]["response"]},
    ]
    rows = [{"messages": turns}, {"chat": "no"}, {"q": ROWS[0]["prompt"], "a": ROWS[0]["response"]}]
    source = write(tmp_path / "in.jsonl", rows)
    columns = files.COLUMNS | {"prompt": "q", "response": "a"}
    files.moderate(moderator, source, str(tmp_path / "out.jsonl"), columns=columns)
    first, _, third = read(tmp_path / "out.jsonl")
    assert first["probability"] == third["probability"] and first["id"] == "line 1"


def test_other_files_are_refused(moderator, tmp_path):
    with pytest.raises(BadInput, match="is no file that ends in"):
        files.moderate(moderator, str(tmp_path / "none.jsonl"), None)
    source = write(tmp_path / "in.jsonl")
    with pytest.raises(BadInput, match="must end in"):
        files.moderate(moderator, source, str(tmp_path / "out.txt"))
