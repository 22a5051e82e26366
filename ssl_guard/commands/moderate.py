"""Scores the rows of a file with a moderator that `export` wrote; needs no JAX.

    python -m ssl_guard moderate texts.jsonl --moderator=moderator --out=scores.jsonl
    python -m ssl_guard moderate texts.parquet --moderator=moderator --int8 --profile=strict \\
        --columns=prompt=text --out=scores.parquet
    cat texts.jsonl | python -m ssl_guard moderate - --moderator=moderator

A file is JSONL, CSV or Parquet, of any size; - is JSON lines on standard input. A row has a prompt
and, for a moderator of responses, a response; or a conversation. Without --out, JSON lines go to
standard output. The same command continues after a kill. Rows that cannot be scored are counted
and named. See ssl_guard/moderator/files.py for the output.
"""

import sys

from absl import flags

from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli


def main(argv: list[str]) -> None:
    folder = cli.required(MODERATOR, "moderator")
    if len(argv) != 2:
        raise BadInput("usage: python -m ssl_guard moderate TEXTS.jsonl --moderator=FOLDER.")
    from ssl_guard.moderator import Moderator, files

    named = cli.pairs("columns", COLUMNS.value)
    if unknown := sorted(named.keys() - files.COLUMNS.keys()):
        known = ", ".join(files.COLUMNS)
        raise BadInput(f"--columns: there is no column {unknown[0]!r}: choose from {known}.")
    moderator = Moderator.load(folder, int8=INT8.value, threads=THREADS.value)
    counts = files.moderate(
        moderator,
        argv[1],
        OUT.value,
        profile=PROFILE.value,
        whole=not TRUNCATE.value,
        columns=files.COLUMNS | named,
    )
    threshold, promise = moderator.threshold(PROFILE.value)
    lines = [
        f"{counts.rows} rows; {counts.harmful} of those scored by this call are harmful, with a "
        f"probability of at least {threshold:.4f} (promise: {promise})"
    ]
    if counts.bad:
        lines.append(f"{counts.bad} rows could not be scored, among them:")
        lines += [f"  {name}" for name in counts.named]
    print(*lines, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    MODERATOR = flags.DEFINE_string("moderator", None, "A folder that `export` wrote.")
    OUT = flags.DEFINE_string("out", None, "A .jsonl, .csv or .parquet file to write.")
    PROFILE = flags.DEFINE_string("profile", "balanced", "Threshold of the policy.")
    INT8 = flags.DEFINE_bool("int8", False, "Uses the int8 model and its thresholds.")
    TRUNCATE = flags.DEFINE_bool("truncate", False, "Cuts long texts instead of reading windows.")
    THREADS = flags.DEFINE_integer("threads", 0, "CPU threads; 0 for all.")
    COLUMNS = flags.DEFINE_list("columns", [], "Columns of the file, e.g. prompt=text.")
    cli.run(main, words="TEXTS")
