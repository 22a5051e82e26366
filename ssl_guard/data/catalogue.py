"""Lists the corpora, and loads one by name."""

import collections
import functools
from pathlib import Path

from tabulate import tabulate

from ssl_guard.data import corpora
from ssl_guard.data.corpora import CORPORA, Published, human_scored_responses, user_file
from ssl_guard.data.corpora.reading import Reading
from ssl_guard.data.schema import Corpus, commercial_use, make_corpus
from ssl_guard.errors import BadInput


def table(data_dir: str | Path, *, status: bool = True) -> str:
    """Lists all corpora: tasks, rows, licence, commercial use, and whether they are prepared.

    Without status, the rows are those that the publishers state and no folder is read. With it,
    rows of prepared corpora are counted and others are marked with "~".
    """
    rows = []
    for name, corpus in CORPORA.items():
        for task, splits in corpus.FILES.items():
            stated = corpus.ROWS[task]
            size = f"{sum(stated.values()):,}" if set(stated) == set(splits) else ""
            row = {"name": name, "task": task, "splits": ", ".join(splits), "rows": size}
            row["licence"] = corpus.LICENCE
            row["commercial use"] = "yes" if commercial_use(corpus.LICENCE) else "no"
            if status:
                builder = corpora.prepared(corpus, task, data_dir)
                if builder:
                    row["rows"] = f"{builder.info.splits.total_num_examples:,}"
                elif size:
                    row["rows"] = f"~{size}"
                row["status"] = "prepared" if builder else source_status(corpus, task, data_dir)
            rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", colalign=("left",) * 3 + ("right",))


def source_status(corpus, task: str, data_dir: str | Path) -> str:
    """Tells whether the files of a corpus are where its builder looks for them."""
    try:
        if issubclass(corpus, Published):
            corpus.files(corpus.folder(data_dir), task)
        else:
            human_scored_responses.verified_folder()
    except BadInput:
        return "missing"
    return "source present"


def load(
    name: str,
    *,
    task: str | None,
    data_dir: str | Path,
    how: Reading | None = None,
) -> Corpus:
    """Loads a file, a split such as "wildguardmix:train", or all splits of a corpus together.

    task: of the labels; None is response_harm for a file, the first one of a corpus. how: to read
    a file.
    """
    read = functools.partial(corpora.load, data_dir=data_dir, how=how)
    if user_file.reads(name):
        return read(name, task=task or "response_harm")
    corpus = corpora.find(name.partition(":")[0])
    task = task or next(iter(corpus.FILES))
    if ":" in name or task not in corpus.FILES:
        return read(name, task=task)
    parts = [read(f"{name}:{split}", task=task) for split in corpus.FILES[task]]
    rows = [example for part in parts for example in part.examples]
    left_out = sum((collections.Counter(part.left_out) for part in parts), collections.Counter())
    return make_corpus(name, task, rows, corpus.LICENCE, left_out)
