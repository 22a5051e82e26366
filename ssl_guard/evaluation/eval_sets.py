"""Opens the rows to evaluate a run on: corpora or sides of its own split, without seen rows.

A run has seen all rows of its split but the test side, its augmented views and, if known, the
prompts of continued pre-training of its encoder. Rows whose prompts are near-duplicates of these
are removed from an evaluation set and counted.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_guard.data import corpora
from ssl_guard.data.assemble import Source
from ssl_guard.data.contamination import overlap, pretraining
from ssl_guard.data.corpora import reading, user_file
from ssl_guard.data.corpora.reading import Reading
from ssl_guard.data.duplicates import Known, Shingles
from ssl_guard.data.schema import SAFE, Corpus, Example, make_corpus
from ssl_guard.errors import BadInput
from ssl_guard.evaluation.prepare import sets_used
from ssl_guard.models import pretrained

SIDES = ("dev", "calibration", "test")  # of the run's own split, instead of a corpus
MOST_VALUES = 50  # of a column to slice by


class EvalSet(NamedTuple):
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


def open_eval_set(
    name: str,
    config,
    source: Source,
    *,
    over_refusal: bool = False,
    read_as: Mapping[str, Any] | None = None,
    slices: Sequence[str] = (),
    keep_seen: bool = False,
) -> EvalSet:
    """Opens an evaluation set.

    name: a corpus or a file, as for config.data.corpus, or one of SIDES; source: the run's own
    rows; over_refusal: the safe rows alone; read_as: settings of a file in place of the config's,
    as `Reading.but` takes them; slices: further columns of a file; keep_seen: rows that the run has
    seen are counted but not removed.

    Raises BadInput for a corpus that cannot be read as the run's task or has no row left to score.
    """
    side = name if name in SIDES else None
    how = reading.with_settings(Reading.of(config.data).but(**(read_as or {})), name)
    title, rows = labelled_rows(name, config, source, how)
    from_file = user_file.reads(name)
    extra = _slices(name, slices, how) if from_file else {}
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
    return EvalSet(
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
        label_map=how.label_map if from_file else None,
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


def labelled_rows(name: str, config, source: Source, how: Reading) -> tuple[str, list[Example]]:
    """Returns the name of a corpus in an evaluation, and its rows with a label.

    name, source: as for `open_eval_set`; how: to read a file.
    """
    if name in SIDES:
        title, rows = f"{source.corpus.name}.{name}", source.rows.get(name, [])
    else:
        data, from_file = config.data, user_file.reads(name)
        near = difflib.get_close_matches(name, SIDES, n=1)
        if near and not from_file and name.partition(":")[0] not in corpora.CORPORA:
            raise BadInput(f"{name!r} is no corpus, file or side: did you mean {near[0]}?")
        corpus = corpora.load(
            name, task=data.task, data_dir=Path(data.dir), how=how if from_file else None
        )
        title, rows = corpus.name, list(corpus.examples)
    return title, [example for example in rows if example.label is not None]


def _slices(path: str, names: Sequence[str], how: Reading) -> dict[str, dict]:
    """Reads further columns of a file. Raises BadInput for one with too many values to slice by."""
    texts = {how.columns[part] for part in ("prompt", "response", "messages", "id")}
    found = user_file.side_columns(path, [n for n in names if n not in texts], how)
    for name, values in found.items():
        if (count := len(set(values.values()))) > MOST_VALUES:
            raise BadInput(
                f"{path}: the column {name!r} has {count} different values, too many to "
                f"slice by: leave it out of --slices (at most {MOST_VALUES})."
            )
    return found
