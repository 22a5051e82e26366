"""A user's own file: what can be read, and one clear sentence for everything that cannot."""

import csv
import gzip
import io
import json
import lzma
import re

import pyarrow as pa
import pytest
from pyarrow import parquet

from ssl_guard.data import corpora
from ssl_guard.data.corpora import user_file
from ssl_guard.data.corpora.reading import Reading
from ssl_guard.data.schema import Example, is_blank
from ssl_guard.errors import BadInput

SECRET = "a text that no message may show"


def rows_of(path, task="prompt_harm", **options):
    return list(user_file.read(user_file.configure(path, task, Reading(**options))))


def file_of(tmp_path, data, name="rows.jsonl"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def json_lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


ROWS = [
    {"id": "a", "prompt": "Bake a cake", "response": "Yes", "label": 1, "category": "baking"},
    {"id": "b", "prompt": ' Tea,\n\u2028"milk" ✓', "response": "No", "label": 0, "category": ""},
    {"id": "c", "prompt": "Rice", "response": "Perhaps", "label": None},
]


def as_csv(rows):
    lines = [["id", "prompt", "response", "label", "category"]]
    lines += [[row.get(name) for name in lines[0]] for row in rows]
    csv.writer(text := io.StringIO(newline="")).writerows(lines)
    return text.getvalue()


def table_of(rows):
    return pa.Table.from_pylist([{"label": None, "category": None} | row for row in rows])


def written(table, name):
    sink = pa.BufferOutputStream()
    if name.endswith(".parquet"):
        parquet.write_table(table, sink, row_group_size=2)
    else:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    return sink.getvalue().to_pybytes()


def as_parquet(rows):
    return written(table_of(rows), ".parquet")


def as_arrow(rows):
    return written(table_of(rows), ".arrow")


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


LINES, CSV = json_lines(*ROWS), as_csv(ROWS)
TABS = io.StringIO(newline="")
csv.writer(TABS, delimiter="\t").writerows(csv.reader(io.StringIO(CSV, newline="")))
SEMICOLONS = io.StringIO(newline="")
csv.writer(SEMICOLONS, delimiter=";").writerows(csv.reader(io.StringIO(CSV, newline="")))
WIDE = io.StringIO(newline="")  # a spreadsheet's empty columns and rows
csv.writer(WIDE).writerows(
    [*([*row, "", ""] for row in csv.reader(io.StringIO(CSV, newline=""))), [""] * 7]
)
FORMS = {
    "rows.jsonl": json_lines(*ROWS).encode(),
    "rows.jsonl.gz": gzip.compress(json_lines(*ROWS).encode()),
    "rows.json": json.dumps(ROWS, ensure_ascii=False, indent=2).encode(),
    "rows.csv": as_csv(ROWS).encode(),
    "ROWS.CSV": b"\xef\xbb\xbf" + as_csv(ROWS).encode(),  # as Excel saves it
    "crlf.jsonl": json_lines(*ROWS).replace("\n", "\r\n\r\n").encode(),
    "rows.parquet": as_parquet(ROWS),
    "rows.arrow": as_arrow(ROWS),
    "rows.ndjson": LINES.encode(),
    "rows.jsonl.xz": lzma.compress(LINES.encode()),
    "rows.jsonl.zst": zstd(LINES.encode()),
    "rows.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "rows.csv.gz": gzip.compress(CSV.encode()),
    "rows.tsv": TABS.getvalue().encode(),
    # by their first bytes
    "list.jsonl": json.dumps(ROWS).encode(),
    "lines.json": LINES.encode(),
    "gzip.jsonl": gzip.compress(LINES.encode()),
    "plain.jsonl.gz": LINES.encode(),
    "zstd.csv": zstd(CSV.encode()),
    "utf16.csv": CSV.encode("utf-16"),
    "utf16.jsonl": json.dumps(ROWS[0]).encode("utf-16")
    + json_lines({}, *ROWS[1:])[2:].encode("utf-16-le"),
    "utf16-tabs.csv": b"\xfe\xff" + TABS.getvalue().encode("utf-16-be"),  # Excel's "Unicode text"
    # by the header
    "semicolons.csv": SEMICOLONS.getvalue().encode(),
    "wide.csv": WIDE.getvalue().encode(),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(tmp_path, name):
    """Every form gives the same rows, through TFDS, in file order, to the letter."""
    path = file_of(tmp_path, FORMS[name], name)
    corpus = corpora.load(str(path), task="response_harm", data_dir=tmp_path / "data")
    assert corpus.examples == (
        Example("a", "Bake a cake", "Yes", 1, "baking", name, "unstated"),
        Example("b", ' Tea,\n\u2028"milk" ✓', "No", 0, None, name, "unstated"),
        Example("c", "Rice", "Perhaps", None, None, name, "unstated"),
    )
    assert corpus.name == name.split(".")[0].lower()
    assert corpora.load(str(path), task="response_harm", data_dir=tmp_path / "data") == corpus


def test_prompts_only(tmp_path):
    corpus = corpora.load(
        str(file_of(tmp_path, FORMS["rows.csv"], "My rows.v2.csv")),
        task="prompt_harm",
        data_dir=tmp_path / "data",
    )
    assert [example.response for example in corpus.examples] == [None, None, None]
    assert corpus.name == "my_rows_v2"


def test_ids_are_optional(tmp_path):
    path = file_of(tmp_path, '\n{"prompt": "tea"}\n\n{"prompt": "milk"}')
    assert [example.id for example in rows_of(path)] == ["line 2", "line 4"]
    path = file_of(tmp_path, '[{"prompt": "tea"}, {"prompt": "milk", "id": 7}]', "rows.json")
    assert [example.id for example in rows_of(path)] == ["item 1", "7"]
    path = file_of(tmp_path, 'prompt\n"tea\nwith milk"\n\nrice\n', "rows.csv")
    assert [example.id for example in rows_of(path)] == ["line 2", "line 5"]
    path = file_of(tmp_path, "id,prompt\na,tea\n,milk\n", "rows.csv")
    assert [example.id for example in rows_of(path)] == ["a", "line 3"]
    # a column of whole numbers in which pandas has found a missing one
    values = pa.array([7.0, None, float("nan"), 2.0**52])
    table = pa.table({"prompt": ["tea", "milk", "rice", "oats"], "id": values})
    path = file_of(tmp_path, written(table, ".parquet"), "rows.parquet")
    assert [example.id for example in rows_of(path)] == ["7", "row 2", "row 3", str(2**52)]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_rows_of_columns_are_counted_over_batches(tmp_path, name, monkeypatch):
    monkeypatch.setattr(user_file.readers, "BATCH", 2)
    rows = [{"prompt": f"tea {i}", "label": i % 2 == 0} for i in range(7)]
    data = as_parquet(rows) if name == "rows.parquet" else as_arrow(rows)
    found = rows_of(file_of(tmp_path, data, name))
    assert [row.id for row in found] == [f"row {i}" for i in range(1, 8)]
    assert [row.prompt for row in found] == [row["prompt"] for row in rows]
    assert [row.label for row in found] == [1, 0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("name", [name for name in FORMS if name.startswith("rows.")][:6])
def test_a_row_of_ten_megabytes(tmp_path, name):
    rows = [{"id": "a", "prompt": "tea " * 2_500_000, "response": "Yes"}]
    data = {
        "rows.json": lambda: json.dumps(rows),
        "rows.csv": lambda: as_csv(rows),
        "rows.parquet": lambda: as_parquet(rows),
        "rows.arrow": lambda: as_arrow(rows),
        "rows.jsonl.gz": lambda: gzip.compress(json_lines(*rows).encode(), 1),
        "rows.jsonl": lambda: json_lines(*rows),
    }[name]()
    assert [row.prompt for row in rows_of(file_of(tmp_path, data, name))] == [rows[0]["prompt"]]


def saved(folder, *shards):
    """A folder as datasets.save_to_disk leaves it."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(shards):05d}.arrow" for i in range(len(shards))]
    for name, rows in zip(names, shards, strict=True):
        (folder / name).write_bytes(as_arrow(rows))
    files = [{"filename": name} for name in names]
    state = {"_data_files": files, "_fingerprint": "f", "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text('{"features": {}}')
    return folder


def test_a_saved_dataset(tmp_path):
    folder = saved(tmp_path / "My set", ROWS[:2], ROWS[2:])
    corpus = corpora.load(str(folder), task="response_harm", data_dir=tmp_path / "data")
    assert corpus.name == "my_set" and [e.id for e in corpus.examples] == ["a", "b", "c"]
    assert [e.response for e in corpus.examples] == ["Yes", "No", "Perhaps"]
    nameless = [{"prompt": "tea"}], [{"prompt": "milk"}]
    assert [e.id for e in rows_of(saved(tmp_path / "nameless", *nameless))] == [
        "data-00000-of-00002.arrow row 1",
        "data-00001-of-00002.arrow row 1",
    ]


def test_the_splits_of_a_saved_dataset(tmp_path):
    saved(tmp_path / "sets" / "train", ROWS[:2])
    saved(tmp_path / "sets" / "test", ROWS[2:])
    (tmp_path / "sets" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert [e.id for e in rows_of(f"{tmp_path}/sets?split=train")] == ["a", "b"]
    assert [e.id for e in rows_of(f"{tmp_path}/sets?split=test")] == ["c"]
    for name in ("sets", "sets?split=dev"):
        with pytest.raises(BadInput, match=r"has the splits test, train: .*sets\?split=test"):
            rows_of(f"{tmp_path}/{name}")


def test_a_dataset_of_the_hub_as_it_was_downloaded(tmp_path):
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("# A dataset")
    (folder / "dataset_infos.json").write_text("{}")
    (folder / ".rows.jsonl.lock").write_text("")
    for i, rows in enumerate((ROWS[:1], ROWS[1:])):
        (folder / "data" / f"train-0000{i}-of-00002-0ab.parquet").write_bytes(as_parquet(rows))
    assert user_file.reads(folder)
    assert [e.id for e in rows_of(folder)] == ["a", "b", "c"]
    (folder / "test.jsonl").write_text(json_lines({"prompt": "milk"}))
    assert [e.prompt for e in rows_of(f"{folder}?split=test")] == ["milk"]
    (folder / "test.csv").write_text("prompt\nmilk\n")
    with pytest.raises(BadInput, match=r"holds the same rows as \.csv and \.jsonl: name a file"):
        rows_of(f"{folder}?split=test")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("state.json", "{"),
        ("state.json", "[]"),
        ("state.json", '{"_data_files": []}'),
        ("state.json", '{"_data_files": [{"filename": "../rows.arrow"}]}'),
        ("state.json", '{"_data_files": [{"filename": 7}]}'),
        ("dataset_dict.json", '{"splits": ["../train"]}'),
        ("dataset_dict.json", '{"splits": 7}'),
    ],
)
def test_folders_that_save_to_disk_did_not_write(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match="is not what datasets.save_to_disk writes"):
        rows_of(tmp_path)


def test_folders_without_data(tmp_path):
    (tmp_path / "README.md").write_text("# Nothing")
    assert not user_file.reads(tmp_path) and not user_file.reads("human_scored_responses")
    with pytest.raises(BadInput, match="holds no file that ends in .jsonl"):
        rows_of(tmp_path)
    with pytest.raises(BadInput, match="is no folder, so it has no split 'train'"):
        rows_of(f"{file_of(tmp_path, GOOD)}?split=train")


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = file_of(tmp_path, GOOD + GOOD)
    rows = user_file.read(user_file.configure(path, "prompt_harm"))
    next(rows)
    path.write_text(GOOD + GOOD.replace("that", "what"))
    with pytest.raises(BadInput, match="was changed while it was read: run again"):
        list(rows)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_columns_that_are_no_text(tmp_path, name):
    def said(table=None, **arrays):
        with pytest.raises(BadInput) as caught:
            rows_of(file_of(tmp_path, written(table or pa.table(arrays), name), name))
        assert SECRET not in str(caught.value)
        return str(caught.value).removeprefix(f"{tmp_path / name}")

    broken = pa.array([b"tea", b"milk", SECRET.encode() + b"\xff"]).view(pa.string())
    assert said(prompt=broken).startswith(", row 3: 'prompt' is no value of its type, such as text")
    assert said(prompt=pa.array(["tea", f"{SECRET}\0"])).startswith(", row 2: 'prompt' holds a NUL")
    assert said(prompt=pa.array([b"tea"])) == ", row 1: 'prompt' must be text: write it as text."
    assert "row 1: 'prompt' has a turn that is no object" in said(prompt=pa.array([["tea"]]))
    assert said(prompt=pa.array(["tea", None])).startswith(", row 2: 'prompt' is empty")
    assert "row 1: no column 'prompt' (found: 'text')" in said(text=pa.array(["tea"]))
    assert said(prompt=pa.array([], pa.string())) == " has no rows: give it at least one."
    twice = pa.Table.from_arrays([pa.array(["tea"])] * 2, ["prompt", "prompt"])
    if name == "rows.arrow":  # Parquet's writer looks at the values
        places = pa.DictionaryArray.from_arrays(pa.array([0, 7]), pa.array(["tea"]), safe=False)
        assert said(prompt=places).startswith(", row 2: 'prompt' is no value of its type")
    assert said(twice).startswith(" has the same column name twice")


@pytest.mark.parametrize(
    "name", ["rows.parquet", "rows.arrow", "rows.jsonl.gz", "rows.jsonl.xz", "rows.jsonl.zst"]
)
def test_every_beginning_of_a_file_is_refused(tmp_path, name):
    whole = FORMS[name]
    for size in range(0, len(whole), 7):
        with pytest.raises(BadInput, match=f"{re.escape(name)}(, line 1)? (is|cannot|has no rows)"):
            rows_of(file_of(tmp_path, whole[:size], name))


def test_long_fields(tmp_path):
    long = "tea " * 50_000  # more than the csv module's own limit
    assert rows_of(file_of(tmp_path, f"prompt\n{long}\n", "rows.csv"))[0].prompt == long
    assert csv.field_size_limit() == 131_072


def test_a_changed_file_or_setting_is_other_data(tmp_path):
    def load(**options):
        corpus = corpora.load(
            str(path), task="prompt_harm", data_dir=tmp_path / "data", how=Reading(**options)
        )
        return corpus.sha256, [example.label for example in corpus.examples]

    path = file_of(tmp_path, '{"prompt": "tea", "label": 1}')
    first = load()
    assert load(safe=("1",))[1] == [0]
    path.write_text('{"prompt": "tea", "label": 0}')
    assert load()[1] == [0]
    assert load()[0] != first[0]
    path.write_text('{"prompt": "tea", "label": 1}')
    assert load() == first
    assert len(list((tmp_path / "data/user_file").iterdir())) == 3


GOOD = json_lines({"prompt": SECRET})
BAD = {
    "empty file": ("rows.jsonl", "", "has no rows"),
    "blank file": ("rows.jsonl", " \n\n", "has no rows"),
    "empty list": ("rows.json", "[]", "has no rows"),
    "empty json": ("rows.json", "", "has no rows"),
    "empty csv": ("rows.csv", "", "has no rows"),
    "only a header": ("rows.csv", "prompt,label\n", "has no rows"),
    "not JSON": ("rows.jsonl", GOOD + SECRET, "line 2: is not JSON (Expecting value)"),
    "cut JSON": ("rows.jsonl", GOOD + GOOD[:-5], "line 2: is not JSON (Unterminated string"),
    "not JSON on line 3": ("rows.json", f'[\n"{SECRET}",\n?]', "line 3 is not JSON"),
    "one object": ("rows.json", json.dumps({SECRET: 1}, indent=1), "3 of 3 rows cannot be used"),
    "not an object": ("rows.jsonl", GOOD + f'["{SECRET}"]', "line 2: is not a JSON object"),
    "item not an object": ("rows.json", f'["{SECRET}"]', "item 1: is not a JSON object"),
    "deep": ("rows.jsonl", GOOD + "[" * 200_000, "line 2: is JSON too large or deep"),
    "deep list": ("rows.jsonl", "[" * 200_000, "is JSON too large or deep"),
    "long number": ("rows.jsonl", f'{{"prompt": {"1" * 5000}}}', "line 1: is JSON too large"),
    "a key twice": (
        "rows.jsonl",
        GOOD + '{"prompt": "tea", "label": 0, "label": 1}',
        "line 2: has the key 'label' twice: keep one",
    ),
    "a key twice in a list": (
        "rows.json",
        '[{"prompt": "a", "prompt": "b"}]',
        "item 1: has the key",
    ),
    "open quote": ("rows.csv", f'prompt\n"{SECRET}\ntea\n', "is not CSV: unexpected end of data"),
    "ragged": ("rows.csv", f"prompt,label\n{SECRET},1\n{SECRET}\n", "line 3: has 1 columns, but"),
    "column twice": ("rows.csv", f"prompt,prompt\n{SECRET},1\n", "line 1 has the same column"),
    "not UTF-8": ("rows.jsonl", GOOD.encode() + b'{"prompt": "\xff"}', "line 2 is not UTF-8"),
    "UTF-16 without a mark": ("rows.csv", "prompt\ntea".encode("utf-16-le"), "line 1 holds a NUL"),
    "cut UTF-16": ("rows.csv", "prompt\ntea".encode("utf-16")[:-1], "is damaged or of another"),
    "NUL": ("rows.csv", f"prompt\n{SECRET}\n\0", "line 3 holds a NUL byte"),
    "escaped NUL": ("rows.jsonl", '{"prompt": "tea\\u0000"}', "line 1: 'prompt' holds a NUL"),
    "half a pair": ("rows.jsonl", '{"prompt": "tea\\ud800"}', "half a surrogate pair"),
    "cut .gz": ("rows.jsonl.gz", gzip.compress(GOOD.encode())[:-12], "not a whole gzip file"),
    "no prompt": ("rows.jsonl", GOOD + "{}", "line 2: no column 'prompt' (found: nothing)"),
    "another case": (
        "rows.csv",
        "Prompt\ntea\n",
        "name the column that holds it: rows.csv?prompt=Prompt",
    ),
    "prompt elsewhere": (
        "rows.csv",
        f"text,{SECRET}\ntea,1\n",
        "line 2: no column 'prompt' (found: 'text', 31 characters): "
        "name the column that holds it: rows.csv?prompt=COLUMN",
    ),
    "empty prompt": ("rows.csv", 'prompt,label\ntea,1\n" ",1\n', "line 3: 'prompt' is empty"),
    "null prompt": ("rows.jsonl", '{"prompt": null}', "line 1: 'prompt' is empty"),
    "number prompt": ("rows.jsonl", '{"prompt": 7}', "line 1: 'prompt' must be text"),
    "list category": ("rows.jsonl", '{"prompt": "tea", "category": []}', "'category' must be text"),
    "unknown label": (
        "rows.csv",
        f"prompt,label\ntea,{SECRET}\n",
        "line 2: 'label' is 31 characters, but a label is one of harmful, unsafe",
    ),
    "soft label": ("rows.jsonl", '{"prompt": "tea", "label": 0.7}', "'label' is '0.7'"),
    "NaN prompt": ("rows.jsonl", '{"prompt": NaN}', "line 1: 'prompt' is empty"),
    "invisible prompt": ("rows.jsonl", '{"prompt": "\\u200b\\ufeff \\u2060"}', "'prompt' is empty"),
    "list label": ("rows.jsonl", '{"prompt": "tea", "label": [1]}', "'label' is 3 characters"),
    "same id": (
        "rows.csv",
        f"id,prompt\n{SECRET},tea\nb,rice\n{SECRET},milk\n",
        "line 4: the same id as line 2",
    ),
    "half an id": ("rows.jsonl", '{"id": 0.5, "prompt": "tea"}', "'id' must be text"),
    "huge id": ("rows.jsonl", '{"id": 1e300, "prompt": "tea"}', "'id' must be text"),
    "boolean id": ("rows.jsonl", '{"id": true, "prompt": "tea"}', "'id' must be text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path, case):
    name, data, said = BAD[case]
    path = file_of(tmp_path, data, name)
    with pytest.raises(BadInput) as caught:
        corpora.load(str(path), task="prompt_harm", data_dir=tmp_path / "data")
    message = str(caught.value)
    assert said in message
    assert message.startswith(str(path))
    assert SECRET not in message and "\n" not in message and len(message) < 500
    assert not list(tmp_path.rglob("*.array_record*"))


def test_no_response_column(tmp_path):
    path = file_of(tmp_path, "prompt,answer\ntea,milk\n", "rows.csv")
    with pytest.raises(
        BadInput, match=r"no column 'response' \(found: 'prompt', 'answer'\): name "
    ):
        rows_of(path, "response_harm")
    with pytest.raises(BadInput, match="or set config.data.task .* to prompt_harm"):
        rows_of(path, "response_harm")
    path = file_of(tmp_path, '{"prompt": "tea", "response": ""}')
    with pytest.raises(BadInput, match="line 1: 'response' is empty"):
        rows_of(path, "response_harm")


def test_column_that_no_row_has(tmp_path):
    path = file_of(tmp_path, json_lines({"prompt": "tea", "label": 1}))
    with pytest.raises(BadInput, match=r"no column 'is_bad' \(found: .*\?label=COLUMN"):
        rows_of(path, columns={"label": "is_bad"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": {"promt": "text"}}, "no column setting promt: name columns for prompt"),
    ],
)
def test_bad_settings(tmp_path, options, said):
    with pytest.raises(BadInput, match=said):
        rows_of(file_of(tmp_path, GOOD), **options)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(BadInput, match=r"gone\.csv cannot be read: No such file"):
        corpora.load(str(tmp_path / "gone.csv"), task="prompt_harm", data_dir=tmp_path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadInput, match="is neither a corpus .* nor a folder of such files"):
        corpora.load(str(tmp_path / "folder.csv"), task="prompt_harm", data_dir=tmp_path)


BAD_ROWS = [
    {"id": "a", "prompt": SECRET, "label": 1},
    {"id": "b", "prompt": "", "label": 1},
    {"id": "c", "prompt": "\u200b", "label": 1},
    {"id": "d", "prompt": SECRET, "label": "maybe"},
    {"id": "a", "prompt": SECRET, "label": 0},
    {"id": "e", "prompt": SECRET, "label": 0},
]


def test_all_bad_rows_are_counted_and_the_first_are_named(tmp_path):
    path = file_of(tmp_path, json_lines(*BAD_ROWS))
    with pytest.raises(BadInput) as caught:
        rows_of(path)
    message = str(caught.value)
    assert "4 of 6 rows cannot be used (line 2, line 3: 'prompt' is empty; line 4: " in message
    assert "line 5: the same id as line 1)" in message and SECRET not in message
    assert "?bad_rows=skip" in message
    path = file_of(tmp_path, json_lines(*[BAD_ROWS[0]], *[BAD_ROWS[1]] * 12))
    with pytest.raises(
        BadInput, match="12 of 13 rows .*, line 10, line 11: .*; and 2 more"
    ) as caught:
        rows_of(path)
    assert "line 12" not in str(caught.value)


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path):
    path = file_of(tmp_path, json_lines(*BAD_ROWS) + "{\n")
    for name, how in ((path, Reading(bad_rows="skip")), (f"{path}?bad_rows=skip", None)):
        corpus = corpora.load(str(name), task="prompt_harm", data_dir=tmp_path / "data", how=how)
        assert [example.id for example in corpus.examples] == ["a", "e"]
        assert corpus.left_out == {"empty": 2, "not JSON": 1, "same id": 1, "unknown label": 1}
    path.write_text(json_lines(BAD_ROWS[1]))
    with pytest.raises(BadInput, match="line 1: 'prompt' is empty"):  # nothing would be left
        rows_of(path, bad_rows="skip")


def test_texts_without_a_visible_character():
    assert all(map(is_blank, ["", " \n", "\u200b", "\ufeff\u00a0", "\u2800\u3164\ufe0f", "\x00"]))
    assert not any(map(is_blank, ["a", " .", "\u200bé", "🙂\ufe0f", "٣", "\u0301"]))


def test_the_packaged_prompts_with_alarming_words(tmp_path):
    how = Reading(columns={"prompt": "text"}, bad_rows="skip", harmful=("bad",))  # of other files
    for task in ("prompt_harm", "response_harm"):
        corpus = corpora.load("alarming_words", task=task, data_dir=tmp_path, how=how)
        assert corpus.name == "alarming_words" and len(corpus.examples) >= 60
        assert {example.label for example in corpus.examples} == {0}
        for example in corpus.examples:
            assert example.category.split()[0] in f"{example.prompt} {example.response}".lower()
            assert bool(example.response) == (task == "response_harm")
    assert len({example.prompt for example in corpus.examples}) == len(corpus.examples)
