"""Assembles the rows of a run: its corpora joined into one, and their split."""

import collections
import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_guard.data import contamination, corpora, splits
from ssl_guard.data.corpora import user_file
from ssl_guard.data.corpora.reading import Reading
from ssl_guard.data.schema import Corpus, Example, make_corpus
from ssl_guard.errors import BadInput, given_as

PLACE = re.compile(r"(line|item|row) \d+")  # id of a row that has none in its file


class Source(NamedTuple):
    """The corpus, its frozen split, the examples of every side, and the hashes of both.

    origins: {id: place in CorporaSpec.pool of the corpus that the row is from}, without the rows of
    a test corpus. other_tests: the rows of CorporaSpec.other_tests.
    """

    corpus: Corpus
    split: splits.Split
    rows: dict[str, list[Example]]
    hashes: dict[str, str]
    origins: dict[str, int]
    other_tests: list[Example]


class CorporaSpec(NamedTuple):
    """Names of a run's corpora, and how to read them.

    corpus: the labelled corpus. prompts, unlabelled, test: further ones, see `with_prompts`,
    `with_unlabelled` and `with_test`. other_tests: test sets whose near-duplicates are left out of
    the unlabelled rows. task, data_dir, how: see `corpora.load`.
    """

    corpus: str
    task: str
    data_dir: Path
    how: Reading
    prompts: str = ""
    unlabelled: Sequence[str] = ()
    test: str = ""
    other_tests: Sequence[str] = ()

    @property
    def pool(self) -> tuple[str, ...]:
        """The corpora that the unlabelled rows may be from."""
        return (self.corpus, *self.unlabelled)

    def load(self, name: str, key: str, task: str = "") -> Corpus:
        """Loads one corpus or file; key: the flag or config key that names it, for errors."""
        with given_as(key):
            return corpora.load(name, task=task or self.task, data_dir=self.data_dir, how=self.how)

    def load_prompts(self, name: str, key: str) -> Corpus:
        """Loads one corpus or file for its prompts, of any task; key: as above."""
        if user_file.reads(name):
            return self.load(name, key, "prompt_harm")
        with given_as(key):
            tasks = corpora.find(name.partition(":")[0]).FILES
            task = self.task if self.task in tasks else next(iter(tasks))
            return corpora.load(name, task=task, data_dir=self.data_dir)


def read_split(spec: CorporaSpec, split_spec: splits.SplitSpec) -> Source:
    """Loads the corpora of a run, joins them, and draws or reads the split.

    Raises BadInput for corpora that cannot be read, do not fit together or are named twice.
    """
    for names, key in ((spec.pool, "unlabelled_corpus"), (spec.other_tests, "other_tests")):
        if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
            raise BadInput(
                f"config.data.{key} names {twice[0]}, which is already a corpus of the run: name "
                "each corpus once."
            )
    joined, given_test = spec.load(spec.corpus, "config.data.corpus"), frozenset[str]()
    if spec.prompts:
        joined = with_prompts(
            joined, spec.load(spec.prompts, "config.data.prompt_corpus", "prompt_harm")
        )
    origins = dict.fromkeys((example.id for example in joined.examples), 0)
    for number, name in enumerate(spec.unlabelled, 1):
        before = len(joined.examples)
        joined = with_unlabelled(joined, spec.load(name, "config.data.unlabelled_corpus"))
        origins |= dict.fromkeys((example.id for example in joined.examples[before:]), number)
    if spec.test:
        joined, given_test = with_test(joined, spec.load(spec.test, "config.data.test_corpus"))
    others = [spec.load_prompts(name, "config.data.other_tests") for name in spec.other_tests]
    other_tests = [example for other in others for example in other.examples]
    near_others = frozenset[str]()
    if others:
        digest = hashlib.sha256("".join(sorted(other.sha256 for other in others)).encode())
        split_spec = dataclasses.replace(split_spec, other_tests=digest.hexdigest()[:8])
        near = contamination.near(joined.examples, other_tests)
        near_others = frozenset(
            e.id for e, is_near in zip(joined.examples, near, strict=True) if is_near
        )
    folder = spec.data_dir / "splits"
    split = splits.load_or_freeze(
        joined, folder, split_spec, given_test=given_test, near_others=near_others
    )
    by_id = {example.id: example for example in joined.examples}
    sides = [side for side in splits.SIDES if side in (*split_spec.sizes, "unlabelled")]
    rows = {side: [by_id[i] for i in getattr(split, side)] for side in sides}
    hashes = {"corpus_sha256": joined.sha256, "split_sha256": splits.content_sha256(split)}
    return Source(joined, split, rows, hashes, origins, other_tests)


def with_prompts(corpus: Corpus, prompts: Corpus) -> Corpus:
    """Joins pairs of prompt and response with prompts alone, for a model of both tasks.

    A row's task follows from whether it has a response. Raises BadInput for pairs without a
    response, and for shared ids.
    """
    if any(example.response is None for example in corpus.examples):
        raise BadInput(
            f"config.data.prompt_corpus is given, but {corpus.name} has rows without a response: "
            "set config.data.task = response_harm."
        )
    return _join(corpus, prompts, prompts.examples, "prompt", task="both")


def with_unlabelled(corpus: Corpus, extra: Corpus) -> Corpus:
    """Joins a corpus with more rows for the unlabelled pool.

    Labels of `extra` may follow another policy, so they are dropped. Raises BadInput for shared
    ids.
    """
    rows = [dataclasses.replace(e, label=None, category=None) for e in extra.examples]
    return _join(corpus, extra, rows, "unlabelled")


def with_test(corpus: Corpus, test: Corpus) -> tuple[Corpus, frozenset[str]]:
    """Joins a corpus with the labelled rows of a test corpus; returns also the ids of these.

    Raises BadInput for shared ids, and for a test corpus without both classes.
    """
    rows = [example for example in test.examples if example.label is not None]
    if len({example.label for example in rows}) < 2:
        raise BadInput(
            f"config.data.test_corpus: {test.name} needs harmful and safe rows: check its labels."
        )
    joined = _join(corpus, test, rows, "test")
    return joined, frozenset(example.id for example in joined.examples[len(corpus.examples) :])


def _join(
    corpus: Corpus, more: Corpus, rows: Sequence[Example], kind: str, task: str = ""
) -> Corpus:
    """Makes one corpus of `corpus` and rows of `more`.

    Ids of rows that have none in their file ("line 7") get the corpus's name as prefix where
    `corpus` has the same id.
    """
    taken = {example.id for example in corpus.examples}
    rows = [
        dataclasses.replace(example, id=f"{more.name} {example.id}")
        if example.id in taken and PLACE.fullmatch(example.id)
        else example
        for example in rows
    ]
    if shared := taken & {example.id for example in rows}:
        raise BadInput(
            f"{corpus.name} and the {kind} corpus {more.name} share {len(shared)} ids, such as "
            f"{min(shared)}: make them unique."
        )
    licence = " and ".join(sorted({corpus.licence, more.licence}))
    name = f"{corpus.name}-{more.name}"
    left_out = collections.Counter(corpus.left_out) + collections.Counter(more.left_out)
    return make_corpus(name, task or corpus.task, (*corpus.examples, *rows), licence, left_out)
