"""Measures the exact and the approximate search of nearest neighbours: time, memory and recall.

    make neighbours                                                  # once: faiss
    .venv-neighbours/bin/python experiments/neighbours/measure.py    # missing sizes, then the table
    python experiments/neighbours/measure.py --table                 # prints the table

Vectors are made up: WIDTH numbers, clusters of CLUSTER rows on average around random centres, with
noise of the centres' spread. Each search runs in a process of its own, whose peak memory is
recorded. The exact search of more than EXACT_ALL rows is that of SAMPLE of them.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ssl_guard.evaluation.nearest import nearest
from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import write_json

RECORD = Path(__file__).with_suffix(".json")
SIZES, WIDTH, CLUSTER, NEIGHBOURS = (100_000, 1_000_000), 200, 100, 15
SAMPLE = 1_000  # rows that recall is measured on
EXACT_ALL = 100_000  # rows up to which the exact search is measured whole
SEARCHES = ("exact", "approximate")


def vectors(size: int) -> np.ndarray:
    """Makes clustered vectors, float32 [size, WIDTH]."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(size // CLUSTER, WIDTH)).astype(np.float32)
    found = rng.standard_normal((size, WIDTH), np.float32)
    for start in range(0, size, SAMPLE):  # in parts, so that peak memory is that of the search
        part = found[start : start + SAMPLE]
        part += centres[rng.integers(len(centres), size=len(part))]
    return found


def measure_search(size: int, search: str) -> dict:
    """Finds neighbours of all rows, or of the sample.

    Returns {"build_seconds", "query_seconds", "queries", "peak_bytes", "neighbours": of the
    sample}.
    """
    nodes = vectors(size)
    sample = np.random.default_rng(1).choice(size, SAMPLE, replace=False)
    if search == "approximate":
        _, build = _timed(nodes, nodes[:1], exact_rows=0)
        found, seconds = _timed(nodes, exact_rows=0)
        queries, found = size, found[sample]
    elif size <= EXACT_ALL:
        (found, seconds), build = _timed(nodes, exact_rows=size), 0.0
        queries, found = size, found[sample]
    else:
        (found, seconds), build = _timed(nodes, nodes[sample], exact_rows=size), 0.0
        queries, found = (
            SAMPLE,
            np.array([row[row != i] for i, row in zip(sample, found, strict=True)]),
        )
    return {
        "build_seconds": build,
        "query_seconds": seconds - build,
        "queries": queries,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "neighbours": found.tolist(),
    }


def _timed(nodes, rows=None, *, exact_rows: int) -> tuple[np.ndarray, float]:
    """Returns the nearest nodes, among them the row itself if rows are given, and seconds."""
    begin = time.perf_counter()
    _, found = nearest(nodes, NEIGHBOURS + (rows is not None), rows, exact_rows=exact_rows)
    return found, time.perf_counter() - begin


def measure_size(size: int) -> dict:
    """Measures both searches; adds the approximate one's recall of the exact one's neighbours."""
    measured = {}
    for search in SEARCHES:
        load = os.getloadavg()[0]  # before measuring; shows a busy machine
        command = [sys.executable, __file__, search, str(size)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        measured[search] = {"load_average": load} | json.loads(output)
        print(f"{size} {search} done", file=sys.stderr)
    exact, found = (measured[search].pop("neighbours") for search in SEARCHES)
    shared = [len(set(a) & set(b)) for a, b in zip(exact, found, strict=True)]
    measured["approximate"]["recall"] = float(np.mean(shared)) / NEIGHBOURS
    return measured


def measure(path: Path) -> None:
    """Measures the sizes missing in the record, and writes it after each."""
    record = json.loads(path.read_text()) if path.exists() else {"sizes": {}}
    for size in SIZES:
        if str(size) not in record["sizes"]:
            record["sizes"][str(size)] = measure_size(size)
            write_json(path, record | {"provenance": provenance.collect()})


def table() -> str:
    """Tabulates the record as GitHub Markdown."""
    rows = [
        [
            f"{int(size):,}",
            search,
            f"{found['build_seconds']:.1f}" if found["build_seconds"] else "-",
            _query(found, int(size)),
            f"{found['peak_bytes'] / 1e9:.1f}",
            f"{100 * found['recall']:.1f}" if "recall" in found else "100",
        ]
        for size, searches in json.loads(RECORD.read_text())["sizes"].items()
        for search, found in searches.items()
    ]
    titles = [
        "rows",
        "search",
        "build, s",
        "query of all rows, s",
        "peak memory, GB",
        "recall@15, %",
    ]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def _query(found: dict, size: int) -> str:
    """Formats the seconds of all queries, extrapolated if only some were measured."""
    seconds = f"{found['query_seconds'] * size / found['queries']:,.0f}"
    if found["queries"] == size:
        return seconds
    return f"{seconds} (extrapolated from {found['queries']:,} rows)"


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SEARCHES:
        print(json.dumps(measure_search(int(sys.argv[2]), sys.argv[1])))
    else:
        if "--table" not in sys.argv:
            measure(RECORD)
        print(table())
