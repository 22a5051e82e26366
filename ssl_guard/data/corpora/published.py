"""Base class of the TFDS builders of published corpora.

A builder downloads nothing. It reads <data_dir>/manual/<name>/, in the publisher's format and
layout; OBTAIN is the command that gets the files. Their sha256 are in the metadata of the prepared
data. An id is <name>/<file>:<number of the row>, followed by the publisher's id if there is one.
"""

import collections
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from ssl_guard.data.corpora import parse, tfds_features
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import sha256_file


def configs(files: Mapping[str, object]) -> list[tfds.core.BuilderConfig]:
    """Returns a TFDS config for each task of a corpus."""
    return [tfds.core.BuilderConfig(name=task, description=f"For {task}.") for task in files]


class Published(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Base class. A corpus sets the attributes, BUILDER_CONFIGS = configs(FILES), and `parse`.

    FILES: {task: {split: patterns of files below the folder}}; ROWS: {task: {split: number of rows
    that the publisher states}}; LICENCE: an SPDX name; OBTAIN: a sentence with "{folder}"; READS:
    the columns that `parse` uses, needed for Parquet files only.
    """

    VERSION = tfds.core.Version("1.0.0")
    FILES: Mapping[str, Mapping[str, tuple[str, ...]]]
    ROWS: Mapping[str, Mapping[str, int]]
    name: ClassVar[str]
    LICENCE: ClassVar[str]
    HOMEPAGE: ClassVar[str]
    CITATION: ClassVar[str]  # key in references.bib
    OBTAIN: ClassVar[str]
    READS: ClassVar[tuple[str, ...]] = ()
    beam: types.ModuleType | None = None  # corpora/beam.py, to use Apache Beam

    @classmethod
    def parse(cls, task: str, split: str, row: Mapping) -> Iterator[parse.Item]:
        """Yields the items of a row; a KeyError means an unknown file or label."""
        raise NotImplementedError

    @classmethod
    def folder(cls, data_dir: str | Path) -> Path:
        """Returns the folder of the publisher's files."""
        return Path(data_dir, "manual", cls.name)

    @classmethod
    def files(cls, folder: Path, task: str) -> dict[str, list[Path]]:
        """Lists the files of every split. Raises BadInput, with OBTAIN, if one is missing."""
        found = {
            split: [path for pattern in patterns for path in sorted(folder.glob(pattern))]
            for split, patterns in cls.FILES[task].items()
        }
        missing = [
            pattern
            for patterns in cls.FILES[task].values()
            for pattern in patterns
            if not any(folder.glob(pattern))
        ]
        if missing:
            raise BadInput(
                f"{cls.name} needs {', '.join(missing)} in {folder}, and nothing is downloaded "
                f"for you: {cls.OBTAIN.format(folder=folder)}"
            )
        return found

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds_features.features(),
            homepage=self.HOMEPAGE,
            citation=tfds_features.citation(self.CITATION),
            license=self.LICENCE,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        folder = Path(dl_manager.manual_dir)
        files = self.files(folder, self.builder_config.name)
        self.info.metadata["sha256"] = {
            path.relative_to(folder).as_posix(): sha256_file(path)
            for paths in files.values()
            for path in paths
        }
        return {
            split: self._generate_examples(split, [(path, stem(path, folder)) for path in paths])
            for split, paths in files.items()
        }

    def _generate_examples(self, split: str, files: list[tuple[Path, str]]):
        task = self.builder_config.name
        if self.beam is not None:
            return self.beam.examples(type(self), task, split, files)
        return self._one_by_one(task, split, files)

    def _process_pipeline_result(self, pipeline_result):
        assert self.beam is not None
        splits = self.FILES[self.builder_config.name]
        self.info.metadata.update(self.beam.counts(pipeline_result, list(splits)))

    def _one_by_one(self, task: str, split: str, files: list[tuple[Path, str]]):
        counts = collections.Counter[str]()
        for file in files:
            for found in parse.read(type(self), task, split, *file):
                counts[parse.count_of(found)] += 1
                if isinstance(found, Example):
                    yield found.id, tfds_features.to_record(found)
        self.info.metadata[split] = dict(sorted(counts.items()))


def stem(path: Path, folder: Path) -> str:
    """Returns the file's place below the folder without its suffixes, for ids."""
    return (path.parent.relative_to(folder) / path.name.partition(".")[0]).as_posix()
