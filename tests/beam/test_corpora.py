"""Beam's DirectRunner prepares the records that a local build prepares, with the same counts.

make beam
"""

import pytest

from ssl_guard.data import corpora
from ssl_guard.data.corpora import CORPORA, beam
from tests.data.corpora import made_up


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("wildguardmix", "response_harm"),
        ("pku_saferlhf", "response_harm"),  # three files a split, two examples a row
    ],
)
def test_the_same_records(name, task, tmp_path):
    corpus, found = CORPORA[name], {}
    for where in ("local", "beam"):
        data_dir = tmp_path / where
        made_up.write(corpus, data_dir / "manual" / name)
        how = {}
        if where == "beam":
            how = {"beam": beam} | beam.settings("direct", ["--direct_num_workers=1"])
        builder = corpora.prepare(corpus, task, data_dir, **how)
        rows = {
            split: corpora.load(f"{name}:{split}", task=task, data_dir=data_dir).examples
            for split in corpus.FILES[task]
        }
        found[where] = rows, dict(builder.info.metadata)
    assert found["beam"] == found["local"] and all(found["local"][0].values())
