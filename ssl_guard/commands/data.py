"""The corpora that there are, building one, and looking at one.

    python -m ssl_guard data list
    python -m ssl_guard data build NAME [--task=response_harm] [--runner=direct]
    python -m ssl_guard data describe NAME|FILE [--task=...] [--tokenizer=FOLDER] [--plot=FILE.png]

NAME is a corpus of `list`, with a split behind it for describe where there are several, such as
wildguardmix:train; FILE is what config.data.corpus takes. `build` prepares all splits from files
that lie in <dir>/manual/<name>/, and says how to get those that are missing; a run does the same by
itself. `describe` prints class balance, lengths, repeated texts and categories, never a text.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from tabulate import tabulate
from tqdm import tqdm

from ssl_guard.data import corpora, describe
from ssl_guard.data.corpora import CORPORA, Published, human_scored_responses, user_file
from ssl_guard.data.corpora.parse import CLASSES
from ssl_guard.data.schema import TASKS, Corpus, Example, commercial_use, label_map, make_corpus
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.errors import BadInput
from ssl_guard.report import plots
from ssl_guard.runtime import cli

RUNNERS = ("local", "direct", "flink", "spark", "dataflow")
CHUNK = 1024  # rows tokenised at once


def main(argv: list[str]) -> None:
    command, *names = argv[1:] or [""]
    wanted = {"list": 0, "build": 1, "describe": 1}
    if wanted.get(command) != len(names):
        raise BadInput("say one of: list; build NAME; describe NAME|FILE (see --help).")
    if command == "list":
        print(table(DIR.value, status=STATUS.value))
    elif command == "build":
        build(names[0])
    else:
        show(names[0])


def table(data_dir: str | Path, *, status: bool = True) -> str:
    """All corpora: tasks, rows, licence, commercial use, and whether they are prepared.

    Rows are of all splits. Without status they are what the publishers state, and no folder is
    looked at; with it those of prepared corpora are counted and the others have a "~".
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
    """Whether the files of a corpus are where its builder looks for them."""
    try:
        if issubclass(corpus, Published):
            corpus.files(corpus.folder(data_dir), task)
        else:
            human_scored_responses.verified_folder()
    except BadInput:
        return "missing"
    return "source present"


def build(name: str) -> None:
    """Prepares a file, or all splits of a corpus for the task of the flag or for all its tasks."""
    if user_file.reads(name):
        print(f"{name}: {len(load(name).examples)} rows")
        return
    how = {"progress": sys.stderr.isatty()}
    if RUNNER.value != "local":
        try:
            from ssl_guard.data.corpora import beam
        except ImportError as error:
            raise BadInput(
                f"--runner={RUNNER.value} needs Apache Beam: pip install 'ssl_guard[beam]' in an "
                "environment of its own, see requirements/beam.txt."
            ) from error
        how |= {"beam": beam} | beam.settings(RUNNER.value, BEAM_OPTIONS.value)
    corpus = corpora.find(name)
    for task in [TASK.value] if TASK.value else corpus.FILES:
        corpora.resolve(f"{name}:{next(iter(corpus.FILES.get(task, [''])))}", task)
        builder = corpora.prepare(corpus, task, DIR.value, **how)
        counts = {k: v for k, v in builder.info.metadata.items() if k != "sha256"}
        print(f"{builder.data_dir}: {json.dumps(counts)}")


def load(name: str) -> Corpus:
    """The corpus of a file, of a split, or of all splits of a corpus together."""
    labels = label_map(HARMFUL.value, SAFE.value)
    how = {"data_dir": DIR.value, "labels": labels or None}
    how["columns"] = cli.pairs("columns", COLUMNS.value)
    if user_file.reads(name):
        return corpora.load(name, task=TASK.value or "response_harm", **how)
    corpus = corpora.find(name.partition(":")[0])
    task = TASK.value or next(iter(corpus.FILES))
    if ":" in name or task not in corpus.FILES:
        return corpora.load(name, task=task, **how)
    parts = [corpora.load(f"{name}:{split}", task=task, **how) for split in corpus.FILES[task]]
    rows = [example for part in parts for example in part.examples]
    return make_corpus(name, task, rows, corpus.LICENCE)


def show(name: str) -> None:
    """Prints a description and draws it."""
    corpus, progress = load(name), sys.stderr.isatty()
    rows, unit = corpus.examples, "tokens" if TOKENIZER.value else "words"
    lengths = np.array(tokens(rows, progress) if TOKENIZER.value else describe.words(rows))
    found = describe.describe(corpus, lengths, progress=progress)
    path = Path(PLOT.value or Path(DIR.value, "described", f"{corpus.name}.{corpus.task}.png"))
    labels = [CLASSES[example.label] for example in rows]
    plots.corpus(path, corpus.name, labels, lengths, unit, found["categories"])
    print(describe.text(found, unit))
    print(f"\nplot: {path}")


def tokens(examples: Sequence[Example], progress: bool) -> list[int]:
    """How many tokens of the tokenizer of the flag the prompt and response of each have."""
    tokenizer, found = Tokenizer(TOKENIZER.value, max_length=2**31 - 1), []
    for start in tqdm(range(0, len(examples), CHUNK), "tokens", disable=not progress):
        part = examples[start : start + CHUNK]
        ids = tokenizer.ids([e.prompt for e in part], [e.response for e in part])
        found += [len(prompt) + len(response or ()) for prompt, response in ids]
    return found


if __name__ == "__main__":
    DIR = flags.DEFINE_string("dir", "data", "Where prepared corpora are, config.data.dir of runs.")
    TASK = flags.DEFINE_enum("task", None, TASKS, "Of the labels; for a file response_harm.")
    STATUS = flags.DEFINE_bool("status", True, "list looks at what is prepared.")
    COLUMNS = flags.DEFINE_list("columns", [], "Of a file, such as label=is_harmful.")
    HARMFUL = flags.DEFINE_list("harmful_values", [], "Label values of a file: harmful.")
    SAFE = flags.DEFINE_list("safe_values", [], "Label values of a file: safe.")
    TOKENIZER = flags.DEFINE_string("tokenizer", None, "A folder: lengths are in its tokens.")
    PLOT = flags.DEFINE_string("plot", None, "Where describe draws to, a .png.")
    RUNNER = flags.DEFINE_enum("runner", "local", RUNNERS, "Who prepares a corpus.")
    BEAM_OPTIONS = flags.DEFINE_multi_string("beam_options", [], "Options for Beam, one each.")
    cli.run(main)
