"""Corpora by name or from a file of anybody's rows: TFDS builders, without tensorflow."""

import contextlib
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging
from google.protobuf.json_format import ParseError

from ssl_guard.data.corpora import formats, records, user_file
from ssl_guard.data.corpora.human_scored_responses import HumanScoredResponses
from ssl_guard.data.schema import TASKS, Corpus, Example, make_corpus
from ssl_guard.errors import BadInput

CORPORA = {  # name: (builder, tasks that its labels are for, licence)
    "human_scored_responses": (HumanScoredResponses, ("response_harm",), "MIT"),
}


def load(
    name: str,
    *,
    task: str,
    data_dir: str | Path,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, int] | None = None,
) -> Corpus:
    """The corpus of this name, prepared under `data_dir` at the first use; nothing is downloaded.

    name: a name in CORPORA, or the path of a file or folder, with or without settings of its own
        (see user_file), after which the corpus is named
    columns, labels: how to read a file, see user_file.configure

    Raises BadInput for an unknown name or task, and for any fault of the file.
    """
    if task not in TASKS:
        raise BadInput(f"config.data.task = {task!r} must be one of {', '.join(TASKS)}.")
    if user_file.reads(name):
        config = user_file.configure(name, task, columns, labels)
        examples = _prepare_and_read(user_file.UserFile, data_dir, config)
        return make_corpus(config.title, task, examples, "unstated")
    if name not in CORPORA:
        raise BadInput(
            f"config.data.corpus = {name!r} is neither a corpus ({', '.join(CORPORA)}) nor a file "
            f"that ends in {', '.join(formats.SUFFIXES)}, nor a folder of such files."
        )
    if labels or dict(columns or {}).items() - user_file.COLUMNS.items():
        raise BadInput(
            f"config.data.columns and label values are for files: unset them for {name}."
        )
    builder, tasks, licence = CORPORA[name]
    if task not in tasks:
        raise BadInput(f"{name} is labelled for {', '.join(tasks)}: set config.data.task to that.")
    return make_corpus(name, task, _prepare_and_read(builder, data_dir), licence)


def with_test(corpus: Corpus, test: Corpus) -> tuple[Corpus, frozenset[str]]:
    """One corpus of both, and the ids of the test rows: those of `test` that have a label.

    Raises BadInput for an id that is in both, and for a test corpus without both classes.
    """
    rows = tuple(example for example in test.examples if example.label is not None)
    ids = frozenset(example.id for example in rows)
    if len({example.label for example in rows}) < 2:
        raise BadInput(
            f"config.data.test_corpus: {test.name} needs harmful and safe rows: check its labels."
        )
    shared = sorted(ids & {example.id for example in corpus.examples})
    if shared:
        raise BadInput(
            f"{corpus.name} and the test corpus {test.name} share {len(shared)} ids, such as "
            f"{shared[0]}: a test row must be in no other corpus, and ids unique."
        )
    licence = " and ".join(sorted({corpus.licence, test.licence}))
    name = f"{corpus.name}-{test.name}"
    return make_corpus(name, corpus.task, corpus.examples + rows, licence), ids


def with_unlabelled(corpus: Corpus, extra: Corpus) -> Corpus:
    """One corpus of both, in which no row of `extra` has a label: more text for the pool.

    Labels that `extra` has may follow another policy, so they are no diagnostics either. Raises
    BadInput for an id that is in both.
    """
    shared = {e.id for e in corpus.examples} & {e.id for e in extra.examples}
    if shared:
        raise BadInput(
            f"{corpus.name} and the unlabelled corpus {extra.name} share {len(shared)} ids, such "
            f"as {min(shared)}: make them unique."
        )
    rows = tuple(dataclasses.replace(e, label=None, category=None) for e in extra.examples)
    licence = " and ".join(sorted({corpus.licence, extra.licence}))
    name = f"{corpus.name}-{extra.name}"
    return make_corpus(name, corpus.task, corpus.examples + rows, licence)


def with_prompts(corpus: Corpus, prompts: Corpus) -> Corpus:
    """One corpus for both tasks: rows of `corpus`, pairs, and of `prompts`, prompts alone.

    A row's task is told by whether it has a response. Raises BadInput for pairs that are none, and
    for an id that is in both.
    """
    if any(example.response is None for example in corpus.examples):
        raise BadInput(
            f"config.data.prompt_corpus is given, but {corpus.name} has rows without a response: "
            "set config.data.task = response_harm."
        )
    shared = {e.id for e in corpus.examples} & {e.id for e in prompts.examples}
    if shared:
        raise BadInput(
            f"{corpus.name} and the prompt corpus {prompts.name} share {len(shared)} ids, such as "
            f"{min(shared)}: make them unique."
        )
    licence = " and ".join(sorted({corpus.licence, prompts.licence}))
    rows = corpus.examples + prompts.examples
    return make_corpus(f"{corpus.name}-{prompts.name}", "both", rows, licence)


def _prepare_and_read(
    builder_class: type[tfds.core.DatasetBuilder],
    data_dir: str | Path,
    config: tfds.core.BuilderConfig | None = None,
) -> list[Example]:
    folder = Path(data_dir, builder_class.name, config.name if config else "")
    damaged = f"the prepared data in {folder} cannot be read: delete that folder and run again."
    with _quiet():
        try:
            builder = builder_class(data_dir=data_dir, config=config)
            # array_record, because TFDS can write and read it without tensorflow
            builder.download_and_prepare(file_format="array_record")
        except OSError as error:
            raise BadInput(f"cannot prepare a corpus in {data_dir}: {error.strerror}.") from error
        except (ParseError, UnicodeDecodeError) as error:
            raise BadInput(damaged) from error
        try:
            source = builder.as_data_source(split="rows")
            return [records.from_record(row) for row in source.__getitems__(range(len(source)))]
        except Exception as error:  # the readers raise many kinds for a damaged file
            raise BadInput(damaged) from error


@contextlib.contextmanager
def _quiet():
    """TFDS prints two lines, shows bars, and warns of every config that it does not know."""
    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
