"""Records versions, commit, machine and hashes of a run."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

from ssl_guard.runtime.files import write_json

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "scikit-learn",
    "transformers",
    "tokenizers",
    "tensorflow-datasets",
    "ml_collections",
    "datasketch",
)


def collect(**hashes) -> dict:
    """Collects package versions, git commit and changes, hardware, and `hashes` as JSON values."""
    import jax

    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "packages": versions,
        "commit": _git("describe", "--always", "--abbrev=40", "--dirty=+changes"),
        "changes_sha256": _changes_sha256(),
        "machine": {
            "cpu": _cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "devices": [device.device_kind for device in jax.devices()],
        },
        **hashes,
    }


def record_start(workdir: str | Path, step: int, **hashes) -> None:
    """Adds a start or resumption of a run at `step` to `workdir/provenance.json`.

    The file is {"starts": [{"step", **collect(**hashes)}]}, so it shows a run that was resumed by
    other code or on another machine. A start that differs from the last one only in its step is
    not added.
    """
    path = Path(workdir) / "provenance.json"
    starts = json.loads(path.read_text())["starts"] if path.exists() else []
    now = json.loads(json.dumps(collect(**hashes)))
    if not starts or {**starts[-1], "step": None} != {**now, "step": None}:
        write_json(path, {"starts": [*starts, {"step": step, **now}]})


def _git(*arguments: str) -> str | None:
    """Returns git's output for this checkout; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _changes_sha256() -> str | None:
    """Hashes the uncommitted changes and the names of untracked files; None without any."""
    names = _git("status", "--porcelain")
    if not names:
        return None
    return hashlib.sha256(f"{names}\0{_git('diff', 'HEAD', '--binary')}".encode()).hexdigest()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
