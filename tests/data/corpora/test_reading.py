"""How the rows of a file are read: labels, columns, and settings behind a name."""

from decimal import Decimal

import pyarrow as pa
import pytest

from ssl_guard.data import corpora
from ssl_guard.data.corpora import user_file
from ssl_guard.data.corpora.reading import Reading, names_in, says_harm
from ssl_guard.errors import BadInput
from tests.data.corpora.test_user_file import GOOD, file_of, json_lines, rows_of, written


def test_labels(tmp_path):
    values = [
        1,
        0,
        "1",
        "0",
        1.0,
        True,
        "1.0",
        " 0.00",
        "TRUE",
        float("nan"),
        "NaN",
        "None",
        "<NA>",
        "null",
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
    one_and_zero = [1, 0, 1, 0, 1, 1]
    assert labels == [*one_and_zero, 1, 0, 1, *[None] * 5, 0, 1, 0, 1, 0, None, None]


def test_labels_of_a_data_frame(tmp_path):
    for values in (
        pa.array([1.0, 0.0, None, float("nan")]),
        pa.array([Decimal("1.00"), Decimal("0.00"), None, None]),
        pa.array([True, False, None, None]),
        pa.array(["1.0", "0.0", "nan", "None"]),
    ):
        table = pa.table({"prompt": ["tea", "milk", "rice", "oats"], "label": values})
        path = file_of(tmp_path, written(table, ".parquet"), "rows.parquet")
        assert [example.label for example in rows_of(path)] == [1, 0, None, None]


def test_words_for_unknown(tmp_path):
    path = file_of(tmp_path, "prompt,label\ntea,1\nmilk,-1\nrice,Unclear\n", "rows.csv")
    for name, options in (
        (path, {"unknown": ("-1", "unclear")}),
        (f"{path}?unknown=-1|unclear", {}),
        (path, {"unknown": (-1.0, "UNCLEAR ")}),
    ):
        assert [example.label for example in rows_of(name, **options)] == [1, None, None]


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"harmful_from": 0.5}, [1, 1, 0, 0, None]),
        ({"harmful_from": 1.0}, [1, 0, 0, 0, None]),
        ({"safe_from": 0.5}, [0, 0, 1, 1, None]),
    ],
)
def test_probabilities_with_a_cut(tmp_path, options, labels):
    values = [1, "0.5", 0.25, "0.0", None]
    rows = [{"prompt": "tea", "p": value} for value in values]
    path = file_of(tmp_path, json_lines(*rows))
    how = Reading(columns={"label": "p"}, **options)
    assert [
        e.label for e in user_file.read(user_file.configure(path, "prompt_harm", how))
    ] == labels
    ((name, cut),) = options.items()
    assert [example.label for example in rows_of(f"{path}?label=p&{name}={cut}")] == labels
    assert sorted(how.label_map.values()) == [0, 1]
    for value in (1.5, -0.1, "high"):
        path.write_text(json_lines({"prompt": "tea", "p": 0.2}, {"prompt": "milk", "p": value}))
        with pytest.raises(BadInput, match="line 2: 'p' is .*, which is no probability"):
            rows_of(path, columns={"label": "p"}, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"harmful_from": 0.5, "safe_from": 0.5}, "one cut"),
        ({"harmful_from": 0.5, "harmful": ("bad",)}, "one kind"),
        ({"harmful_from": 1.5}, "harmful_from or safe_from is 1.5"),
        ({"harmful": ("bad",), "safe": ("ok", "BAD ")}, "'bad' is given two meanings"),
        ({"harmful": ("1.0",), "unknown": (1,)}, "'1' is given two meanings"),
        ({"conversation": "first"}, "use last or whole"),
        ({"bad_rows": "drop"}, "use refuse or skip"),
    ],
)
def test_settings_that_contradict_each_other(options, said):
    with pytest.raises(BadInput, match=said):
        Reading(**options)


HARM_NAMES = "label is_harmful toxic Toxicity isUnsafe prompt_harm_label hate_speech NSFW labels"
OTHER_NAMES = (
    "is_safe safe verdict not_toxic nonToxic harmless unharmful safety_label y ok safe_harm"
)


def test_names_of_columns_in_which_true_means_harmful():
    assert all(map(says_harm, HARM_NAMES.split()))
    assert not any(map(says_harm, OTHER_NAMES.split()))


@pytest.mark.parametrize("column", ["is_safe", "acceptable"])
@pytest.mark.parametrize("value", [True, "false", 1, "0.0"])
def test_a_truth_value_is_not_taken_on_trust(tmp_path, column, value):
    path = file_of(tmp_path, json_lines({"prompt": "tea", column: value}))
    with pytest.raises(BadInput, match=f"'{column}' is .*, which may mean harmful or safe: state"):
        rows_of(f"{path}?label={column}")
    with pytest.raises(BadInput, match="may mean harmful or safe"):
        rows_of(path, columns={"label": column})
    (row,) = rows_of(f"{path}?label={column}&harmful=false|0&safe=true|1")
    assert row.label == (value in ("false", "0.0"))
    path.write_text(
        json_lines({"prompt": "tea", column: "unsafe"})
    )  # this word is no matter of trust
    assert rows_of(f"{path}?label={column}")[0].label == 1


def test_own_columns_and_labels(tmp_path):
    path = file_of(tmp_path, "text,is_bad,label\ntea,Ja,x\nmilk,nein,x\n", "rows.csv")
    columns = {"prompt": "text", "label": "is_bad"}
    rows = rows_of(path, columns=columns, harmful=("JA",), safe=("nein",))
    assert [(row.prompt, row.label) for row in rows] == [("tea", 1), ("milk", 0)]


def test_what_a_file_says_behind_its_name_goes_first(tmp_path):
    path = file_of(tmp_path, "text,toxic,label\ntea,2,1\nmilk,none,1\nrice,1,0\n", "rows.csv")
    name = f"{path}?prompt=text&label=toxic&harmful=2|1&safe=none"
    assert user_file.reads(name)
    rows = rows_of(name, columns={"prompt": "other", "category": "label"}, safe=("2",))
    assert [(r.prompt, r.label, r.category) for r in rows] == [
        ("tea", 1, "1"), ("milk", 0, "1"), ("rice", 1, "0")
    ]  # fmt: skip
    corpus = corpora.load(name, task="prompt_harm", data_dir=tmp_path / "data")
    assert corpus.name == "rows" and [e.label for e in corpus.examples] == [1, 0, 1]
    assert user_file.side_columns(f"{path}?id=text", ["toxic"], Reading()) == {
        "toxic": {"tea": "2", "milk": "none", "rice": "1"}
    }


@pytest.mark.parametrize("settings", ["promt=text", "prompt", "prompt=", "prompt=text&x=1"])
def test_settings_that_are_none(tmp_path, settings):
    with pytest.raises(BadInput, match="is not a setting of a file; the settings are prompt"):
        rows_of(f"{file_of(tmp_path, GOOD)}?{settings}")
    with pytest.raises(BadInput, match="'label' is given twice"):
        rows_of(f"{file_of(tmp_path, GOOD)}?label=a&label=b")


def test_a_name_may_hold_a_question_mark_or_a_comma(tmp_path):
    odd = tmp_path / "tea?, or milk?.csv"
    odd.write_text("text\ntea\n")
    (tmp_path / "b.csv").write_text("prompt\nmilk\n")
    assert rows_of(f"{odd}?prompt=text")[0].prompt == "tea"
    (tmp_path / "tea.csv?prompt=text").write_text("")  # not of a readable kind, but it is there
    assert user_file.reads(odd) and not user_file.reads(tmp_path / "tea.csv?prompt=text")
    listed = f"{odd}?prompt=text, {tmp_path}/b.csv,{odd},gone.csv?label=a,wildguardmix:train,"
    names = [f"{odd}?prompt=text", f"{tmp_path}/b.csv", str(odd)]
    assert names_in(listed) == [*names, "gone.csv?label=a", "wildguardmix:train"]
    assert names_in("") == []
