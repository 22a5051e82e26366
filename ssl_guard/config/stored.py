"""Stores the config of a run as JSON, and reads those of older versions."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from ssl_guard.config.defaults import default, leaves
from ssl_guard.errors import BadInput

# Keys that may differ when a run resumes. They do not affect results.
MAY_CHANGE = (
    "compilation_cache",
    "train.keep_last",
    "train.on_save_error",
    "train.tensorboard",
    "teach.rounds",
)

# Folders that may move with the run. Their content is compared instead, see train/workdir.py.
MAY_MOVE = ("data.soft_labels",)

# Old names of keys, so that `from_json` reads the config.json of older runs.
RENAMED = {
    "brake": "monitor.disable_unlabelled_on_alarm",
    "data.balance": "data.label_sampling",
    "data.shapes": "data.num_shapes",
    "eval.bootstrap": "eval.bootstrap_samples",
    "eval.windows": "eval.stride",
    "observatory.idle_steps": "monitor.idle_steps",
    "observatory.max_kl": "monitor.max_kl",
    "observatory.scored_rows": "monitor.scored_rows",
    "observatory.twin": "monitor.baseline_run",
    "observatory.window_steps": "monitor.window_steps",
    "optim.layer_decay": "optim.layer_lr_decay",
    "train.accumulate": "train.grad_accum_steps",
    "train.max_skipped": "train.max_nonfinite_steps",
}
RENAMED_VALUES = {("data.label_sampling", "natural"): "random"}
# Keys of older runs that are constants now, see train/monitor.py.
REMOVED = (
    "monitor.listed",
    "monitor.max_repeated",
    "observatory.listed",
    "observatory.max_repeated",
)


def as_json(config: ConfigDict) -> dict:
    """Returns the config as dotted keys with JSON values."""
    return json.loads(json.dumps(leaves(config)))


def from_json(flat: dict) -> ConfigDict:
    """Returns the config of dotted keys (see `as_json`), written by this or an older version.

    Missing keys get today's defaults. Keys that no longer exist are kept and not read.
    """
    config = default().unlock()
    flat = current_keys(flat)
    config.algorithm = flat["algorithm"]
    for key, value in {config.algorithm: ConfigDict(), **flat}.items():
        node = config
        *path, name = key.split(".")
        for part in path:
            if part not in node:
                node[part] = ConfigDict()
            node = node[part]
        node[name] = tuple(value) if isinstance(value, list) else value
    return config.lock()


def current_keys(flat: dict) -> dict:
    """Maps keys and values of an older version to today's, see RENAMED; drops those of REMOVED."""
    renamed = {RENAMED.get(key, key): v for key, v in flat.items() if key not in REMOVED}
    return {
        key: RENAMED_VALUES.get((key, value), value) if isinstance(value, str) else value
        for key, value in renamed.items()
    }


def refuse_other(workdir: Path, config: ConfigDict) -> None:
    """Raises BadInput for the workdir of a run of another config.

    Keys of MAY_CHANGE and the mesh may differ. Keys that an older run lacks have today's defaults.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    try:
        mine, theirs = as_json(config), as_json(from_json(json.loads(path.read_text())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is damaged: choose another --workdir.") from error
    keys = {k for k in mine.keys() | theirs.keys() if not k.startswith("mesh.")} - set(MAY_CHANGE)
    for key in MAY_MOVE:
        mine[key], theirs[key] = bool(mine.get(key)), bool(theirs.get(key))
    other = sorted(k for k in keys if mine.get(k) != theirs.get(k))
    if other:
        changes = ", ".join(
            f"{k} ({theirs.get(k)!r} there, {mine.get(k)!r} now)" for k in other[:3]
        )
        raise BadInput(
            f"{workdir} holds a run of another config: {changes}"
            f"{' and more' if len(other) > 3 else ''}; choose another --workdir."
        )
