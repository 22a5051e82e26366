"""Makes the shards of an augmentation set on Apache Beam, one element per shard.

The shards are byte-identical to those of local processes. Needs the extra "beam". Workers read the
staged pool and write shards in the job's folder, so that folder must be on a disk that all share
(NFS, a mounted bucket).
"""

from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from ssl_guard.augment import make
from ssl_guard.augment.job import Job
from ssl_guard.data.corpora.beam import RUNNERS


class MakeShard(beam.DoFn):
    """Takes a shard's number, makes the shard and returns the number."""

    def __init__(self, job: Job):
        self._job = job

    def setup(self):
        """Fits the operations and opens the gates, once per worker process."""
        self._tools = make.open_tools(self._job)

    def process(self, shard):
        """Makes one shard."""
        make.make_shard(self._job, self._tools, shard)
        yield shard


def make_shards(job: Job, *, runner: str, options: Sequence[str]) -> None:
    """Makes the missing shards of a staged job.

    runner: a key of RUNNERS. options: Beam's command-line options, such as --region=...
    """
    settings = PipelineOptions(list(options), runner=RUNNERS[runner], save_main_session=False)
    with beam.Pipeline(options=settings) as pipeline:
        (
            pipeline
            | "shards" >> beam.Create(make.missing_shards(job))
            | "spread" >> beam.Reshuffle()
            | "make" >> beam.ParDo(MakeShard(job))
        )
