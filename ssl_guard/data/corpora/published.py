"""What the builders of published corpora share: files in a folder in, labelled examples out.

A builder never fetches anything. Its files lie in <data_dir>/manual/<name>/, where OBTAIN says how
to get them, in the publisher's own format and layout; their sha256 is kept in the metadata of the
prepared data. An id is <name>/<file>:<number of the row>, with the publisher's own id, if there is
one, behind it.
"""

import collections
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from ssl_guard.data.corpora import sources, tfds_features
from ssl_guard.data.corpora.user_file import is_unicode, shown
from ssl_guard.data.schema import HARMFUL, SAFE, Example
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import sha256_file

CLASSES = {HARMFUL: "harmful", SAFE: "safe", None: "unlabelled"}  # names of counts


class Item(NamedTuple):
    """What a corpus makes of a row.

    label: HARMFUL, SAFE, None for an unlabelled row, or why the row is left out; key: the
    publisher's id.
    """

    prompt: str | None
    label: int | str | None
    response: str | None = None
    category: str | None = None
    key: str | None = None


def configs(files: Mapping[str, object]) -> list[tfds.core.BuilderConfig]:
    """A TFDS config for each task of a corpus."""
    return [tfds.core.BuilderConfig(name=task, description=f"For {task}.") for task in files]


class Published(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A corpus sets these and BUILDER_CONFIGS = configs(FILES), and says what `parse` does.

    FILES: {task: {split: patterns of files below the folder}}; ROWS: {task: {split: number of rows
    as the publisher states it}}; LICENCE: its SPDX name; OBTAIN: a sentence with "{folder}"; READS:
    the columns that `parse` looks at, needed for Parquet files alone.
    """

    VERSION = tfds.core.Version("1.0.0")
    FILES: Mapping[str, Mapping[str, tuple[str, ...]]]
    ROWS: Mapping[str, Mapping[str, int]]
    LICENCE: str
    HOMEPAGE: str
    CITATION: str
    OBTAIN: str
    READS: tuple[str, ...] = ()
    on_beam = False  # True: TFDS is to run the pipeline of corpora/beam.py

    @classmethod
    def parse(cls, task: str, split: str, row: Mapping) -> Iterator[Item]:
        """The items of a row as its publisher wrote it; a KeyError is an unknown file or label."""
        raise NotImplementedError

    @classmethod
    def folder(cls, data_dir: str | Path) -> Path:
        """Where the files lie."""
        return Path(data_dir, "manual", cls.name)

    @classmethod
    def files(cls, folder: Path, task: str) -> dict[str, list[Path]]:
        """The files of every split. Raises BadInput, with what to do, if one is missing."""
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
            citation=self.CITATION,
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
        if self.on_beam:
            from ssl_guard.data.corpora import beam

            return beam.examples(type(self), task, split, files)
        return self._one_by_one(task, split, files)

    def _process_pipeline_result(self, pipeline_result):
        from ssl_guard.data.corpora import beam

        splits = self.FILES[self.builder_config.name]
        self.info.metadata.update(beam.counts(pipeline_result, list(splits)))

    def _one_by_one(self, task: str, split: str, files: list[tuple[Path, str]]):
        counts = collections.Counter()
        for file in files:
            for found in read(type(self), task, split, *file):
                counts[count_of(found)] += 1
                if isinstance(found, Example):
                    yield found.id, tfds_features.to_record(found)
        self.info.metadata[split] = dict(sorted(counts.items()))


def stem(path: Path, folder: Path) -> str:
    """The file's place below the folder without its suffixes, for ids."""
    return (path.parent.relative_to(folder) / path.name.partition(".")[0]).as_posix()


def count_of(found: Example | str) -> str:
    """The count that an example, or the reason for leaving a row out, goes into."""
    return CLASSES[found.label] if isinstance(found, Example) else found


def read(
    corpus: type[Published], task: str, split: str, path: Path, name: str
) -> Iterator[Example | str]:
    """The examples of one file, and for every row that is left out the reason.

    name: of the file in ids. Raises BadInput for a file whose columns or labels are not known.
    """
    for number, row in enumerate(sources.rows(path, corpus.READS), start=1):
        try:
            items = list(corpus.parse(task, split, row))
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"{path}, row {number}: {shown(str(error.args[0]))} is no column or label that "
                f"{corpus.name} has: is this the file of {corpus.HOMEPAGE}?"
            ) from error
        for part, item in enumerate(items):
            needed = [item.prompt, item.response] if task == "response_harm" else [item.prompt]
            if isinstance(item.label, str):
                yield item.label
            elif not all(isinstance(text, str) and text.strip() for text in needed):
                yield "empty"
            elif not all(map(is_unicode, needed)):
                yield "not text"
            else:
                place = f"{number}.{part}" if len(items) > 1 else f"{number}"
                yield Example(
                    id=f"{corpus.name}/{name}:{place}" + (f":{item.key}" if item.key else ""),
                    prompt=item.prompt,
                    response=item.response if task == "response_harm" else None,
                    label=item.label,
                    category=item.category or None,
                    source=f"{corpus.name}:{split}",
                    licence=corpus.LICENCE,
                )


def first_of(flags: Mapping[str, bool]) -> str | None:
    """The first category whose flag is up."""
    return next((name for name, flag in flags.items() if flag), None)
