"""metrics.jsonl: one JSON object a line, always; TensorBoard beside it on request."""

import json
from pathlib import Path


class Writer:
    """Appends rows {"step": ..., "name": value, ...} to `workdir/metrics.jsonl`; `rows` has all.

    On a resume the rows after `resume_step` are dropped first: the steps that wrote them are done
    again, so that the file has no gap and no duplicate.
    """

    def __init__(self, workdir: Path, *, resume_step: int, tensorboard: bool = False):
        self._path = Path(workdir) / "metrics.jsonl"
        self.rows = kept = [row for row in read(self._path) if row["step"] <= resume_step]
        temporary = self._path.with_suffix(".jsonl.tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        temporary.replace(self._path)
        self._file = self._path.open("a")
        self._tensorboard = None
        if tensorboard:
            from tensorboardX import SummaryWriter  # extra "tensorboard"

            self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step)

    def write(self, step: int, values: dict[str, float | list[float]]) -> None:
        """One row, on disk when this returns (the operating system's cache aside)."""
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


def read(path: str | Path) -> list[dict]:
    """The rows of a metrics.jsonl; a last line cut off by a crash is left out."""
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
