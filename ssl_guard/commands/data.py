"""Lists, builds and describes corpora.

    python -m ssl_guard data list
    python -m ssl_guard data build NAME [--task=response_harm] [--runner=direct]
    python -m ssl_guard data describe NAME|FILE [--task=...] [--tokenizer=FOLDER] [--plot=FILE.png]

NAME is a corpus of `list`; describe takes a split of it too, such as wildguardmix:train. FILE is
what config.data.corpus takes, with settings after its name: rows.csv?label=toxic&bad_rows=skip.
`build` prepares all splits from files in <dir>/manual/<name>/, and says how to get those that are
missing; a run does the same by itself. `describe` prints class balance, lengths, repeated texts and
categories, never a text.
"""

import json
import sys
from pathlib import Path

from absl import flags

from ssl_guard.data.schema import TASKS, left_out_notes
from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli


def main(argv: list[str]) -> None:
    command, *names = argv[1:] or [""]
    wanted = {"list": 0, "build": 1, "describe": 1}
    if wanted.get(command) != len(names):
        raise BadInput("give one of: list; build NAME; describe NAME|FILE (see --help).")
    if command == "list":
        from ssl_guard.data import catalogue

        print(catalogue.table(DIR.value, status=STATUS.value))
    elif command == "build":
        build(names[0])
    else:
        show(names[0])


def build(name: str) -> None:
    """Prepares a file, or all splits of a corpus for the task of --task or for all its tasks."""
    from ssl_guard.data import catalogue, corpora
    from ssl_guard.data.corpora import user_file

    if user_file.reads(name):
        loaded = catalogue.load(name, **_how())
        print(f"{name}: {len(loaded.examples)} rows", *left_out_notes(loaded.left_out), sep="\n")
        return
    how = {"progress": sys.stderr.isatty()}
    if RUNNER.value != "local":
        try:
            from ssl_guard.data.corpora import beam
        except ImportError as error:
            raise BadInput(cli.NO_BEAM.format(runner=RUNNER.value)) from error
        how |= {"beam": beam} | beam.settings(RUNNER.value, BEAM_OPTIONS.value)
    corpus = corpora.find(name)
    for task in [TASK.value] if TASK.value else corpus.FILES:
        corpora.resolve(f"{name}:{next(iter(corpus.FILES.get(task, [''])))}", task)
        builder = corpora.prepare(corpus, task, DIR.value, **how)
        counts = {k: v for k, v in builder.info.metadata.items() if k != "sha256"}
        print(f"{builder.data_dir}: {json.dumps(counts)}")


def show(name: str) -> None:
    """Prints the description of a corpus and draws it."""
    import numpy as np

    from ssl_guard.data import catalogue, describe
    from ssl_guard.data.corpora.parse import CLASSES
    from ssl_guard.report import plots

    corpus, progress = catalogue.load(name, **_how()), sys.stderr.isatty()
    rows, unit = corpus.examples, "words"
    if TOKENIZER.value:
        lengths, unit = describe.count_tokens(TOKENIZER.value, rows, progress), "tokens"
    else:
        lengths = describe.words(rows)
    found = describe.describe(corpus, np.array(lengths), progress=progress)
    path = Path(PLOT.value or Path(DIR.value, "described", f"{corpus.name}.{corpus.task}.png"))
    labels = [CLASSES[example.label] for example in rows]
    plots.corpus(path, corpus.name, labels, np.array(lengths), unit, found["categories"])
    print(describe.text(found, unit))
    print(f"\nplot: {path}")


def _how() -> dict:
    """Returns the arguments of `catalogue.load` that are flags."""
    from ssl_guard.data.corpora.reading import Reading

    how = Reading(
        columns=cli.pairs("columns", COLUMNS.value),
        harmful=tuple(HARMFUL.value),
        safe=tuple(SAFE.value),
    )
    return {"task": TASK.value, "data_dir": DIR.value, "how": how}


if __name__ == "__main__":
    DIR = flags.DEFINE_string("dir", "data", "Folder of prepared corpora, config.data.dir of runs.")
    TASK = flags.DEFINE_enum("task", None, TASKS, "Task of the labels (of a file: response_harm).")
    STATUS = flags.DEFINE_bool("status", True, "list checks which are prepared.")
    COLUMNS = flags.DEFINE_list("columns", [], "Columns of a file, such as label=is_harmful.")
    HARMFUL = flags.DEFINE_list("harmful_values", [], "Label values that mean harmful.")
    SAFE = flags.DEFINE_list("safe_values", [], "Label values that mean safe.")
    TOKENIZER = flags.DEFINE_string(
        "tokenizer", None, "Folder of a tokenizer, to measure lengths in tokens."
    )
    PLOT = flags.DEFINE_string("plot", None, "Path of the plot of describe (.png).")
    RUNNER = flags.DEFINE_enum("runner", "local", cli.RUNNERS, "local, or an Apache Beam runner.")
    BEAM_OPTIONS = flags.DEFINE_multi_string("beam_options", [], "Options for Beam.")
    cli.run(main, words="list | build NAME | describe NAME")
