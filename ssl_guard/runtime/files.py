"""Files that arrive inside installed wheels: found by metadata, checked by hash, never imported."""

import hashlib
import importlib.metadata
import json
from pathlib import Path


def wheel_folder(distribution: str, inside: str) -> Path | None:
    """The folder `inside` of an installed wheel, or None if the wheel or the folder is not there.

    Only the wheel's file list is read; none of its code runs.
    """
    try:
        files = importlib.metadata.distribution(distribution).files or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    prefix = inside.rstrip("/") + "/"
    for file in files:
        if file.as_posix().startswith(prefix):
            root = Path(file.locate()).parents[len(file.parts) - 1]
            return root / inside
    return None


def sha256_file(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value) -> None:
    """Writes JSON so that the file is either the old one or the new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    temporary.replace(path)
