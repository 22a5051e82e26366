"""Opens the rows to evaluate a run on: corpora or sides of its own split, without seen rows.

A run has seen all rows of its split but the test side, its augmented views and, if known, the
prompts of continued pre-training of its encoder. Rows whose prompts are near-duplicates of these
are removed from an exam and counted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_guard.data import corpora
from ssl_guard.data.assemble import Source
from ssl_guard.data.contamination import overlap, pretraining
from ssl_guard.data.corpora import user_file
from ssl_guard.data.duplicates import Known, Shingles
from ssl_guard.data.schema import SAFE, Corpus, Example, label_map, make_corpus
from ssl_guard.errors import BadInput
from ssl_guard.models import pretrained
from ssl_guard.prepare import sets_used

SIDES = ("dev", "calibration", "test")  # of the run's own split, instead of a corpus
MOST_VALUES = 50  # of a column to slice by


class Exam(NamedTuple):
    """Labelled rows to score.

    kind: "test", "over_refusal" or the name of a side; corpus: all labelled rows, with their
    sha256; examples: the rows to score, and groups, int [rows], theirs of near-duplicate
    prompts; columns: {name: {id: value}} of further columns; contamination: counts, see
    records_io.py; label_map: {label value: 0 or 1} of a file, None for a corpus's own labels.
    """

    kind: str
    corpus: Corpus
    examples: list[Example]
    groups: np.ndarray
    columns: dict[str, dict[str, str]]
    contamination: dict
    label_map: dict[str, int] | None


def open_exam(
    name: str,
    config,
    source: Source,
    *,
    over_refusal: bool = False,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, int] | None = None,
    slices: Sequence[str] = (),
    keep_seen: bool = False,
) -> Exam:
    """Opens an exam.

    name: a corpus or a file, as for config.data.corpus, or one of SIDES; source: the run's own
    rows; over_refusal: the safe rows alone; columns, labels: of a file, over the config's; slices:
    further columns of a file; keep_seen: rows that the run has seen are counted but not removed.

    Raises BadInput for a corpus that cannot be read as the run's task or has no row left to score.
    """
    side = name if name in SIDES else None
    title, rows, read_as = labelled_rows(name, config, source, columns=columns, labels=labels)
    extra = {}
    if user_file.reads(name):
        extra = _slices(name, slices, user_file.COLUMNS | _columns(config, columns))
    if over_refusal:
        rows = [example for example in rows if example.label == SAFE]
    if not rows:
        raise BadInput(
            f"{name} has no {'safe ' if over_refusal else ''}row with a label, so it cannot be "
            "scored: name another corpus."
        )
    seen = [
        example.prompt
        for other, examples in source.rows.items()
        if other not in ("test", side)
        for example in examples
    ]
    prompts = [example.prompt for example in rows]
    found = overlap(prompts, seen)
    near = found.near if side else found.near | _near_others(prompts, config, source)
    kept = np.arange(len(rows)) if keep_seen else np.flatnonzero(~near)
    if not len(kept):
        raise BadInput(
            f"{name}: all {len(rows)} rows are near-duplicates of rows that the run has seen: name "
            "a corpus that it has not seen."
        )
    return Exam(
        kind=side or ("over_refusal" if over_refusal else "test"),
        corpus=make_corpus(title, config.data.task, rows, ""),
        examples=[rows[i] for i in kept],
        groups=np.unique(found.groups[kept], return_inverse=True)[1],
        columns=extra,
        contamination={
            "exact": int(found.exact.sum()),
            "near_duplicates": int((near & ~found.exact).sum()),
            "removed": not keep_seen,
        },
        label_map=read_as,
    )


def _near_others(prompts: list[str], config, source: Source) -> np.ndarray:
    """Finds near-duplicates of augmented views or of pre-training prompts, bool [prompts]."""
    near = np.zeros(len(prompts), bool)
    views = (s.views(source.rows["unlabelled"]) for s in sets_used(config, source).values())
    others = [Shingles.of(prompt for _, _, prompt, _ in of_set) for of_set in views]
    read = pretraining(pretrained.resolve(config.model.name))
    for seen in others if read is None else [*others, read]:
        near |= Known(seen).near(Shingles.of(prompts))
    return near


def labelled_rows(
    name: str,
    config,
    source: Source,
    *,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, int] | None = None,
) -> tuple[str, list[Example], dict[str, int] | None]:
    """Returns (the name of the corpus in an evaluation, its rows with a label, its label map).

    The arguments are those of `open_exam`.
    """
    data, read_as = config.data, None
    if name in SIDES:
        title, rows = f"{source.corpus.name}.{name}", source.rows.get(name, [])
    else:
        if user_file.reads(name):
            own = label_map(data.harmful_values, data.safe_values)
            read_as = dict(labels or own or user_file.LABELS)
        corpus = corpora.load(
            name,
            task=data.task,
            data_dir=Path(data.dir),
            columns=_columns(config, columns) if user_file.reads(name) else {},
            labels=read_as,
        )
        title, rows = corpus.name, list(corpus.examples)
    return title, [example for example in rows if example.label is not None], read_as


def _columns(config, columns: Mapping[str, str] | None) -> dict[str, str]:
    return dict(config.data.columns) | dict(columns or {})


def _slices(path: str, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, dict]:
    """Reads further columns of a file. Raises BadInput for one with too many values to slice by."""
    texts = {columns["prompt"], columns["response"], columns["id"]}
    found = user_file.side_columns(path, [n for n in names if n not in texts], columns["id"])
    for name, values in found.items():
        if (count := len(set(values.values()))) > MOST_VALUES:
            raise BadInput(
                f"{path}: the column {name!r} has {count} different values, too many to "
                f"slice by: leave it out of --slices (at most {MOST_VALUES})."
            )
    return found
