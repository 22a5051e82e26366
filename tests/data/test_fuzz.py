"""Damaged and odd files: either the rows that another reading finds, or one sentence without text.

Every text that is written holds SECRET, and no message may.
"""

import csv
import gzip
import io
import json
import math
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ssl_guard.data import shards as shards_module
from ssl_guard.data import splits, tfrecord_io
from ssl_guard.data.corpora import user_file
from ssl_guard.data.schema import Example, is_blank, make_corpus
from ssl_guard.errors import BadInput

SECRET = "zqsecret"
COLUMNS = ["id", "prompt", "response", "label", "category"]


def fuzz(cases):
    return settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def outcome(call):
    """Returns the corpus that is read, or None if reading ends in a proper error."""
    try:
        return call()
    except BadInput as error:
        said = str(error)
        assert SECRET not in said, "a message shows the text of a row"
        assert "\n" not in said and len(said) < 600, "a message is one sentence"
        return None


# values that rows are made of


texts = st.one_of(
    st.sampled_from(["", " ", "tea", 'Yes,\n\u2028 "no"', "é✓", "\u00a0", "0", "null", "\ufeff"]),
    st.text(alphabet="ab \n\r\t\",\\'é\u2028", max_size=6),
)
secret_texts = texts.map(lambda text: f"{SECRET} {text}" if text.strip() else text)
labels = st.sampled_from([1, 0, None, "harmful", "safe", "", "unsafe", "true", 7, f"{SECRET} x"])


@st.composite
def tables(draw):
    """Rows as dicts of COLUMNS, of str, int or None."""
    rows = draw(st.integers(0, 4))
    ids = draw(st.permutations(["a", "b", "c", "d", 7])) if draw(st.booleans()) else None
    found = []
    for i in range(rows):
        row = {
            "prompt": draw(secret_texts | st.just(f"{SECRET} words")),
            "response": draw(secret_texts),
            "label": draw(labels),
            "category": draw(st.sampled_from(["baking", "", None])),
        }
        found.append(row | ({} if ids is None else {"id": ids[i]}))
    if rows and draw(st.integers(0, 9)) == 0:
        found[-1] |= draw(
            st.sampled_from([{"id": "a"}, {"id": None}, {"prompt": None}, {"label": "\0"}])
        )
    return found


def expected(rows, place, task):
    """The examples of rows that another reader found; None if they are no good."""
    words = {"harmful": 1, "unsafe": 1, "true": 1, "1": 1,
             "unharmful": 0, "safe": 0, "false": 0, "0": 0,
             "": None, "nan": None, "none": None, "null": None, "<na>": None}  # fmt: skip
    found = {}
    for number, row in rows:
        row = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        label = row.get("label")
        if isinstance(label, float) and math.isfinite(label) and label == int(label):
            label = int(label)
        label = "" if label is None else str(label).strip().lower()
        id_value, category = (
            str(v) if isinstance(v, int) and not isinstance(v, bool) else v
            for v in (row.get("id"), row.get("category"))
        )
        parts = [row.get("prompt"), row.get("response") if task == "response_harm" else "x"]
        more = [category, id_value]
        if "prompt" not in row or (task == "response_harm" and "response" not in row):
            return None
        if any(not isinstance(t, str | None) for t in parts + more) or label not in words:
            return None
        bad = [
            t
            for t in parts + more
            if t and ("\0" in t or any("\ud800" <= c <= "\udfff" for c in t))
        ]
        if bad or any(t is None or is_blank(t) for t in parts):
            return None
        own_id = id_value if id_value and id_value.strip() else f"{place} {number}"
        if own_id in found:
            return None
        found[own_id] = (
            own_id,
            row["prompt"],
            row["response"] if task == "response_harm" else None,
            words[label],
            category if category and category.strip() else None,
        )
    return list(found.values()) or None


def read(path, task):
    def rows():
        found = list(user_file.read(user_file.configure(path, task)))
        return [(e.id, e.prompt, e.response, e.label, e.category) for e in found]

    return outcome(rows)


tasks = st.sampled_from(["prompt_harm", "response_harm"])


# whole files in every format


def rows_of_json_lines(data):
    lines = data.decode().split("\n")
    return [(n, json.loads(line)) for n, line in enumerate(lines, 1) if line.strip()]


def as_csv(rows):
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    header = [name for name in COLUMNS if any(name in row for row in rows)] or ["prompt"]
    writer.writerow(header)
    writer.writerows([["" if row.get(n) is None else row[n] for n in header] for row in rows])
    return text.getvalue().encode()


@fuzz(1200)
@given(rows=tables(), task=tasks, name=st.sampled_from(["r.jsonl", "r.jsonl.gz", "r.json"]))
def test_json(tmp_path, rows, task, name):
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    data = json.dumps(rows).encode() if name == "r.json" else lines
    path = tmp_path / name
    path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    if name == "r.json":
        found, place = list(enumerate(json.loads(data), 1)), "item"
    else:
        found, place = rows_of_json_lines(data), "line"
    assert read(path, task) == expected(found, place, task)


@fuzz(700)
@given(rows=tables(), task=tasks)
def test_csv(tmp_path, rows, task):
    path = tmp_path / "r.csv"
    path.write_bytes(as_csv(rows))
    with path.open(newline="", encoding="utf-8") as file:
        whole = [row for row in csv.DictReader(file) if any(row.values())]
    mine, theirs = read(path, task), expected(list(enumerate(whole)), "line", task)
    # Places are lines of the file: compare all but these.
    named = lambda rows: rows and [(("" if r[0][:5] == "line " else r[0]), *r[1:]) for r in rows]  # noqa: E731
    assert named(mine) == named(theirs)


def arrow_table(rows, kind):
    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    if not any("id" in row for row in rows):
        del columns["id"]
    arrays = {}
    for name, values in columns.items():
        whole = [None if v is None else str(v) for v in values]
        array = pa.array(whole, pa.large_string() if kind == 1 else pa.string())
        arrays[name] = array.dictionary_encode() if kind == 2 else array
    return pa.table(arrays)


def write_arrow(path, table, batch=2):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=batch)


@fuzz(700)
@given(
    rows=tables(),
    task=tasks,
    kind=st.integers(0, 2),
    name=st.sampled_from(["r.parquet", "r.arrow"]),
)
def test_parquet_and_arrow(tmp_path_factory, rows, task, kind, name):
    table, path = arrow_table(rows, kind), tmp_path_factory.getbasetemp() / name
    if name == "r.parquet":
        parquet.write_table(table, path, row_group_size=2)
    else:
        write_arrow(path, table)
    found = list(enumerate(table.to_pylist(), 1))
    assert read(path, task) == expected(found, "row", task)


# damaged files

GOOD = [
    {"id": "a", "prompt": f"{SECRET} cake", "response": f"{SECRET} Yes", "label": 1},
    {"id": "b", "prompt": f"{SECRET} tea\n✓", "response": f"{SECRET} No", "label": 0},
    {"id": "c", "prompt": f"{SECRET} rice", "response": f"{SECRET} Perhaps", "label": None},
]


def good_bytes(name):
    if name.startswith("r.jsonl"):
        data = "\n".join(json.dumps(row) for row in GOOD).encode()
        return gzip.compress(data, mtime=0) if name.endswith(".gz") else data
    if name == "r.json":
        return json.dumps(GOOD, indent=1).encode()
    if name == "r.csv":
        return as_csv(GOOD)
    sink, table = pa.BufferOutputStream(), arrow_table(GOOD, 0)
    if name == "r.parquet":
        parquet.write_table(table, sink, compression="none")
    else:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    return sink.getvalue().to_pybytes()


NAMES = ["r.jsonl", "r.jsonl.gz", "r.json", "r.csv", "r.parquet", "r.arrow"]
FILES = {name: good_bytes(name) for name in NAMES}
PIECES = [
    *(b"", b"{", b"}", b"[", b'"', b",", b"\n", b"\r", b"\\ud800", b"\0", b"\xff", b"\xef\xbb\xbf"),
    *(b'"prompt"', b"\xff\xff\xff\x7f", b"1e999", b"NaN", b'{"prompt": "zqsecret"}\n'),
]


@st.composite
def damaged(draw, data):
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.sampled_from([0, 1, 3, 40, len(data)]))
        data = data[:start] + draw(st.sampled_from(PIECES) | st.binary(max_size=3)) + data[end:]
    return data


@fuzz(1500)
@given(data=st.data(), task=tasks, name=st.sampled_from(NAMES))
def test_damaged_files(tmp_path, data, task, name):
    content = data.draw(damaged(FILES[name]))
    path = tmp_path / name
    path.write_bytes(content)
    found = read(path, task)
    if found is not None:
        assert found and len({row[0] for row in found}) == len(found)
        assert all(row[1].strip() and row[3] in (0, 1, None) for row in found)
    if name == "r.jsonl" and found is not None and not content.lstrip().startswith(b"["):
        rows = rows_of_json_lines(content.removeprefix(b"\xef\xbb\xbf"))
        assert found == expected(rows, "line", task)


# frozen splits


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    rows = [(f"{SECRET} dish{i} of{i} the{i} day", i % 2) for i in range(24)]
    examples = [Example(f"r{i}", p, None, label, None, "", "") for i, (p, label) in enumerate(rows)]
    corpus = make_corpus("kitchen", "prompt_harm", examples, "")
    split = splits.make_split(corpus, splits.SplitSpec(seed=0, labelled=4, dev=4, test=4))
    path = splits.freeze(split, tmp_path_factory.mktemp("splits"))
    return corpus, split, path.read_bytes()


@fuzz(500)
@given(data=st.data())
def test_split_files(tmp_path, frozen, data):
    corpus, split, good = frozen
    path = tmp_path / "split.json"
    path.write_bytes(data.draw(damaged(good)))
    found = outcome(lambda: splits.read_split(path, corpus))
    assert found is None or found == split


# shards


ROWS = [
    {"id": f"{SECRET}{i}", "input_ids": np.arange(i + 2, dtype=np.int32), "second": 0, "cut": 0,
     "label": i % 2, "index": i, "copy": 0}
    for i in range(5)
]  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "dev"
    shards_module.write_shards(folder, "dev", ROWS, num_shards=2, made_from={"corpus": "c"})
    return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


def same_records(records):
    rows = records.gather(range(len(records)))
    assert len(rows) == len(ROWS)
    for mine, theirs in zip(rows, ROWS, strict=True):
        assert mine["input_ids"].tolist() == theirs["input_ids"].tolist()
        assert {**mine, "input_ids": 0} == {**theirs, "input_ids": 0}
    return rows


@fuzz(300)
@given(data=st.data())
def test_a_damaged_view(shards, data):
    """Checks that a change in any file gives the same records or an error."""
    folder, good = shards
    name = data.draw(st.sampled_from(sorted(set(good) - {"features.json", "dataset_info.json"})))
    path = folder / name
    path.write_bytes(data.draw(damaged(good[name])))
    try:
        outcome(
            lambda: same_records(
                shards_module.open_shards(folder, "dev", made_from={"corpus": "c"}, rebuild="it")
            )
        )
    finally:
        path.write_bytes(good[name])


MESSAGES = [tfrecord_io.serialise({"id": f"{SECRET}{i}".encode(), "copy": i}) for i in range(3)]
FRAMED = b"".join(map(tfrecord_io.frame, MESSAGES))


def reference_frames(data):
    """The messages of a TFRecord file as its format says, up to the first fault; is it whole?"""

    def fits(part, crc):
        value = google_crc32c.value(part)
        return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF == crc

    found = []
    while data:
        if len(data) < 12 or not fits(data[:8], struct.unpack("<I", data[8:12])[0]):
            return found, False
        size = struct.unpack("<Q", data[:8])[0]
        body, data = data[12 : 12 + size], data[12 + size :]
        if len(body) < size or len(data) < 4 or not fits(body, struct.unpack("<I", data[:4])[0]):
            return found, False
        found, data = [*found, body], data[4:]
    return found, True


@fuzz(500)
@given(data=st.data())
def test_tfrecord_framing(tmp_path, data):
    content = data.draw(damaged(FRAMED) | st.integers(0, len(FRAMED)).map(lambda n: FRAMED[:n]))
    path = Path(tmp_path, "x.tfrecord")
    path.write_bytes(content)
    messages, whole = reference_frames(content)
    found = outcome(lambda: list(tfrecord_io.read(path)))
    assert found == ([tfrecord_io.parse(message) for message in messages] if whole else None)
