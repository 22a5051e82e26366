"""Every key of a run's config with its default, and the checks that need no data.

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

# What a resumed run may have otherwise: no number of its report hangs on it.
MAY_CHANGE = (
    "compilation_cache",
    "train.keep_last",
    "train.on_save_error",
    "train.tensorboard",
)


def default() -> ConfigDict:
    """The defaults; each key is explained where it is set."""
    config = ConfigDict()
    config.seed = 0  # initialisation of the head, order of the data, dropout, split
    config.algorithm = "supervised"  # a name in ssl_guard/algorithms/__init__.py
    config.supervised = ConfigDict()  # hyper-parameters of the algorithm live under its name

    config.data = data = ConfigDict()
    data.dir = "data"  # prepared corpora, frozen splits and shards; shared by all runs
    data.corpus = "human_scored_responses"  # a name in data/corpora/, or a .jsonl / .csv file
    data.test_corpus = ""  # another corpus whose labelled rows are the test side; "" draws `test`
    # More corpora, with commas between, whose rows join the unlabelled pool, labels unread.
    data.unlabelled_corpus = ""
    # For files: which column is the prompt, response, label, id. A file that differs says so behind
    # its name, here and in every other place: more.csv?prompt=text&label=toxic
    data.columns = ConfigDict()
    data.columns.prompt = "prompt"
    data.columns.response = "response"
    data.columns.label = "label"
    data.columns.id = "id"
    data.columns.category = "category"
    data.harmful_values = ()  # for files: label values that mean harmful, instead of the usual ones
    data.safe_values = ()  # (1, true, harmful, unsafe; 0, false, safe, unharmful)
    data.task = "response_harm"  # or prompt_harm or content_moderation, see data/schema.py
    data.prompt_corpus = (
        ""  # prompts with labels of their own: both tasks, a head each, in one model
    )
    data.labelled = 100  # labelled rows; those of a smaller number are among them
    data.balance = "balanced"  # half of them harmful; or natural: as they come
    data.stratified = False  # True: drawn sides have the classes' shares of all rows with a label
    data.all_labels = False  # the unlabelled rows' hidden labels are used too: the ceiling
    data.dev = 150  # rows that choose the step and the threshold
    data.test = 250  # rows that are read once, at the end; unread with a test_corpus
    data.calibration = 0  # rows on no other side, for ssl_guard calibrate; 0 for none
    data.max_length = 256  # tokens of a pair; longer ones lose the start of the prompt first
    data.buckets = (64, 128, 192, 256)  # padded lengths, so the compiled shapes of the train step
    data.shapes = 0  # so many shapes of the train step are chosen from the texts; 0 for the buckets
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
    gates.classifier = ""  # workdir of a finished run: rejects views that change its mind
    gates.confidence = 0.8  # that it must have in the other class

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
        2e-4  # peak learning rate of the head; the encoder's layers get less, see layer_decay
    )
    optim.layer_decay = 0.75  # learning-rate factor from one layer to the one below
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
    train.accumulate = 1  # parts of a batch that go through the model one after the other
    train.eval_every_steps = 20  # evaluates dev and writes a checkpoint
    train.keep_last = 2  # newest checkpoints that are kept, beside the best
    train.on_save_error = "stop"  # or "continue", when the disk refuses a checkpoint but the last
    train.log_every_steps = 5
    train.max_skipped = 10  # steps in a row without a finite loss and gradient that end the run
    train.float32_check = False  # with bfloat16: dev is scored in float32 too, and compared
    train.select_by = "auprc"  # dev score that chooses the step: f1 (best on dev) or auprc
    train.tensorboard = False  # needs the extra "tensorboard"

    # Alarms on pseudo-labels, see observatory.py; metrics and report always say which were up.
    config.brake = False  # True: no unlabelled loss while an alarm is up
    config.observatory = watch = ConfigDict()
    watch.idle_steps = 50  # without a used pseudo-label
    watch.window_steps = 20  # over which the shares of the pseudo-labels are taken
    watch.max_kl = 0.4  # nats from the classes of the labelled rows; 92% in one of two, half each
    watch.max_repeated = 0.1  # share of strong views that say what another row's view says
    watch.twin = ""  # workdir of the finished supervised twin, whose dev precision is the bar
    watch.listed = 20  # ids in the report: suspect labels, rows worth labelling next
    watch.scored_rows = 2000  # unlabelled rows scored at the end to find the latter, 0 for none

    config.eval = ConfigDict()
    config.eval.batch = 32
    config.eval.windows = 0  # tokens from one window of a long text to the next; 0 cuts long texts
    config.eval.bootstrap = 1000  # resamples behind each 95% interval

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
    """The same run cut down to seconds: one encoder layer, a few steps and rows."""
    config.model.num_layers = 1
    config.data.labelled, config.data.dev, config.data.test = 20, 20, 30
    config.data.max_length, config.data.buckets = 64, (64,)
    config.augment.copies = 1
    config.train.steps, config.train.eval_every_steps, config.train.log_every_steps = 4, 2, 1
    config.train.labelled_batch, config.train.unlabelled_batch = 8, 8
    config.optim.warmup_steps = 1
    config.eval.bootstrap = 50
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
    if data.shapes < 0:
        raise BadInput(f"config.data.shapes = {data.shapes} must be at least 0.")
    positive = {
        "data.labelled": data.labelled,
        "data.dev": data.dev,
        "data.test": data.test,
        "data.window_steps": data.window_steps,
        "augment.copies": config.augment.copies,
        "model.num_heads": config.model.num_heads,
        "train.steps": train.steps,
        "train.labelled_batch": train.labelled_batch,
        "train.unlabelled_batch": train.unlabelled_batch,
        "train.max_skipped": train.max_skipped,
        "train.keep_last": train.keep_last,
        "train.accumulate": train.accumulate,
        "train.eval_every_steps": train.eval_every_steps,
        "train.log_every_steps": train.log_every_steps,
        "observatory.idle_steps": config.observatory.idle_steps,
        "observatory.window_steps": config.observatory.window_steps,
        "eval.batch": config.eval.batch,
        "eval.bootstrap": config.eval.bootstrap,
    }
    for key, value in positive.items():
        if value < 1:
            raise BadInput(f"config.{key} = {value} must be at least 1.")
    _check_sets(config.augment)
    _check_mesh(config.mesh)
    if config.algorithm == "mlm" and train.accumulate > 1:
        raise BadInput(
            "config.train.accumulate is not for configs/mlm.py: lower config.mlm.batch instead."
        )
    choices = {
        "model.pooling": (config.model.pooling, ("mean", "cls")),
        "model.head": (config.model.head, ("mlp", "linear")),
        "model.dtype": (config.model.dtype, ("float32", "bfloat16")),
        "train.on_save_error": (train.on_save_error, ("stop", "continue")),
        "train.select_by": (train.select_by, ("f1", "auprc")),
        "data.task": (data.task, ("response_harm", "prompt_harm", "content_moderation")),
        "data.balance": (data.balance, ("balanced", "natural")),
    }
    for key, (value, known) in choices.items():
        if value not in known:
            raise BadInput(f"config.{key} = {value!r} must be one of {', '.join(known)}.")
    if train.float32_check and config.model.dtype == "float32":
        raise BadInput(
            "config.train.float32_check compares bfloat16 with float32: set config.model.dtype = "
            "'bfloat16', or leave the check out."
        )
    if not 0 <= config.eval.windows <= data.max_length:
        raise BadInput(
            f"config.eval.windows = {config.eval.windows} must be between 0 (long texts are cut) "
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
    """Which key was meant: the closest sibling, else the same name elsewhere in the tree."""
    keys = leaves(config)
    parent = ".".join(path[:depth])
    siblings = [key for key in keys if key.startswith(parent + "." if parent else "")]
    wanted = ".".join(path)
    near = difflib.get_close_matches(wanted, siblings, n=1, cutoff=0.5)
    near = near or [key for key in keys if key.split(".")[-1] == path[-1]]
    near = near or difflib.get_close_matches(wanted, keys, n=1, cutoff=0.0)
    return f"did you mean config.{near[0]}?"


def as_json(config: ConfigDict) -> dict:
    """The config as dotted keys and the values that JSON gives back."""
    return json.loads(json.dumps(leaves(config)))


def from_json(flat: dict) -> ConfigDict:
    """The config of these dotted keys (see `as_json`), with today's defaults for keys that are
    younger than the file; keys that have gone since stay, and nobody reads them."""
    config = default().unlock()
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


def leaves(config: ConfigDict, prefix: str = "") -> dict:
    """{"data.dir": value, ...}: the config as dotted keys."""
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
    mine, theirs = as_json(config), json.loads(path.read_text())
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
