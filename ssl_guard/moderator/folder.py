"""Describes the files of a moderator's folder, and verifies them.

manifest.json          {"files": {path: sha256}} of every other file
moderator.json         Settings
policy.json            thresholds of the float32 model, see evaluation/policy.py
policy_int8.json       thresholds of the int8 model
onnx/model.onnx        float32
onnx/model_quantized.onnx  int8
tokenizer.json, tokenizer_config.json
config.json, model.safetensors  for transformers, if the run has model.head = "hf"
README.md              model card
"""

import json
from pathlib import Path
from typing import NamedTuple

from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import read_json, sha256_file, write_json

MANIFEST, SETTINGS, TOKENIZER = "manifest.json", "moderator.json", "tokenizer.json"
MODELS = {"float32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}
POLICIES = {"float32": "policy.json", "int8": "policy_int8.json"}
AGAIN = "copy the folder again, or export the run again"


class Settings(NamedTuple):
    """The part of a run's config that its moderator needs.

    task: schema.TASKS. conversation: conversation.MODES. max_length: tokens of a window. stride:
    tokens between windows. pad_id: of the tokenizer. special: tokenizer.Special, as lists.
    """

    task: str
    conversation: str
    max_length: int
    stride: int
    pad_id: int
    special: dict[str, list[int]]

    @property
    def pairs(self) -> bool:
        """Whether responses are judged, not prompts alone."""
        return self.task == "response_harm"


def write_manifest(folder: Path) -> None:
    """Writes the hashes of all files of the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    write_json(folder / MANIFEST, {"files": hashes})


def verify(folder: Path) -> str:
    """Verifies the hashes of all files and returns the sha256 of the manifest.

    Raises BadInput for a folder that is no moderator's, and for a missing or changed file.
    """
    if not (folder / MANIFEST).is_file():
        raise BadInput(
            f"{folder} holds no moderator (no {MANIFEST}): make one with python -m ssl_guard "
            f"export RUN --to={folder}."
        )
    files = read_json(folder / MANIFEST, AGAIN).get("files")
    needed = {SETTINGS, TOKENIZER, *MODELS.values(), *POLICIES.values()}
    if not isinstance(files, dict) or not needed <= files.keys():
        raise BadInput(f"{folder / MANIFEST} is damaged: {AGAIN}.")
    for name, sha256 in files.items():
        path = folder / name
        if not path.is_file():
            raise BadInput(f"{folder} lacks its file {name}: {AGAIN}.")
        if sha256_file(path) != sha256:
            raise BadInput(f"{path} is not the file that was exported: {AGAIN}.")
    return sha256_file(folder / MANIFEST)


def read_settings(folder: Path) -> Settings:
    """Reads moderator.json, or raises BadInput."""
    try:
        return Settings(**read_json(folder / SETTINGS, AGAIN))
    except TypeError as error:
        raise BadInput(
            f"{folder / SETTINGS} is of another version of ssl_guard: {AGAIN}."
        ) from error


def write_settings(folder: Path, settings: Settings) -> None:
    """Writes moderator.json."""
    write_json(folder / SETTINGS, settings._asdict())


def thresholds(folder: Path, kind: str) -> dict[str, tuple[float, str]]:
    """Reads {profile: (threshold, its promise)} of a policy; kind: "float32" or "int8"."""
    policy = json.loads((folder / POLICIES[kind]).read_text(encoding="utf-8"))
    return {
        name: (point["threshold"], point["promise"]) for name, point in policy["thresholds"].items()
    }
