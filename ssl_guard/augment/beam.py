"""A set made on Apache Beam: one element a shard, byte for byte the shards of local processes.

Needs the extra "beam". Every worker reads the staged pool and writes its shards in the folder of
the job, so that folder has to be on a disk that all workers share (NFS, a mounted bucket).
"""

from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from ssl_guard.augment import sets
from ssl_guard.augment.sets import Job
from ssl_guard.data.corpora.beam import RUNNERS


class MakeShard(beam.DoFn):
    """A shard's number in, the number of the finished shard out."""

    def __init__(self, job: Job):
        self._job = job

    def setup(self):
        """Fits the operations and opens the gates, once for each worker process."""
        self._tools = sets.open_tools(self._job)

    def process(self, shard):
        """Makes one shard."""
        sets.make_shard(self._job, self._tools, shard)
        yield shard


def make_shards(job: Job, *, runner: str, options: Sequence[str]) -> None:
    """Makes the shards of a staged job that are missing.

    runner: a key of RUNNERS; options: Beam's own command-line options, such as --region=...
    """
    missing = [shard for shard in range(job.shards) if sets.finished(job, shard) is None]
    settings = PipelineOptions(list(options), runner=RUNNERS[runner], save_main_session=False)
    with beam.Pipeline(options=settings) as pipeline:
        (
            pipeline
            | "shards" >> beam.Create(missing)
            | "spread" >> beam.Reshuffle()
            | "make" >> beam.ParDo(MakeShard(job))
        )
