"""Beam's DirectRunner makes the bytes that local processes make.

make beam
"""

import pytest

from ssl_guard.augment import beam
from ssl_guard.augment import make as make_lib
from tests.augment.test_sets import EXAMPLES, job_of, make, shards_of

RECIPE = {"ops": ("framing+leetspeak|persona", "tfidf"), "gates": {"overlap": 1.0}}
RECIPE["arguments"] = {"leetspeak": {"p": 0.5}, "tfidf": {"p": 0.5}}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return make(tmp_path_factory.mktemp("local"), **RECIPE)


def on_beam(folder):
    job = job_of(folder, **RECIPE)
    beam.make_shards(job, runner="direct", options=["--direct_num_workers=1"])
    return job, make_lib.finish(job)


def test_shards_are_byte_identical(local, tmp_path):
    job = job_of(tmp_path, **RECIPE)
    make_lib.stage(job, EXAMPLES, fit_on=EXAMPLES)
    job, manifest = on_beam(tmp_path)
    assert shards_of(job.folder) == shards_of(local[0].folder)
    assert manifest["account"] == local[1]["account"]
    assert manifest["shards"] == local[1]["shards"]


def test_beam_goes_on_with_a_set_that_was_begun_locally(local, tmp_path):
    job = job_of(tmp_path, **RECIPE)
    make_lib.stage(job, EXAMPLES, fit_on=EXAMPLES)
    make_lib.make_shard(job, make_lib.open_tools(job), 2)
    kept = (job.partial / job.file(2)).stat().st_mtime_ns
    job, _ = on_beam(tmp_path)
    assert (job.folder / job.file(2)).stat().st_mtime_ns == kept
    assert shards_of(job.folder) == shards_of(local[0].folder)
