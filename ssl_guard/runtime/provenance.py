"""Where a number comes from: versions, commit, machine, hashes."""

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
    """Versions, git commit and changes to it, hardware, and whatever hashes the run adds; JSON."""
    import jax

    versions = {}
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
    """Adds this start of a run, from `step` on, to `workdir/provenance.json`.

    The file is {"starts": [{"step", **collect(**hashes)}]}: a run that was resumed by other code or
    on another machine says so. A start that is like the one before it but for its step is one.
    """
    path = Path(workdir) / "provenance.json"
    starts = json.loads(path.read_text())["starts"] if path.exists() else []
    now = json.loads(json.dumps(collect(**hashes)))
    if not starts or {**starts[-1], "step": None} != {**now, "step": None}:
        write_json(path, {"starts": [*starts, {"step": step, **now}]})


def _git(*command: str) -> str | None:
    """What git says about this checkout; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), *command]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _changes_sha256() -> str | None:
    """Hexadecimal sha256 of what differs from the commit, files that git does not know included
    by their names; None if nothing does, or outside a checkout."""
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
