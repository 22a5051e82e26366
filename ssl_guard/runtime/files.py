"""Finds files of wheels, checks and replaces folders, hashes files, and reads and writes JSON."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ssl_guard.errors import BadInput


def wheel_folder(distribution: str, inside: str) -> Path | None:
    """Finds the folder `inside` of an installed wheel; None if the wheel or the folder is missing.

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


def _exists(path: Path) -> bool:
    try:
        path.lstat()  # other than Path.exists, it raises for a name that is too long
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def check_folder(path: str | Path, key: str) -> None:
    """Checks that a folder can be made and written to; makes nothing.

    key: the flag or config key that names it. Raises BadInput, with the key.
    """
    nearest = Path(os.path.abspath(path))
    try:
        while not _exists(nearest):
            nearest = nearest.parent
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise BadInput(
            f"{key}: {path} cannot be a folder to write to ({nearest}: {error.strerror}): choose "
            "another."
        ) from error


def sha256_file(path: str | Path) -> str:
    """Returns the hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write(path: str | Path, data: str | bytes) -> None:
    """Writes a file that is always whole: a crash leaves the old content or the new one.

    Makes the folder if it is missing. Text is written as UTF-8.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `folder` at the end.

    It is deleted, and `folder` stays as it was, if an error is raised.
    """
    folder = Path(folder)
    building = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    replaced = building.with_name(f"{building.name}.old")
    try:
        building.mkdir(parents=True)
        yield building
        for path in filter(Path.is_file, building.rglob("*")):
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_json(path: str | Path, value) -> None:
    """Writes an indented JSON file with `atomic_write`."""
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path, remedy: str) -> dict:
    """Reads a JSON object. Raises BadInput, with the remedy, for a file that does not hold one."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadInput(f"{path} is damaged: {remedy}.")
    return value


def write_jsonl(path: str | Path, rows: Iterable) -> None:
    """Writes one JSON value a line with `atomic_write`."""
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_jsonl(path: str | Path) -> list[dict]:
    """Reads a file of JSON lines without a last line that a crash cut off; [] if it is missing."""
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
