"""Loads corpora, by name or from a user's file, with TFDS builders and without tensorflow."""

import contextlib
import difflib
import io
import types
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging
from google.protobuf.json_format import ParseError

from ssl_guard.data import readers
from ssl_guard.data.corpora import tfds_features, user_file
from ssl_guard.data.corpora.aegis2 import Aegis2
from ssl_guard.data.corpora.beavertails import BeaverTails
from ssl_guard.data.corpora.do_not_answer import DoNotAnswer
from ssl_guard.data.corpora.harmbench import HarmBench
from ssl_guard.data.corpora.human_scored_responses import HumanScoredResponses
from ssl_guard.data.corpora.jailbreakbench import JailbreakBench
from ssl_guard.data.corpora.jigsaw import JigsawCivilComments, JigsawWikipediaToxicity
from ssl_guard.data.corpora.openai_moderation import OpenAIModeration
from ssl_guard.data.corpora.or_bench import ORBench
from ssl_guard.data.corpora.parse import CLASSES
from ssl_guard.data.corpora.pku_saferlhf import PKUSafeRLHF
from ssl_guard.data.corpora.published import Published
from ssl_guard.data.corpora.reading import COLUMNS, LABELS, PACKAGED, Reading
from ssl_guard.data.corpora.toxicchat import ToxicChat
from ssl_guard.data.corpora.wildguardmix import WildGuardMix
from ssl_guard.data.corpora.xstest import XSTest, XSTestResponse
from ssl_guard.data.schema import TASKS, Corpus, Example, make_corpus
from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import sha256_file

CORPORA: dict[str, type[Published] | type[HumanScoredResponses]] = {
    "human_scored_responses": HumanScoredResponses,
    "wildguardmix": WildGuardMix,
    "aegis2": Aegis2,
    "toxicchat": ToxicChat,
    "openai_moderation": OpenAIModeration,
    "beavertails": BeaverTails,
    "pku_saferlhf": PKUSafeRLHF,
    "xstest": XSTest,
    "xstest_response": XSTestResponse,
    "harmbench": HarmBench,
    "or_bench": ORBench,
    "jailbreakbench": JailbreakBench,
    "do_not_answer": DoNotAnswer,
    "jigsaw_civil_comments": JigsawCivilComments,
    "jigsaw_wikipedia_toxicity": JigsawWikipediaToxicity,
}


def load(
    name: str,
    *,
    task: str,
    data_dir: str | Path,
    how: Reading | None = None,
) -> Corpus:
    """Loads a corpus, which is prepared under `data_dir` at the first use; downloads nothing.

    name: a name in CORPORA, with a split if there are several (wildguardmix:train), or the path of
        a file or folder, which may have settings (see user_file).
    how: to read a file; settings in its name go first.

    Raises BadInput for an unknown name, split or task, for missing or changed files of a published
    corpus, and for any fault of a user's file.
    """
    if task not in TASKS:
        raise BadInput(f"config.data.task = {task!r} must be one of {', '.join(TASKS)}.")
    if user_file.reads(name):
        config = user_file.configure(name, task, how)
        builder = _prepare(user_file.UserFile, data_dir, config)
        return make_corpus(
            config.title, task, _read(builder, "rows"), "unstated", _left_out(builder, "rows")
        )
    corpus, split = resolve(name, task)
    if how is not None and (how.columns != COLUMNS or how.label_map is not LABELS):
        raise BadInput(f"names of columns and label values are for files: unset them for {name}.")
    title = corpus.name if len(corpus.FILES[task]) == 1 else f"{corpus.name}-{split}"
    builder = prepare(corpus, task, data_dir)
    rows, left_out = _read(builder, split), _left_out(builder, split)
    return make_corpus(title, task, rows, corpus.LICENCE, left_out)


def _left_out(builder: tfds.core.DatasetBuilder, split: str) -> dict[str, int]:
    """Returns how many rows of the source are not in a split, by reason, as its metadata says."""
    counts = builder.info.metadata.get(split)
    if not isinstance(counts, dict):
        return {}
    return {reason: n for reason, n in counts.items() if reason not in CLASSES.values()}


def find(name: str) -> type[tfds.core.DatasetBuilder]:
    """Returns the builder of this name. Raises BadInput if there is none."""
    if name not in CORPORA:
        raise BadInput(
            f"{name!r} is neither a corpus nor a file that ends in {', '.join(readers.FORMATS)}, "
            f"nor a folder of such files: {_suggestion(name)}"
        )
    return CORPORA[name]


def _suggestion(name: str) -> str:
    """Suggests a corpus for a name, which may be one of the Hugging Face hub."""
    if Path(name).exists():
        return "convert it to one of these."
    plain = {corpus.replace("_", ""): corpus for corpus in (*CORPORA, *PACKAGED)}
    wanted = "".join(c for c in name.rpartition("/")[2].lower() if c.isalnum())
    near = difflib.get_close_matches(wanted, plain, n=1)
    if near:
        return f"did you mean {plain[near[0]]}?"
    return "see python -m ssl_guard data list, and check the path."


def resolve(name: str, task: str) -> tuple[type[tfds.core.DatasetBuilder], str]:
    """Returns the builder and split of "name" or "name:split". Raises BadInput if there is none."""
    name, _, split = str(name).partition(":")
    corpus = find(name)
    if task not in corpus.FILES:
        tasks = ", ".join(corpus.FILES)
        raise BadInput(f"{name} is labelled for {tasks}: set config.data.task to that.")
    splits = list(corpus.FILES[task])
    if not split and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        choices = ", ".join(f"{name}:{split}" for split in splits)
        raise BadInput(f"{name} has the splits {choices}: name one of these.")
    return corpus, split


def prepare(
    corpus: type[tfds.core.DatasetBuilder], task: str, data_dir: str | Path, **how
) -> tfds.core.DatasetBuilder:
    """Prepares all splits of a corpus for a task, and returns its builder.

    how: progress=True shows TFDS's bars; beam, the module corpora/beam.py, and its `settings` use
    Apache Beam (not for human_scored_responses). Raises BadInput for missing or changed files.
    """
    if not issubclass(corpus, Published):
        return _prepare(corpus, data_dir, **how)
    folder = corpus.folder(data_dir)
    if not prepared(corpus, task, data_dir):
        corpus.files(folder, task)
    builder = _prepare(corpus, data_dir, task, manual_dir=folder, **how)
    for file, sha256 in builder.info.metadata["sha256"].items():
        if (folder / file).exists() and sha256_file(folder / file) != sha256:
            raise BadInput(
                f"{folder / file} is not the file that {corpus.name} was prepared from: put that "
                f"one back, or delete {builder.data_dir} to prepare it again."
            )
    return builder


def prepared(
    corpus: type[tfds.core.DatasetBuilder], task: str, data_dir: str | Path
) -> tfds.core.DatasetBuilder | None:
    """Returns the builder of a corpus if its data is prepared for a task, else None."""
    with _quiet():
        builder = corpus(data_dir=data_dir, config=task if issubclass(corpus, Published) else None)
        return builder if builder.is_prepared() else None


def _prepare(
    builder_class: type[tfds.core.DatasetBuilder],
    data_dir: str | Path,
    config: tfds.core.BuilderConfig | str | None = None,
    *,
    progress: bool = False,
    beam: types.ModuleType | None = None,
    **settings,
) -> tfds.core.DatasetBuilder:
    """settings: arguments of tfds.download.DownloadConfig."""
    with _quiet(progress):
        try:
            builder = builder_class(data_dir=data_dir, config=config)
            builder.beam = beam
            settings = tfds.download.DownloadConfig(**settings)
            # TFDS can write and read array_record without tensorflow.
            builder.download_and_prepare(download_config=settings, file_format="array_record")
        except OSError as error:
            raise BadInput(f"cannot prepare a corpus in {data_dir}: {error.strerror}.") from error
        except (ParseError, UnicodeDecodeError) as error:
            folder = Path(data_dir, builder_class.name, getattr(config, "name", config) or "")
            raise BadInput(_damaged(folder)) from error
    return builder


def _read(builder: tfds.core.DatasetBuilder, split: str) -> list[Example]:
    with _quiet():
        try:
            source = builder.as_data_source(split=split)
            return [
                tfds_features.from_record(row) for row in source.__getitems__(range(len(source)))
            ]
        except Exception as error:  # the readers raise many kinds for a damaged file
            raise BadInput(_damaged(builder.data_dir)) from error


def _damaged(folder: str | Path) -> str:
    return f"the prepared data in {folder} cannot be read: delete that folder and run again."


@contextlib.contextmanager
def _quiet(progress: bool = False):
    """Silences TFDS, which prints lines, shows bars and warns of unknown configs."""
    if progress:
        tfds.enable_progress_bar()
    else:
        tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
