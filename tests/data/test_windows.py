import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_guard.data import windows
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import inference, prepare, run_report
from ssl_guard.runtime import sharding
from tests.tiny import smoke

ROOM = 20
sizes = st.integers(0, 70)


def numbered(prompt, response):
    """A prompt of ids 0, 1, ... and a response of ids 1000, 1001, ..."""
    return list(range(prompt)), None if response is None else list(range(1000, 1000 + response))


@settings(max_examples=300, deadline=None)
@given(sizes, st.one_of(st.none(), sizes), st.integers(1, 25))
def test_every_token_is_in_a_window_and_every_window_fits(prompt, response, stride):
    prompt, response = numbered(prompt, response)
    found = windows.cover(prompt, response, ROOM, stride)
    assert all((part is None) == (response is None) for _, part in found)
    assert all(len(first) + len(second or []) <= ROOM for first, second in found)
    assert {i for first, _ in found for i in first} == set(prompt)
    assert {i for _, second in found for i in second or []} == set(response or [])
    for first, second in found:  # pieces of the text as it is
        for part in (first, second or []):
            assert part == list(range(part[0], part[0] + len(part))) if part else True
    if len(prompt) + len(response or []) <= ROOM:
        assert found == [(prompt, response)]
    assert len({(tuple(a), tuple(b or [])) for a, b in found}) == len(found), "no window twice"


def test_what_stays_whole():
    # The response fits: it is in every window, the newest part of the prompt comes first.
    prompt, response = numbered(30, 12)
    found = windows.cover(prompt, response, ROOM, 5)
    assert all(second == response for _, second in found)
    assert found[0][0] == prompt[-8:]
    assert [first[0] for first, _ in found] == [22, 20, 15, 10, 5, 0]
    # A response that leaves 2 of 20 to the prompt is windowed: a quarter is the prompt's.
    prompt, response = numbered(30, 18)
    found = windows.cover(prompt, response, ROOM, 5)
    assert found[0] == (prompt[-5:], response[:15]) and found[1] == (prompt[-5:], response[3:])
    assert all(second == response[:15] for _, second in found[2:])
    # A short prompt stays whole however long the response.
    prompt, response = numbered(3, 40)
    found = windows.cover(prompt, response, ROOM, 10)
    assert [(first, second[0]) for first, second in found] == [
        (prompt, start) for start in (1000, 1010, 1020, 1023)
    ]


def test_spans():
    assert windows.spans(10, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert windows.spans(10, 4, 3) == [(0, 4), (3, 7), (6, 10)]
    assert windows.spans(10, 4, 99) == [(0, 4), (4, 8), (6, 10)], "no gaps"
    assert windows.spans(4, 4, 1) == windows.spans(4, 9, 1) == [(0, 4)]
    assert windows.spans(0, 4, 1) == [(0, 0)]


def test_encoded_windows_are_texts_like_any_other(minilm):
    tokenizer = Tokenizer(minilm, 16)
    prompts = ["one two three", "alpha beta gamma delta " * 10, "one two"]
    responses = [None, None, "yes no maybe " * 10]
    found = windows.encode(tokenizer, prompts, responses, stride=6)
    (short,) = found[0]
    whole = tokenizer.encode(prompts[:1], responses[:1])[0]
    assert short.input_ids.tolist() == whole.input_ids.tolist() and short.second == whole.second
    for parts in found:
        assert all(len(part.input_ids) <= 16 and part.cut == 0 for part in parts)
        assert all(part.input_ids[0] == short.input_ids[0] for part in parts)
    assert all(part.second == len(part.input_ids) for part in found[1])
    assert all(part.second == found[2][0].second < len(part.input_ids) for part in found[2])
    for length, stride in ((16, 0), (6, 1)):
        with pytest.raises(BadInput, match="cannot cover texts"):
            windows.encode(Tokenizer(minilm, length), ["a"], [None], stride=stride)


def test_the_most_harmful_window_counts():
    scores, owner = np.array([0.1, 0.7, 0.3, 0.9, 0.2]), np.array([0, 1, 1, 2, 2])
    assert windows.most_harmful(scores, owner).tolist() == [0.1, 0.7, 0.9]


def test_a_prepared_split_is_scored_in_windows_and_says_so(tmp_path):
    config = smoke(tmp_path, "supervised", **{"eval.stride": 16, "data.max_length": 32})
    config.data.buckets = (32,)
    prepared = prepare.prepare(config, views=())
    dev, counts = prepared.dev, prepared.summary["windows"]
    assert counts == {"dev": dev.counts.sum(), "test": prepared.test.counts.sum()}
    assert counts["dev"] > len(dev) == 20
    cut = np.array([row["cut"] for row in dev.gather(range(len(dev)))])
    np.testing.assert_array_equal(dev.counts > 1, cut > 0)
    assert not any(row["cut"] for row in dev.windows.gather(range(len(dev.windows))))

    def predict_fn(params, batch):  # a made-up score: how harmful the largest id is
        ids = np.asarray(batch["input_ids"])
        return np.stack([0 * ids.max(axis=1), ids.max(axis=1)], axis=1) / 1e5

    how = dict(batch_size=8, buckets=(32,), pad_id=0, mesh=sharding.make_mesh())
    scores = inference.predict(predict_fn, None, dev, **how)
    whole = Tokenizer(prepared.model_folder, 100_000)
    texts = prepared.texts["dev"]
    largest = [
        max(encoded.input_ids)
        for encoded in whole.encode([e.prompt for e in texts], [e.response for e in texts])
    ]
    np.testing.assert_allclose(scores * 1e5, largest, atol=0.01)
    run_report.write_predictions(tmp_path / "p.jsonl", dev, np.arange(20), raw=scores)
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [line["windows"] for line in lines] == dev.counts.tolist()
