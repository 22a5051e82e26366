"""Defines every config key with its default.

A file in configs/ calls `default()`, changes what its method needs, and returns the result. Values
are strings, numbers and tuples of them; ranges.py has the range of every number. Any key can be
overridden on the command line: --config.optim.lr=1e-4.
"""

from ml_collections import ConfigDict

from ssl_guard.errors import BadInput


def default(algorithm: str = "supervised", **hyper_parameters) -> ConfigDict:
    """Returns the defaults with the hyper-parameters of an algorithm in the group of its name."""
    config = ConfigDict()
    config.seed = 0  # initialisation of the head, order of the data, dropout, split
    config.algorithm = algorithm  # a name in ssl_guard/algorithms/__init__.py
    config.supervised = ConfigDict()
    config[algorithm] = ConfigDict(hyper_parameters)

    config.data = data = ConfigDict()
    data.dir = "data"  # prepared corpora, frozen splits and shards; shared by all runs
    data.corpus = "human_scored_responses"  # a name in data/corpora/, or a .jsonl / .csv file
    data.test_corpus = ""  # another corpus that provides the test rows; "": draws data.test rows
    # Comma-separated corpora whose rows join the unlabelled pool. Their labels are not read.
    data.unlabelled_corpus = ""
    # Shares of a batch: of the pool's rows of data.corpus, then of each corpus above, such
    # as (1.0, 3.0); () draws every row of the pool once in an epoch.
    data.unlabelled_weights = ()
    # Comma-separated corpora: no row of the pool may be a near-duplicate of one of their prompts.
    data.other_tests = ""
    data.exact_neighbours = 100_000  # rows above which neighbours are found approximately, by faiss
    data.soft_labels = ""  # folder of a `teach` command, for configs/self_training.py
    # Columns of files. A file with other columns names them after its path, in any config key:
    # more.csv?prompt=text&label=toxic
    data.columns = ConfigDict()
    data.columns.prompt = "prompt"
    data.columns.response = "response"
    data.columns.messages = "messages"  # a conversation, in place of prompt and response
    data.columns.label = "label"
    data.columns.id = "id"
    data.columns.category = "category"
    data.harmful_values = ()  # label values of files; () for 1, true, harmful, unsafe
    data.safe_values = ()  # () for 0, false, safe, unharmful
    data.unknown_values = ()  # label values of unlabelled rows, besides empty ones and nan
    data.harmful_from = 0.0  # labels are probabilities, harmful from this one on; 0 for words
    data.safe_from = 0.0  # the same for probabilities that a row is safe
    # Turns to read of a conversation: "last" of the user and the answer, or the "whole", framed.
    data.conversation = "last"  # see data/conversation.py
    data.bad_rows = "refuse"  # or "skip": leaves out and counts rows of files that cannot be used
    data.task = "response_harm"  # or prompt_harm or content_moderation, see data/schema.py
    data.prompt_corpus = ""  # labelled prompts: trains one model on both tasks, one head each
    data.labelled = 100  # labelled rows; a larger number includes the rows of a smaller one
    data.label_sampling = "balanced"  # as many harmful as safe rows; "random": any
    data.stratified = False  # True: dev and test keep the class shares of all labelled rows
    data.all_labels = False  # True: also trains on the labels of the unlabelled pool (upper bound)
    data.dev = 150  # rows that select the step and the threshold; not read with eval.folds
    data.test = 250  # rows scored once, at the end; not used with a test_corpus
    data.calibration = 0  # rows held out for the `calibrate` command; 0 for none
    data.max_length = 256  # tokens of a text; longer ones lose the start of the prompt first
    data.buckets = (64, 128, 192, 256)  # padded lengths; the train step is compiled for each
    data.num_shapes = 0  # number of padded shapes to choose from the texts; 0 uses the buckets
    data.packing = False  # True packs several short texts into one row; same results, faster
    # Sorting pads less, but batches are not random: if length depends on the class, so do they.
    data.sort_by_length = False
    data.window_steps = 16  # rows of this many steps are sorted, or packed, together
    data.stratified_batches = True  # class shares of a labelled batch: those of all labelled rows

    config.augment = augment = ConfigDict()  # strong views of the unlabelled rows, made once
    augment.name = "tfidf"  # name of the set that `ops` makes, a folder in data/augmented/
    # The recipe: stages, tried in turn until a view passes the gates; see augment/recipe.py. The
    # arguments of an operation are in the group of its name; defaults are in augment/ops.py.
    augment.ops = ("tfidf",)
    augment.copies = 4  # strong views per unlabelled row
    augment.tfidf = ConfigDict()
    augment.tfidf.p = 0.3  # expected share of words replaced
    augment.sets = ()  # names of the sets to train on; () for augment.name alone
    augment.weights = ()  # sampling weights of the sets; () for equal ones
    # Nearest rows of the pool that are a row's strong views in place of the sets; 0 for the sets
    augment.neighbours = 0  # see train/neighbour_views.py
    augment.features = ("lsa",)  # of the cosine of neighbours: one or more of lsa, tfidf, encoder

    augment.gates = gates = ConfigDict()  # filters on the views that `ops` makes; off by default
    gates.refusal = False  # True rejects views in which the rewriting model refused
    gates.overlap = 0.0  # largest share of words in common with the source; 0 for no gate
    gates.length = ()  # smallest and largest length relative to the source, such as (0.5, 2.0)
    gates.language = 0.0  # rejects another language at this confidence; 0 for no gate
    gates.similarity = 0.0  # smallest cosine similarity of MiniLM embeddings; 0 for no gate
    gates.classifier = ""  # workdir of a finished run: rejects views whose predicted class changes
    gates.confidence = 0.8  # confidence of that class from which a view is rejected

    config.model = model = ConfigDict()
    model.name = "all-MiniLM-L6-v2"  # a folder, an installed asset, or a Hugging Face model
    model.num_layers = 0  # number of encoder layers to keep, from the lowest; 0 for all
    model.pooling = "mean"  # mean over the tokens of the text, or cls
    # mlp (dropout, dense, GELU, linear), linear, or hf: the head that transformers gives the
    # encoder, which needs pooling = "cls"; see models/heads.py
    model.head = "mlp"
    model.head_init = "random"  # or logistic: fitted on the labelled rows, see train/head_init.py
    model.num_heads = 1  # classifier heads on the shared encoder
    model.dropout = 0.1  # in the encoder and the head
    model.dtype = "float32"  # or bfloat16: compute dtype of the encoder; weights stay float32
    model.remat = False  # True recomputes activations in the backward pass to save memory

    config.optim = optim = ConfigDict()
    optim.lr = 2e-4  # peak learning rate of the head; encoder layers: see layer_lr_decay
    optim.layer_lr_decay = 0.75  # learning-rate factor from one layer to the one below
    optim.weight_decay = 5e-4  # AdamW's; none on biases and norms
    optim.warmup_steps = 10
    optim.clip_norm = 1.0  # global gradient norm, as for BERT and UDA; USB clips nothing: 0
    # Decay of the moving average of the weights, smaller in the first steps; 0 for no average
    optim.ema_decay = 0.0
    # Regexes of names of frozen parameters. Freezing half the encoder saves a third of the time.
    optim.freeze = ("encoder/embeddings", "encoder/layer_[012]")

    config.train = train = ConfigDict()
    train.steps = 80
    train.supervised_steps = 0  # first updates that use the labelled rows alone
    # Pseudo-labels that are used: by the method's threshold, or the most confident ones by rank
    train.selection = "threshold"
    train.rank_share = 0.5  # with "rank": share of the unlabelled rows that is used
    # True gives the method the hidden labels as its pseudo-labels: an upper bound, not a result.
    train.oracle = False
    # Length of an epoch, after which MultiMatch and MarginMatch set their cut-offs. 0 is a pass
    # over the unlabelled pool; the safety paper's code uses a pass over the labelled rows.
    train.steps_per_epoch = 0
    train.labelled_batch = 16  # global batch sizes
    train.unlabelled_batch = 16
    train.grad_accum_steps = 1  # parts of a batch that run through the model one after another
    train.cache_frozen = False  # True runs the frozen layers once, see train/frozen.py
    train.eval_every_steps = 20  # evaluates dev and writes a checkpoint
    train.keep_last = 2  # latest checkpoints to keep, in addition to the best
    train.on_save_error = "stop"  # or "continue": trains on if a checkpoint cannot be written
    train.log_every_steps = 5
    train.max_nonfinite_steps = 10  # the run stops after this many non-finite steps in a row
    train.float32_check = False  # with bfloat16: also scores dev in float32 and compares
    train.select_by = "auprc"  # dev score that selects the step: f1 (best threshold) or auprc
    train.tensorboard = False  # needs the extra "tensorboard"

    config.teach = teach = ConfigDict()  # soft labels of the pool, see evaluation/teach.py
    teach.combine = "rank"  # averages the teachers' ranks in the pool, or the "probability"
    teach.features = ("lsa", "encoder")  # of the graph that smooths the average; () for no graph
    teach.neighbours = 15
    teach.alpha = 0.5  # weight of the neighbours
    teach.prior = 0.0  # harmful share of the pool, if it is not that of dev; 0 for dev's
    teach.share = 1.0  # share of the pool that is used: the most harmful and the safest rows
    teach.C = 0.01  # inverse L2 penalty of a teacher states:FILE, on states of variance 1
    teach.rounds = 1  # students of `self_train`; each is a teacher of the next

    config.monitor = monitor = ConfigDict()  # alarms on pseudo-labels, see train/monitor.py
    monitor.disable_unlabelled_on_alarm = False  # True: no unlabelled loss while an alarm is up
    monitor.idle_steps = 50  # steps without a used pseudo-label before the alarm
    monitor.window_steps = 20  # steps over which pseudo-label shares are averaged
    monitor.max_kl = 0.4  # nats from the labelled class shares; 92% in one of two balanced classes
    monitor.baseline_run = ""  # workdir of the supervised run to compare dev precision with
    monitor.scored_rows = 2000  # unlabelled rows scored to suggest rows to label next; 0 for none

    config.eval = ConfigDict()
    config.eval.batch = 32
    config.eval.stride = 0  # tokens between windows of a long text; 0 truncates long texts
    # Folds of the labelled rows that select the step and the threshold in place of dev, by cross-
    # validation; 0 for dev. See train/folds.py.
    config.eval.folds = 0
    config.eval.fold = -1  # set by a run with folds: the fold that this run leaves out
    config.eval.bootstrap_samples = 1000  # resamples behind each 95% interval

    # The device mesh: data x fsdp x tensor, where -1 takes the remaining devices. Batch rows are
    # split over data and fsdp, parameters over fsdp and tensor, see runtime/sharding.py. A run may
    # resume on another mesh: results do not depend on it.
    config.mesh = mesh = ConfigDict()
    mesh.data = -1
    mesh.fsdp = 1
    mesh.tensor = 1  # within a process; should divide the number of attention heads
    mesh.shard_pool = False  # True shards a method's per-example state like the rows of a batch

    config.compilation_cache = ".jax_cache"  # compiled programs, for the next run; "" for none
    return config.lock()


def smoke(config: ConfigDict) -> ConfigDict:
    """Shrinks a run to seconds: one encoder layer, a few steps and rows."""
    config.model.num_layers = 1
    config.data.labelled, config.data.dev, config.data.test = 20, 20, 30
    config.data.max_length, config.data.buckets = 64, (64,)
    config.augment.copies = 1
    config.train.steps, config.train.eval_every_steps, config.train.log_every_steps = 4, 2, 1
    config.train.supervised_steps = min(config.train.supervised_steps, 1)
    config.train.labelled_batch, config.train.unlabelled_batch = 8, 8
    config.optim.warmup_steps = 1
    config.eval.bootstrap_samples = 50
    return config


def variant(config: ConfigDict, arg: str | None) -> ConfigDict:
    """Applies the argument of `--config=configs/uda.py:ARG`: "" or "smoke"."""
    if arg not in (None, "", "smoke"):
        raise BadInput(f"a config takes the argument 'smoke' or none, not {arg!r}.")
    return smoke(config) if arg == "smoke" else config


def leaves(config: ConfigDict, prefix: str = "") -> dict:
    """Returns the config as dotted keys: {"data.dir": value, ...}."""
    flat: dict = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
