"""Writes metrics.jsonl, one JSON object a line, and TensorBoard files on request."""

import json
from pathlib import Path

from ssl_guard.runtime.files import read_jsonl, write_jsonl


class Writer:
    """Appends rows {"step": ..., "name": value, ...} to `workdir/metrics.jsonl`; `rows` has all.

    Rows after `resume_step` are dropped first: a resumed run repeats the steps that wrote them.
    """

    def __init__(self, workdir: Path, *, resume_step: int, tensorboard: bool = False):
        self._path = Path(workdir) / "metrics.jsonl"
        self.rows = kept = [row for row in read_jsonl(self._path) if row["step"] <= resume_step]
        write_jsonl(self._path, kept)
        self._file = self._path.open("a")
        self._tensorboard = None
        if tensorboard:
            from tensorboardX import SummaryWriter  # extra "tensorboard"

            self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step)

    def write(self, step: int, values: dict[str, float | list[float]]) -> None:
        """Writes and flushes one row."""
        self.rows.append({"step": step, **values})
        self._file.write(json.dumps(self.rows[-1]) + "\n")
        self._file.flush()
        if self._tensorboard:
            for name, value in values.items():
                if not isinstance(value, list):  # a histogram
                    self._tensorboard.add_scalar(name, value, step)

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        if self._tensorboard:
            self._tensorboard.close()
