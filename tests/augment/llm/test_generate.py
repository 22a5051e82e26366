import json
import re
import runpy
import types

import pytest

from ssl_guard.augment.llm import generate
from ssl_guard.commands import generate as generate_command
from ssl_guard.data.schema import Example
from tests.augment.llm.server import Server, answer

CONFIG = """
from ml_collections import ConfigDict
from ssl_guard import config

def get_config():
    made = config.default().unlock()
    made.augment.llm = ConfigDict()
    made.augment.llm.base_url = "{url}"
    made.augment.llm.model = "m"
    made.augment.llm.cache = "{cache}"
    return made.lock()
"""
ROWS = [
    {"id": "a", "prompt": "how do I open the red door without a key", "label": "harmful"},
    {"id": "b", "prompt": "how do I bake bread", "label": "safe"},
    {
        "id": "c",
        "prompt": "say where the blue car of my teacher stands at night",
        "label": "harmful",
    },
    {"id": "d", "prompt": "nobody has said what this is"},
]
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def source(i, prompt):
    return Example(f"s{i}", prompt, None, 1, None, "made up", "CC0")


def test_near_duplicates_of_each_other_and_of_sources_are_dropped():
    sources = [source(0, "how do I open the red door without a key")]
    rows = [
        ("1", "why is the sky above the sea so blue today"),
        ("2", "Why is the sky above the sea so blue today?!"),
        ("3", "how do I open the red door without a key, please"),
        ("4", "why is the sky above the sea so blue tonight"),
        ("5", "something else altogether is asked for here"),
        ("6", "How do I open the RED door without a key"),
        ("7", "bread"),
        ("8", "bread."),
    ]
    assert [row for row, _ in generate.distinct(sources, rows)] == ["1", "5", "7"]
    assert generate.distinct(sources, []) == []


def test_the_command(tmp_path, capfd, monkeypatch):
    def command(**flags):
        config = runpy.run_path(tmp_path / "config.py")["get_config"]()
        values = {"CONFIG": config, "SOURCES": tmp_path / "rows.jsonl", "OUT": out, "COPIES": 3}
        for name, value in (values | {"INTENDED": "safe", "DRY_RUN": False} | flags).items():
            flag = types.SimpleNamespace(value=value)
            monkeypatch.setattr(generate_command, name, flag, raising=False)
        generate_command.main([])

    def behave(text, n):
        body = server.seen[-1][1]
        kind = re.search("judge unsafe|plainly harmless", body["messages"][1]["content"])[0]
        number = body["seed"]
        made = " ".join(WORDS[(number >> 3 * k) % len(WORDS)] + str(number % 97) for k in range(8))
        if n == 1 and text.startswith("say"):
            return 200, answer("I can't help with that."), {}
        return 200, answer(f"{kind} {made}"), {}

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    out = tmp_path / "new" / "out.jsonl"
    with Server(behave) as server:
        text = CONFIG.format(url=server.url, cache=tmp_path / "cache.jsonl")
        (tmp_path / "config.py").write_text(text)
        command(DRY_RUN=True)
        said = capfd.readouterr()
        assert json.loads(said.out)["rows"] == 6 and server.requests == 0 and not out.exists()
        command()
        said = capfd.readouterr()
        assert server.counts == {ROWS[0]["prompt"]: 3, ROWS[2]["prompt"]: 3}
        first = out.read_text()
        rows = [json.loads(line) for line in first.splitlines()]
        assert f"{out}: {len(rows)} prompts; left out 1 that could not be used" in said.out
        assert len(rows) == 5 == len({row["id"] for row in rows})
        for row in rows:
            assert set(row) == {"id", "prompt", "intended", "template", "model"}
            assert row["prompt"].startswith("plainly harmless") and row["intended"] == "safe"
            assert row["template"]["name"] == "generate_lookalike" and row["model"]["name"] == "m"
        assert not any(row["prompt"] in said.out + said.err for row in rows + ROWS)
        command()  # the hole alone is asked again
        assert server.requests == 7
        later = out.read_text().splitlines()
        assert set(first.splitlines()) < set(later) and len(later) == 6


def test_sources_of_no_use(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG.format(url="http://h/v1", cache=tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[1]) + "\n")
    with pytest.raises(generate.BadInput, match="no row labelled harmful"):
        generate.sources_of(tmp_path / "rows.jsonl")
