"""Defines every config key with its default, and the checks that need no data.

A file in configs/ calls `default()`, changes what its method needs, and returns the result. Values
are strings, numbers and tuples of them. Any key can be overridden on the command line:
--config.optim.lr=1e-4.
"""

import difflib
import json
import re
from pathlib import Path

from ml_collections import ConfigDict

from ssl_guard.errors import BadInput

# Keys that may differ when a run resumes. They do not affect results.
MAY_CHANGE = (
    "compilation_cache",
    "train.keep_last",
    "train.on_save_error",
    "train.tensorboard",
)

# Old names of keys, so that `from_json` reads the config.json of older runs.
RENAMED = {
    "brake": "monitor.disable_unlabelled_on_alarm",
    "data.balance": "data.label_sampling",
    "data.shapes": "data.num_shapes",
    "eval.bootstrap": "eval.bootstrap_samples",
    "eval.windows": "eval.stride",
    "observatory.idle_steps": "monitor.idle_steps",
    "observatory.listed": "monitor.listed",
    "observatory.max_kl": "monitor.max_kl",
    "observatory.max_repeated": "monitor.max_repeated",
    "observatory.scored_rows": "monitor.scored_rows",
    "observatory.twin": "monitor.baseline_run",
    "observatory.window_steps": "monitor.window_steps",
    "optim.layer_decay": "optim.layer_lr_decay",
    "train.grad_accum_steps": "train.grad_accum_steps",
    "train.max_skipped": "train.max_nonfinite_steps",
}
RENAMED_VALUES = {("data.label_sampling", "natural"): "random"}

POSITIVE = (
    "data.labelled",
    "data.dev",
    "data.test",
    "data.window_steps",
    "augment.copies",
    "model.num_heads",
    "train.steps",
    "train.labelled_batch",
    "train.unlabelled_batch",
    "train.max_nonfinite_steps",
    "train.keep_last",
    "train.grad_accum_steps",
    "train.eval_every_steps",
    "train.log_every_steps",
    "monitor.idle_steps",
    "monitor.window_steps",
    "eval.batch",
    "eval.bootstrap_samples",
)
CHOICES = {
    "model.pooling": ("mean", "cls"),
    "model.head": ("mlp", "linear"),
    "model.dtype": ("float32", "bfloat16"),
    "train.on_save_error": ("stop", "continue"),
    "train.select_by": ("f1", "auprc"),
    "data.task": ("response_harm", "prompt_harm", "content_moderation"),
    "data.label_sampling": ("balanced", "random"),
}


def default() -> ConfigDict:
    """Returns the defaults; each key is explained where it is set."""
    config = ConfigDict()
    config.seed = 0  # initialisation of the head, order of the data, dropout, split
    config.algorithm = "supervised"  # a name in ssl_guard/algorithms/__init__.py
    config.supervised = ConfigDict()  # hyper-parameters of the algorithm live under its name

    config.data = data = ConfigDict()
    data.dir = "data"  # prepared corpora, frozen splits and shards; shared by all runs
    data.corpus = "human_scored_responses"  # a name in data/corpora/, or a .jsonl / .csv file
    data.test_corpus = ""  # another corpus whose labelled rows are the test side; "" draws `test`
    # Comma-separated corpora whose rows join the unlabelled pool. Their labels are not read.
    data.unlabelled_corpus = ""
    # Columns of files. A file with other columns names them after its path, in any config key:
    # more.csv?prompt=text&label=toxic
    data.columns = ConfigDict()
    data.columns.prompt = "prompt"
    data.columns.response = "response"
    data.columns.label = "label"
    data.columns.id = "id"
    data.columns.category = "category"
    data.harmful_values = ()  # for files: label values that mean harmful, instead of the usual ones
    data.safe_values = ()  # (1, true, harmful, unsafe; 0, false, safe, unharmful)
    data.task = "response_harm"  # or prompt_harm or content_moderation, see data/schema.py
    data.prompt_corpus = ""  # labelled prompts: trains both tasks in one model, a head each
    data.labelled = 100  # labelled rows; those of a smaller number are among them
    data.label_sampling = "balanced"  # half of the labelled rows harmful; "random": as drawn
    data.stratified = False  # True: dev and test keep the class shares of all labelled rows
    data.all_labels = False  # True: also trains on the pool's hidden labels (the ceiling)
    data.dev = 150  # rows that choose the step and the threshold
    data.test = 250  # rows scored once, at the end; unused with a test_corpus
    data.calibration = 0  # rows kept for the `calibrate` command; 0 for none
    data.max_length = 256  # tokens of a pair; longer ones lose the start of the prompt first
    data.buckets = (64, 128, 192, 256)  # padded lengths, so the compiled shapes of the train step
    data.num_shapes = 0  # padded shapes chosen from the texts; 0 uses the buckets
    data.packing = False  # several short texts in one row; the same numbers, cheaper
    data.window_steps = 16  # rows of so many steps are sorted by length together

    config.augment = augment = ConfigDict()  # strong views of the unlabelled rows, made once
    augment.name = "tfidf"  # of the set that `ops` makes, a folder in data/augmented/
    # The recipe: stages, tried in turn until a view passes the gates; see augment/recipe.py. The
    # arguments of an operation are in a group of its name; what is not there has the default of the
    # operation's function, see augment/ops.py.
    augment.ops = ("tfidf",)
    augment.copies = 4  # strong views per unlabelled row
    augment.tfidf = ConfigDict()
    augment.tfidf.p = 0.3  # expected share of words replaced
    augment.sets = ()  # names of the sets to train on; () is the one above
    augment.weights = ()  # how often each of them is drawn; () draws them equally often

    augment.gates = gates = ConfigDict()  # of the set that `ops` makes; none unless asked for
    gates.refusal = False  # True rejects views that refuse to rewrite
    gates.overlap = 0.0  # most words in common with the source, 0 to 1; 0 for no gate
    gates.length = ()  # shortest and longest view as a share of its source, such as (0.5, 2.0)
    gates.language = 0.0  # confidence at which another language is rejected; not if ops change it
    gates.similarity = 0.0  # least cosine of the embeddings of source and view, by MiniLM
    gates.classifier = ""  # workdir of a finished run: rejects views whose predicted class changes
    gates.confidence = 0.8  # confidence in the other class at which a view is rejected

    config.model = model = ConfigDict()
    model.name = "all-MiniLM-L6-v2"  # a folder, an installed asset, or a Hugging Face model
    model.num_layers = 0  # use the lowest n encoder layers only, 0 for all
    model.pooling = "mean"  # mean over real tokens, or cls
    model.head = "mlp"  # mlp (dropout, dense, GELU, linear) or linear
    model.num_heads = 1  # classifier heads on the shared encoder
    model.dropout = 0.1  # in the encoder and the head
    model.dtype = (
        "float32"  # float32 or bfloat16 for the encoder's arithmetic; weights stay float32
    )

    model.remat = False  # True: compute layers again in the backward pass, for less memory

    config.optim = optim = ConfigDict()
    optim.lr = (
        2e-4  # peak learning rate of the head; the encoder's layers get less, see layer_lr_decay
    )
    optim.layer_lr_decay = 0.75  # learning-rate factor from one layer to the one below
    optim.weight_decay = 5e-4  # AdamW's, none on biases and norms
    optim.warmup_steps = 10
    optim.clip_norm = 1.0  # global gradient norm, 0 for none
    optim.ema_decay = 0.0  # moving average of the weights, 0 for none
    # Regexes of parameter names that do not learn: half of the encoder, for a third less time.
    optim.freeze = ("encoder/embeddings", "encoder/layer_[012]")

    config.train = train = ConfigDict()
    train.steps = 80
    # What the method takes for an epoch: MultiMatch and MarginMatch set cut-offs at its end. 0 is a
    # pass over the unlabelled pool; the safety paper's code takes a pass over the labelled rows.
    train.steps_per_epoch = 0
    train.labelled_batch = 16  # global batch sizes
    train.unlabelled_batch = 16
    train.grad_accum_steps = 1  # parts of a batch that run through the model one after another
    train.eval_every_steps = 20  # evaluates dev and writes a checkpoint
    train.keep_last = 2  # newest checkpoints that are kept, beside the best
    train.on_save_error = "stop"  # or "continue", when the disk refuses a checkpoint but the last
    train.log_every_steps = 5
    train.max_nonfinite_steps = 10  # a run ends after this many such steps in a row
    train.float32_check = False  # with bfloat16: dev is scored in float32 too, and compared
    train.select_by = "auprc"  # dev score that chooses the step: f1 (best on dev) or auprc
    train.tensorboard = False  # needs the extra "tensorboard"

    # Alarms on pseudo-labels, see train/monitor.py. Metrics and report list those that were up.
    config.monitor = monitor = ConfigDict()
    monitor.disable_unlabelled_on_alarm = False  # True: no unlabelled loss while an alarm is up
    monitor.idle_steps = 50  # steps without a used pseudo-label before the alarm
    monitor.window_steps = 20  # steps over which pseudo-label shares are averaged
    monitor.max_kl = 0.4  # nats from the classes of the labelled rows; 92% in one of two, half each
    monitor.max_repeated = 0.1  # largest share of strong views equal to another row's view
    monitor.baseline_run = ""  # workdir of the supervised run whose dev precision is the bar
    monitor.listed = 20  # ids in the report: suspect labels, rows to label next
    monitor.scored_rows = 2000  # unlabelled rows scored to find rows to label next; 0 for none

    config.eval = ConfigDict()
    config.eval.batch = 32
    config.eval.stride = 0  # tokens between windows of a long text; 0 truncates long texts
    config.eval.bootstrap_samples = 1000  # resamples behind each 95% interval

    # The devices, of all processes: data x fsdp x tensor, where -1 takes what is left. Rows of a
    # batch are split over data and fsdp, parameters over fsdp and tensor, see sharding.py. A run
    # may go on with another mesh: it moves no number.
    config.mesh = mesh = ConfigDict()
    mesh.data = -1
    mesh.fsdp = 1
    mesh.tensor = 1  # within a process; the attention heads should be a multiple
    mesh.shard_pool = False  # True splits what a method keeps of every pool row like a batch's rows

    config.compilation_cache = (
        ".jax_cache"  # compiled programs, reused by the next run; "" for none
    )
    return config.lock()


def smoke(config: ConfigDict) -> ConfigDict:
    """Shrinks a run to seconds: one encoder layer, a few steps and rows."""
    config.model.num_layers = 1
    config.data.labelled, config.data.dev, config.data.test = 20, 20, 30
    config.data.max_length, config.data.buckets = 64, (64,)
    config.augment.copies = 1
    config.train.steps, config.train.eval_every_steps, config.train.log_every_steps = 4, 2, 1
    config.train.labelled_batch, config.train.unlabelled_batch = 8, 8
    config.optim.warmup_steps = 1
    config.eval.bootstrap_samples = 50
    return config


def variant(config: ConfigDict, arg: str | None) -> ConfigDict:
    """Applies the argument of `--config=configs/uda.py:ARG`: "" or "smoke"."""
    if arg not in (None, "", "smoke"):
        raise BadInput(f"a config takes the argument 'smoke' or none, not {arg!r}.")
    return smoke(config) if arg == "smoke" else config


def check(config: ConfigDict) -> None:
    """Raises BadInput for values that no run can use."""
    data, train = config.data, config.train
    buckets = tuple(data.buckets)
    if not buckets or list(buckets) != sorted(set(buckets)) or buckets[-1] != data.max_length:
        raise BadInput(
            f"config.data.buckets = {buckets} must rise and end at config.data.max_length = "
            f"{data.max_length}."
        )
    if data.num_shapes < 0:
        raise BadInput(f"config.data.num_shapes = {data.num_shapes} must be at least 0.")
    values = leaves(config)
    for key in POSITIVE:
        if values[key] < 1:
            raise BadInput(f"config.{key} = {values[key]} must be at least 1.")
    _check_sets(config.augment)
    _check_mesh(config.mesh)
    if config.algorithm == "mlm" and train.grad_accum_steps > 1:
        raise BadInput(
            "config.train.grad_accum_steps is not for configs/mlm.py: lower config.mlm.batch."
        )
    for key, known in CHOICES.items():
        if values[key] not in known:
            raise BadInput(f"config.{key} = {values[key]!r} must be one of {', '.join(known)}.")
    if train.float32_check and config.model.dtype == "float32":
        raise BadInput(
            "config.train.float32_check compares bfloat16 with float32: set config.model.dtype = "
            "'bfloat16', or leave the check out."
        )
    if not 0 <= config.eval.stride <= data.max_length:
        raise BadInput(
            f"config.eval.stride = {config.eval.stride} must be between 0 (long texts are cut) "
            f"and config.data.max_length = {data.max_length}."
        )
    if config.algorithm not in config:
        raise BadInput(
            f"config.algorithm = {config.algorithm!r} has no group config.{config.algorithm} for "
            "its hyper-parameters: set it in the config file."
        )


def _check_mesh(mesh: ConfigDict) -> None:
    axes = {name: mesh[name] for name in ("data", "fsdp", "tensor")}
    if list(axes.values()).count(-1) > 1 or any(n < 1 and n != -1 for n in axes.values()):
        shown = ", ".join(f"{name} {n}" for name, n in axes.items())
        raise BadInput(
            f"config.mesh ({shown}) must have numbers of at least 1 and at most one -1, for what "
            "is left."
        )


def _check_sets(augment: ConfigDict) -> None:
    names, weights = (augment.name, *augment.sets), tuple(augment.weights)
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
            raise BadInput(
                f"config.augment.name and config.augment.sets name folders: {name!r} must be of "
                "letters, digits, _ - and dots."
            )
    if len(set(augment.sets)) < len(augment.sets):
        raise BadInput(f"config.augment.sets = {tuple(augment.sets)} names a set twice.")
    if weights and (len(weights) != max(len(augment.sets), 1) or min(weights) <= 0):
        raise BadInput(
            f"config.augment.weights = {weights} must be a positive number for each of "
            f"config.augment.sets = {tuple(augment.sets)}, or () for equal ones."
        )


def check_overrides(config: ConfigDict, arguments: list[str]) -> None:
    """Raises BadInput for a command-line override of an unknown key, naming the near one.

    arguments: the command line, of which only --config.some.key[=value] are looked at.
    """
    for argument in arguments:
        if not argument.startswith("--config."):
            continue
        path = argument.removeprefix("--config.").split("=", 1)[0].split(".")
        node = config
        for depth, key in enumerate(path):
            if not isinstance(node, ConfigDict) or key not in node:
                asked = "config." + ".".join(path[: depth + 1])
                raise BadInput(f"there is no {asked}: {_nearest(config, path, depth)}")
            node = node[key]


def _nearest(config: ConfigDict, path: list[str], depth: int) -> str:
    """Suggests a key: the closest sibling, else the same name elsewhere in the tree."""
    keys = leaves(config)
    parent = ".".join(path[:depth])
    siblings = [key for key in keys if key.startswith(parent + "." if parent else "")]
    wanted = ".".join(path)
    near = difflib.get_close_matches(wanted, siblings, n=1, cutoff=0.5)
    near = near or [key for key in keys if key.split(".")[-1] == path[-1]]
    near = near or difflib.get_close_matches(wanted, keys, n=1, cutoff=0.0)
    return f"did you mean config.{near[0]}?"


def as_json(config: ConfigDict) -> dict:
    """Returns the config as dotted keys with JSON values."""
    return json.loads(json.dumps(leaves(config)))


def from_json(flat: dict) -> ConfigDict:
    """Returns the config of dotted keys (see `as_json`), written by this or an older version.

    Keys that are missing get today's defaults. Keys that no longer exist stay unread.
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
    """Replaces keys and values by their names of today, see RENAMED."""
    renamed = {RENAMED.get(key, key): value for key, value in flat.items()}
    return {
        key: RENAMED_VALUES.get((key, value), value) if isinstance(value, str) else value
        for key, value in renamed.items()
    }


def leaves(config: ConfigDict, prefix: str = "") -> dict:
    """Returns the config as dotted keys: {"data.dir": value, ...}."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def refuse_other(workdir: Path, config: ConfigDict) -> None:
    """Raises BadInput for the workdir of a run of another config, but for keys of MAY_CHANGE and
    config.mesh, which moves no number."""
    path = workdir / "config.json"
    if not path.exists():
        return
    mine, theirs = as_json(config), current_keys(json.loads(path.read_text()))
    keys = {k for k in mine.keys() | theirs.keys() if not k.startswith("mesh.")} - set(MAY_CHANGE)
    other = sorted(k for k in keys if mine.get(k) != theirs.get(k))
    if other:
        changes = ", ".join(
            f"{k} ({theirs.get(k)!r} there, {mine.get(k)!r} now)" for k in other[:3]
        )
        raise BadInput(
            f"{workdir} holds a run of another config: {changes}"
            f"{' and more' if len(other) > 3 else ''}; choose another --workdir."
        )
