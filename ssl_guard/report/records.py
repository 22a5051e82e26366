"""Packs a finished run into a record: RECORD.json, RECORD.parquet and a file of test rows.

RECORD.json has one key per line:

    config       dotted keys that differ from config.default(), and `algorithm`
    report       report.json without the rows to label next
    policy       policy.json, null without one
    rows         sha256 of the test rows, null without predictions.jsonl
    metrics      {name: [value of each row]} of METRICS, null if a row lacks the metric
    evaluations  {name: RUN/evaluations/<name>.json} without curves and slices; of its provenance,
                 only the keys that differ from the report's
    more         other JSON files of the run, by name

RECORD.parquet has the scores of predictions.jsonl, in order. Their rows, with id, group and label,
are in rows-<sha256>.parquet of the same folder, which all records of these rows share.
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

from ssl_guard import config as configs
from ssl_guard.evaluation.records_io import no_run
from ssl_guard.runtime.files import atomic_write, read_jsonl

# Names of the metrics that tables and plots read.
METRICS = re.compile(
    r"step|alarm/\w+|dev/\w+/f1|loss/(supervised|unlabelled)"
    r"|pseudo/(accuracy|mask_rate|margins_\d)"
)
SIGNIFICANT = 5  # digits of these metrics
ROW = ("id", "group", "label")  # keys of predictions.jsonl that are not scores
DIGITS = 7  # decimals of the scores in predictions.jsonl; float32 keeps them between 0 and 1


def path_of(run: str | Path) -> Path:
    """Returns the path of the record's JSON file; run: with or without .json."""
    return Path(f"{str(run).removesuffix('.json')}.json")


def pack(workdir: str | Path, record: str | Path, more: Mapping[str, str | Path] = {}) -> None:
    """Writes the record of a finished run folder, and its test rows if their file is missing.

    The JSON file is written last, so a record with one is complete. more: paths of further JSON
    files, by name.

    Raises BadInput if the folder holds no finished run.
    """
    workdir, record = Path(workdir), path_of(record)
    if not (workdir / "report.json").exists():
        raise no_run(workdir)
    default = configs.as_json(configs.default())
    config = _json(workdir / "config.json")
    evaluations = sorted((workdir / "evaluations").glob("*.json"))
    policy, predictions = workdir / "policy.json", workdir / "predictions.jsonl"
    report, rows = _json(workdir / "report.json"), None
    if predictions.exists():
        rows = _write_predictions(record.with_suffix(".parquet"), read_jsonl(predictions))
    found = {
        "config": {
            key: value
            for key, value in config.items()
            if key == "algorithm" or key not in default or default[key] != value
        },
        "report": {
            key: _without(value, "label_next") if key == "observatory" else value
            for key, value in report.items()
        },
        "policy": _json(policy) if policy.exists() else None,
        "rows": rows,
        "metrics": _columns(read_jsonl(workdir / "metrics.jsonl")),
        "evaluations": {path.stem: _evaluation(_json(path), report) for path in evaluations},
        "more": {name: _json(Path(path)) for name, path in more.items()},
    }
    lines = [f'"{key}":{_compact(value)}' for key, value in found.items()]
    atomic_write(record, "{\n" + ",\n".join(lines) + "\n}\n")


def read(record: str | Path) -> dict:
    """Reads a record: its JSON, with "metrics" as rows, "config" with all keys, and "predictions".

    predictions: a list of rows, empty without a Parquet file.

    Raises ValueError if the test rows are not those of the run.
    """
    path = path_of(record)
    found = _json(path)
    found["config"] = configs.as_json(configs.from_json(found["config"]))
    columns = found["metrics"]
    found["metrics"] = [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None}
        for row in zip(*columns.values(), strict=True)
    ]
    scores = path.with_suffix(".parquet")
    found["predictions"] = _read_predictions(scores, found["rows"]) if scores.exists() else []
    return found


def _columns(rows: list[dict]) -> dict[str, list]:
    names = dict.fromkeys(name for row in rows for name in row if METRICS.fullmatch(name))
    return {name: [_short(row.get(name)) for row in rows] for name in names}


def _short(value):
    """Rounds a number, or those of a list, to SIGNIFICANT digits; 0.0 is written as 0."""
    if isinstance(value, list):
        return [_short(item) for item in value]
    if not isinstance(value, float):
        return value
    rounded = float(f"{value:.{SIGNIFICANT}g}")
    return int(rounded) if rounded.is_integer() else rounded


def _evaluation(evaluation: dict, report: dict) -> dict:
    mine = report.get("provenance", {})
    own = {key: value for key, value in evaluation["provenance"].items() if mine.get(key) != value}
    return _without(evaluation, "curves", "slices") | {"provenance": own}


def _without(found: dict, *keys: str) -> dict:
    return {key: value for key, value in found.items() if key not in keys}


def _write_predictions(path: Path, predictions: list[dict]) -> str:
    """Writes the scores, and the rows if their file is missing; returns the sha256 of the rows."""
    rows = [{key: row[key] for key in ROW} for row in predictions]
    sha256 = _sha256(rows)
    if not _rows_path(path, sha256).exists():
        _write_table(_rows_path(path, sha256), rows)
    _write_table(path, [_without(row, *ROW) for row in predictions])
    return sha256


def _read_predictions(path: Path, sha256: str) -> list[dict]:
    rows = _read_table(_rows_path(path, sha256))
    if _sha256(rows) != sha256:
        raise ValueError(f"{_rows_path(path, sha256)} has other rows")
    return [row | scores for row, scores in zip(rows, _read_table(path), strict=True)]


def _rows_path(path: Path, sha256: str) -> Path:
    return path.with_name(f"rows-{sha256[:12]}.parquet")


def _sha256(rows: list[dict]) -> str:
    values = json.dumps([[row[key] for key in ROW] for row in rows])
    return hashlib.sha256(values.encode()).hexdigest()


def _write_table(path: Path, rows: list[dict]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table, encodings = pa.Table.from_pylist(rows), {}
    for number, field in enumerate(table.schema):
        if pa.types.is_integer(field.type):
            encodings[field.name] = "DELTA_BINARY_PACKED"
        if pa.types.is_float64(field.type):
            encodings[field.name] = "BYTE_STREAM_SPLIT"
            short = table[field.name].cast(pa.float32(), safe=False)
            if _rounded(short) == table[field.name].to_pylist():
                table = table.set_column(number, field.name, short)
    file = io.BytesIO()
    parquet.write_table(
        table,
        file,
        compression="zstd",
        compression_level=19,
        use_dictionary=False,
        column_encoding=encodings,
        write_statistics=False,
        store_schema=False,
    )
    atomic_write(path, file.getvalue())


def _read_table(path: Path) -> list[dict]:
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(path)
    columns = {
        name: _rounded(column) if pa.types.is_float32(column.type) else column.to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _rounded(column) -> list[float | None]:
    return [value if value is None else round(value, DIGITS) for value in column.to_pylist()]


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _compact(value) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
