"""A user's own file: what can be read, and one clear sentence for everything that cannot."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_guard.data import corpora
from ssl_guard.data.corpora import user_file
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput

SECRET = "a text that no message may show"


def rows_of(path, task="prompt_harm", **options):
    return list(user_file.read(user_file.configure(path, task, **options)))


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


FORMS = {
    "rows.jsonl": json_lines(*ROWS).encode(),
    "rows.jsonl.gz": gzip.compress(json_lines(*ROWS).encode()),
    "rows.json": json.dumps(ROWS, ensure_ascii=False, indent=2).encode(),
    "rows.csv": as_csv(ROWS).encode(),
    "ROWS.CSV": b"\xef\xbb\xbf" + as_csv(ROWS).encode(),  # as Excel saves it
    "crlf.jsonl": json_lines(*ROWS).replace("\n", "\r\n\r\n").encode(),
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


def test_labels(tmp_path):
    values = [
        1,
        0,
        "1",
        "0",
        1.0,
        True,
        False,
        " Unsafe ",
        "SAFE",
        "harmful",
        "unharmful",
        "",
        None,
    ]
    path = file_of(tmp_path, json_lines(*({"prompt": "tea", "label": value} for value in values)))
    labels = [example.label for example in rows_of(path)]
    assert labels == [1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, None, None]


def test_own_columns_and_labels(tmp_path):
    path = file_of(tmp_path, "text,is_bad,label\ntea,Ja,x\nmilk,nein,x\n", "rows.csv")
    rows = rows_of(path, columns={"prompt": "text", "label": "is_bad"}, labels={"JA": 1, "nein": 0})
    assert [(row.prompt, row.label) for row in rows] == [("tea", 1), ("milk", 0)]


def test_long_fields(tmp_path):
    long = "tea " * 50_000  # more than the csv module's own limit
    assert rows_of(file_of(tmp_path, f"prompt\n{long}\n", "rows.csv"))[0].prompt == long
    assert csv.field_size_limit() == 131_072


def test_a_changed_file_or_setting_is_other_data(tmp_path):
    def load(**options):
        corpus = corpora.load(str(path), task="prompt_harm", data_dir=tmp_path / "data", **options)
        return corpus.sha256, [example.label for example in corpus.examples]

    path = file_of(tmp_path, '{"prompt": "tea", "label": 1}')
    first = load()
    assert load(labels={"1": 0})[1] == [0]
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
    "not JSON": ("rows.jsonl", GOOD + SECRET, "line 2 is not JSON: Expecting value"),
    "cut JSON": ("rows.jsonl", GOOD + GOOD[:-5], "line 2 is not JSON: Unterminated string"),
    "not JSON on line 3": ("rows.json", f'[\n"{SECRET}",\n?]', "line 3 is not JSON"),
    "not a list": ("rows.json", GOOD, "must hold one JSON list"),
    "not an object": ("rows.jsonl", GOOD + f'["{SECRET}"]', "line 2 must be a JSON object"),
    "item not an object": ("rows.json", f'["{SECRET}"]', "item 1 must be a JSON object"),
    "deep": ("rows.jsonl", GOOD + "[" * 200_000, "line 2 is JSON too large or deep"),
    "long number": ("rows.jsonl", f'{{"prompt": {"1" * 5000}}}', "line 1 is JSON too large"),
    "open quote": ("rows.csv", f'prompt\n"{SECRET}\ntea\n', "is not CSV: unexpected end of data"),
    "ragged": ("rows.csv", f"prompt,label\n{SECRET},1\n{SECRET}\n", "line 3 has 1 columns, but"),
    "column twice": ("rows.csv", f"prompt,prompt\n{SECRET},1\n", "line 1 has the same column"),
    "not UTF-8": ("rows.jsonl", GOOD.encode() + b'{"prompt": "\xff"}', "line 2 is not UTF-8"),
    "UTF-16": ("rows.csv", "prompt\ntea".encode("utf-16"), "line 1 holds a NUL byte"),
    "NUL": ("rows.csv", f"prompt\n{SECRET}\n\0", "line 3 holds a NUL byte"),
    "escaped NUL": ("rows.jsonl", '{"prompt": "tea\\u0000"}', "line 1: 'prompt' holds a NUL"),
    "half a pair": ("rows.jsonl", '{"prompt": "tea\\ud800"}', "half a surrogate pair"),
    "plain .gz": ("rows.jsonl.gz", GOOD, "is not a whole gzip file"),
    "cut .gz": ("rows.jsonl.gz", gzip.compress(GOOD.encode())[:-12], "not a whole gzip file"),
    "no prompt": ("rows.jsonl", GOOD + "{}", "line 2 has no column 'prompt' (found: nothing)"),
    "prompt elsewhere": (
        "rows.csv",
        f"text,{SECRET}\ntea,1\n",
        "line 2 has no column 'prompt' (found: 'text', 31 characters): "
        "set config.data.columns.prompt",
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
    "NaN label": ("rows.jsonl", '{"prompt": "tea", "label": NaN}', "'label' is 'nan'"),
    "list label": ("rows.jsonl", '{"prompt": "tea", "label": [1]}', "'label' is 3 characters"),
    "same id": (
        "rows.csv",
        f"id,prompt\n{SECRET},tea\nb,rice\n{SECRET},milk\n",
        "line 4 has the same id as line 2",
    ),
    "empty id": ("rows.csv", "id,prompt\na,tea\n,milk\n", "line 3: 'id' is empty"),
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
    with pytest.raises(BadInput, match=r"no column 'response' \(found: 'prompt', 'answer'\): set "):
        rows_of(path, "response_harm")
    path = file_of(tmp_path, '{"prompt": "tea", "response": ""}')
    with pytest.raises(BadInput, match="line 1: 'response' is empty"):
        rows_of(path, "response_harm")


def test_column_that_no_row_has(tmp_path):
    path = file_of(tmp_path, json_lines({"prompt": "tea", "label": 1}))
    with pytest.raises(BadInput, match=r"has no column 'is_bad' \(found: .*columns\.label"):
        rows_of(path, columns={"label": "is_bad"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": {"promt": "text"}}, "config.data.columns has promt, but only prompt"),
        ({"labels": {"bad": 2}}, "must be 1 .harmful. or 0 .safe."),
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


FRAGMENTS = [
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"\r", b"\\", b"\\u0000", b"\\ud800", b" "),
    *(b'"prompt"', b'"label"', b'"id"', b'{"prompt": "tea", "label": 1}\n', b'{"prompt": "', b"\0"),
    *(b"prompt,label\n", b"id,prompt\n", b"prompt\n", b"tea", b"1", b"true", b"null", b"NaN"),
    *(b"\xff", b"\xef\xbb\xbf", "é\u2028✓".encode(), b"1e999", b"-0"),
]


@st.composite
def damaged_files(draw):
    """A good file with up to three pieces overwritten, inserted or removed."""
    name = draw(st.sampled_from(["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.csv"]))
    data = FORMS["rows.jsonl" if name.endswith(".gz") else name]
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.sampled_from([0, 0, 1, 3, 40]))
        piece = draw(st.sampled_from([b"", *FRAGMENTS]) | st.binary(max_size=4))
        data = data[:start] + piece + data[end:]
    zipped = name.endswith(".gz") and draw(st.integers(0, 3)) > 0
    return name, gzip.compress(data) if zipped else data


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    named=damaged_files(),
    task=st.sampled_from(["prompt_harm", "response_harm"]),
)
def test_any_bytes_give_rows_or_bad_input(tmp_path, named, task):
    name, data = named
    try:
        rows = rows_of(file_of(tmp_path, data, name), task)
    except BadInput:
        return
    assert rows and len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert row.prompt.strip() and row.label in (0, 1, None)
        row.prompt.encode()
