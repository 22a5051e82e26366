"""Prepares a published corpus on Apache Beam; the records equal those of a local build.

Needs the extra "beam". One worker reads a whole file, then its rows are reshuffled. Sources and
prepared data must be on a disk that all workers share.
"""

from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.metrics.metric import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from ssl_guard.data.corpora import parse, tfds_features
from ssl_guard.data.schema import Example

RUNNERS = {
    "direct": "DirectRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
}
COUNTS = "ssl_guard.corpora."  # and the split: the namespace of Beam's counters


def settings(runner: str, options: Sequence[str]) -> dict:
    """Arguments of tfds.download.DownloadConfig. runner: a key of RUNNERS; options: of Beam."""
    return {"beam_runner": RUNNERS[runner], "beam_options": PipelineOptions(list(options))}


def examples(
    corpus: parse.Parser, task: str, split: str, files: list[tuple[Path, str]]
) -> beam.PTransform:
    """Builds the transform that TFDS runs: (id, record) of every example of a split."""
    return (
        beam.Create([(str(path), name) for path, name in files])
        | "spread files" >> beam.Reshuffle()
        | "read" >> beam.FlatMap(_records, corpus, task, split)
        | "spread rows" >> beam.Reshuffle()
    )


def _records(file: tuple[str, str], corpus: parse.Parser, task: str, split: str):
    path, name = file
    for found in parse.read(corpus, task, split, Path(path), name):
        Metrics.counter(COUNTS + split, parse.count_of(found)).inc()
        if isinstance(found, Example):
            yield found.id, tfds_features.to_record(found)


def counts(result, splits: Sequence[str]) -> dict[str, dict[str, int]]:
    """Returns the counts of every split, from the result of the pipeline."""
    return {
        split: {
            counter.key.metric.name: counter.result
            for counter in result.metrics().query(MetricsFilter().with_namespace(COUNTS + split))[
                "counters"
            ]
        }
        for split in splits
    }
