"""Conversations in rows of files."""

import csv
import io
import json

import pyarrow as pa
import pytest

from ssl_guard.errors import BadInput
from tests.data.corpora.test_user_file import SECRET, file_of, json_lines, rows_of, written

OPENAI = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Tea?"},
    {"role": "assistant", "content": "Milk."},
    {"role": "user", "content": [{"type": "text", "text": "Rice?"}]},
    {"role": "assistant", "content": "Oats."},
]
ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
WORDS = ["Be brief.", "Tea?", "Milk.", "Rice?", "Oats."]
SHAREGPT = [
    {"from": ROLES[turn["role"]], "value": words} for turn, words in zip(OPENAI, WORDS, strict=True)
]
FRAMED = "System: Be brief.\nUser: Tea?\nAssistant: Milk.\nUser: Rice?"
CHATS = {
    "openai.jsonl": {"messages": OPENAI},
    "sharegpt.jsonl": {"conversations": SHAREGPT},
    "prompt.jsonl": {"prompt": OPENAI},
    "before.jsonl": {"prompt": OPENAI[:-1], "response": "Oats."},
    "both.jsonl": {"prompt": None, "response": None, "messages": OPENAI},
    "text.csv": {"messages": json.dumps(OPENAI)},
    "table.parquet": {"conversations": SHAREGPT},
}


@pytest.mark.parametrize("mode", ["last", "whole"])
@pytest.mark.parametrize("task", ["prompt_harm", "response_harm"])
@pytest.mark.parametrize("name", CHATS)
def test_conversations(tmp_path, name, task, mode):
    row = CHATS[name] | {"label": 1, "id": "a"}
    data = json_lines(row)
    if name.endswith(".csv"):
        csv.DictWriter(text := io.StringIO(newline=""), list(row)).writerows(
            [{k: k for k in row}, row]
        )
        data = text.getvalue()
    if name.endswith(".parquet"):
        data = written(pa.Table.from_pylist([row]), name)
    (found,) = rows_of(file_of(tmp_path, data, name), task, conversation=mode)
    assert found.prompt == ("Rice?" if mode == "last" else FRAMED)
    assert found.response == ("Oats." if task == "response_harm" else None) and found.label == 1


@pytest.mark.parametrize("mode", ["last", "whole"])
def test_a_conversation_of_one_turn_is_a_prompt(tmp_path, mode):
    path = file_of(
        tmp_path, json_lines({"messages": OPENAI[1:3]}, {"prompt": "Tea?", "response": "Milk."})
    )
    first, second = rows_of(path, "response_harm", conversation=mode)
    assert (first.prompt, first.response) == (second.prompt, second.response) == ("Tea?", "Milk.")


def test_turns_of_one_role_are_one_turn(tmp_path):
    turns = [
        {"role": "user", "content": "Tea?"},
        {"role": "user", "content": " "},
        {"role": "user", "content": "Rice?"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "Milk."},
        {"role": "assistant", "content": "Oats."},
    ]
    (row,) = rows_of(file_of(tmp_path, json_lines({"messages": turns})), "response_harm")
    assert (row.prompt, row.response) == ("Tea?\n\nRice?", "Milk.\n\nOats.")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": OPENAI[:-1]}, "'messages' ends without an answer"),
        ({"messages": OPENAI[:1]}, "has no turn of the user"),
        ({"messages": SECRET}, "is no list of turns"),
        ({"messages": [SECRET]}, "a turn that is no object"),
        ({"messages": [{"role": SECRET, "content": "a"}]}, "another role than user"),
        ({"messages": [{"role": "user"}]}, "a turn without content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "is no text"),
        ({"prompt": OPENAI, "response": SECRET}, "ends with an answer, and 'response' is another"),
        ({"conversations": []}, "no column 'prompt'"),
        ({"messages": [{"role": "user", "content": "a\0"}, *OPENAI]}, "holds a NUL"),
    ],
)
def test_conversations_that_cannot_be_used(tmp_path, row, said):
    with pytest.raises(BadInput, match=said) as caught:
        rows_of(file_of(tmp_path, json_lines(row)), "response_harm")
    assert SECRET not in str(caught.value)
