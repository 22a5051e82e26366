"""Measures our BERT and PyTorch's in turns, for cells without a record, and writes the table.

    python experiments/speed/encoders.py             # missing cells, then the README's table
    python experiments/speed/encoders.py --table     # prints the table
    python experiments/speed/encoders.py --only=minilm-128

Needs `make parity` (its environment runs PyTorch) and two idle cores. A cell is a size, a length, a
precision and a mode. Both sides compute the same batch in turns, so that changes of the machine's
speed affect both. A ratio is of tokens per second without padding, ours to PyTorch's.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import encoder_cells as cells
import numpy as np
from tabulate import tabulate

from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import write_json

HERE = Path(__file__).parent
RECORDS = HERE / "records"
LENGTHS, DTYPES, MODES = (64, 128, 256), ("float32", "bfloat16"), ("forward", "train")
# torch.compile is slow to start.
COMPILED = {
    f"minilm-128-{cell}" for cell in ("float32-forward", "bfloat16-forward", "bfloat16-train")
}
ROUNDS, TURN = 5, 0.6  # turns of each side, seconds of a turn


class Worker:
    """Runs a process that makes and times steps (encoder_cells.serve)."""

    def __init__(self, python: str, script: str, *arguments: str):
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "TRANSFORMERS_VERBOSITY": "error"}
        self._process = subprocess.Popen(
            [python, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, **order) -> dict:
        """Sends a request and returns the answer."""
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        self._process.wait()


def path(cell: dict) -> Path:
    """Returns the path of a cell's record."""
    return RECORDS / "{size}-{length}-{dtype}-{mode}.json".format(**cell)


def measure(cell: dict, sides: dict[str, Worker]) -> None:
    """Times all sides of a cell in turns and writes its record."""
    steps, seconds = {}, {name: [] for name in sides}
    for name, worker in sides.items():
        worker.ask(build={**cell, "variant": name})
        one = worker.ask(steps=1)["seconds"][0]
        steps[name] = max(1, round(TURN / one))
    for number in range(ROUNDS):
        # The order alternates, so that no side is always first.
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            time.sleep(0.3)  # threads of the other sides stop spinning
            seconds[name].append(float(np.median(sides[name].ask(steps=steps[name])["seconds"])))
    mask = cells.batch(cell["size"], cell["length"])["attention_mask"]
    write_json(
        path(cell),
        {
            **cell,
            "rows": len(mask),
            "real_tokens": int(mask.sum()),
            "padded_tokens": mask.size,
            "seconds_per_step": seconds,
            "load_average": os.getloadavg()[0],
            "torch": sides["eager"].version,
            "provenance": provenance.collect(),
        },
    )


def measure_missing(torch_python: str, only: str) -> None:
    """Measures every cell without a record, the fastest first."""
    todo = [
        {"size": size, "length": length, "dtype": dtype, "mode": mode}
        for size in cells.SIZES
        for dtype in DTYPES
        for mode in MODES
        for length in LENGTHS
    ]
    todo = [cell for cell in todo if only in path(cell).stem and not path(cell).exists()]
    for dtype in DTYPES:
        mine = [cell for cell in todo if cell["dtype"] == dtype]
        if not mine:
            continue
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(Worker(sys.executable, "jax_worker.py", dtype))
            eager = stack.enter_context(Worker(torch_python, "torch_worker.py"))
            compiled = stack.enter_context(Worker(torch_python, "torch_worker.py"))
            for worker in (eager, compiled):
                worker.version = version_of(torch_python)
            for cell in mine:
                sides = {"ours": ours, "eager": eager}
                if path(cell).stem in COMPILED:
                    sides["compile"] = compiled
                start = time.monotonic()
                measure(cell, sides)
                print(f"{path(cell).stem}: {time.monotonic() - start:.0f} s", file=sys.stderr)


def version_of(python: str) -> str:
    """Returns the version of torch in an environment."""
    command = "import importlib.metadata as m; print(m.version('torch'))"
    done = subprocess.run([python, "-c", command], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def table() -> str:
    """Tabulates tokens per second per cell and the ratio to the better PyTorch variant."""
    lines = []
    for file in sorted(RECORDS.glob("*.json")):
        record = json.loads(file.read_text())
        per_round = {k: np.array(v) for k, v in record["seconds_per_step"].items()}
        median = {k: np.median(v) for k, v in per_round.items()}
        best = min((k for k in median if k != "ours"), key=median.get)
        ratios = per_round[best] / per_round["ours"]
        lines.append(
            [
                record["size"],
                record["length"],
                record["dtype"],
                record["mode"],
                *(f"{record['real_tokens'] / median[k]:.0f}" for k in ("ours", best)),
                best,
                f"{median[best] / median['ours']:.2f} [{ratios.min():.2f}, {ratios.max():.2f}]",
            ]
        )
    if not lines:
        return ""
    order = {name: i for i, name in enumerate((*cells.SIZES, *DTYPES, *MODES))}
    lines.sort(key=lambda line: (order[line[0]], order[line[3]], order[line[2]], line[1]))
    headers = ["size", "length", "precision", "mode", "ours, tokens/s", "PyTorch, tokens/s",
               "variant", "ratio [rounds]"]  # fmt: skip
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", action="store_true", help="the table alone")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--torch-python", default=".venv-parity/bin/python")
    arguments = parser.parse_args()
    if not arguments.table:
        measure_missing(arguments.torch_python, arguments.only)
        readme = HERE / "README.md"
        marks = r"(<!-- table.*? -->\n).*?(<!-- /table -->)"
        text = re.sub(  # its own table, the first
            marks, lambda m: f"{m[1]}{table()}\n{m[2]}", readme.read_text(), count=1, flags=re.S
        )
        readme.write_text(text)
    print(table())
