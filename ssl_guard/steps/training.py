"""The train step: a pure function of arrays, for the loop of this package or your own.

    step = functools.partial(train_step, apply=..., algorithm=..., tx=..., total_steps=...)
    step = jax.jit(step, donate_argnums=0)
    state, metrics = step(state, batch)

A batch is a dict of arrays. Batch sizes are global; the padded length L may differ between views
unless the method works inside the model:

    labelled: input_ids, attention_mask, token_type_ids int32 [B_l, L], row int32 [B_l],
              label int32 [B_l], weight float32 [B_l], index int32 [B_l], position among the
              labelled rows (read by SimMatch, and if init_state got labelled_size)
    weak, strong: input_ids, attention_mask, token_type_ids int32 [B_u, L], row int32 [B_u]
    index: int32 [B_u], position in the unlabelled pool; weight: float32 [B_u]
    hidden_label: int32 [B_u], -1 where unknown; read by the diagnostics and by an oracle alone
    soft_label, soft_weight: float32 [B_u], read by self-training alone

`row` is the row's place in the global batch. Dropout is keyed by it, so that the same batch gives
the same numbers on any number of devices. Views may be packed, see data/packing.py.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ssl_guard.algorithms import (
    NO_COLLECTIVES,
    Algorithm,
    Collectives,
    StepInfo,
    build,
    dropout_key,
)
from ssl_guard.algorithms.losses import Term, weighted
from ssl_guard.errors import BadInput
from ssl_guard.runtime.metrics import Metrics
from ssl_guard.steps import diagnostics, optim
from ssl_guard.steps.accumulate import in_parts, value_and_grad
from ssl_guard.steps.state import TrainState, Watch, skip_unless

NOT_PACKED = (
    "the method works inside the model, where texts must have rows of their own: set "
    "config.data.packing = False."
)
NOT_ACCUMULATED = (
    "methods that work inside the model and packed rows need the whole batch at once: set "
    "config.train.grad_accum_steps = 1."
)

ORACLE_LOGIT = 20.0  # of the true class, the others' being 0: sure to all digits of float32

Apply = Callable[[Any, dict, jax.Array | None, bool], Float[Array, "batch heads classes"]]


def init_state(
    rng: jax.Array,
    params: Any,
    *,
    algorithm: Algorithm,
    tx: optax.GradientTransformation,
    pool_size: int,
    num_classes: int,
    num_heads: int,
    ema_decay: float = 0.0,
    labelled_size: int = 0,
    width: int = 0,
) -> TrainState:
    """Returns the state before the first step. ema_decay 0 keeps no average of the weights.

    labelled_size: the number of labelled rows, for the margins of their labels and for methods with
    a `forward`; width: the number of features, for the latter.
    Raises BadInput for a method whose teacher is the average if none is kept.
    """
    if algorithm.teacher == "ema" and ema_decay == 0:
        raise BadInput(
            "the method's teacher is the moving average of the weights, which is off: set "
            "config.optim.ema_decay, for example to 0.99."
        )
    sizes = {} if algorithm.forward is None else {"labelled_size": labelled_size, "width": width}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params) if ema_decay > 0 else None,
        opt_state=tx.init(params),
        # Copies, because one array under two names cannot be donated to the compiled step.
        algo_state=jax.tree.map(
            jnp.copy, algorithm.init_state(pool_size, num_classes, num_heads, **sizes)
        ),
        rng=rng,
        watch=Watch(
            margin_sum=jnp.zeros(labelled_size),
            visits=jnp.zeros(labelled_size, jnp.int32),
            brake=jnp.zeros(()),
        ),
    )


def train_step(
    state: TrainState,
    batch: dict,
    *,
    apply: Apply,
    algorithm: Algorithm,
    tx: optax.GradientTransformation,
    total_steps: int,
    stages: Any = None,
    steps_per_epoch: int = 1,
    freeze: tuple[str, ...] = (),
    ema_decay: float = 0.0,
    accumulate: int = 1,
    axis_name: str | None = None,
    method_start: int = 0,
    oracle: bool = False,
) -> tuple[TrainState, Metrics]:
    """Runs one update: supervised loss plus the algorithm's loss on the unlabelled rows.

    The weak view runs without gradient (with dropout, by the current or the averaged weights), the
    labelled and the strong view with gradient: one forward pass per view. Losses are ratios of sums
    over the global batch. Under jit on a mesh this needs no argument; inside pmap, or shard_map
    with check_vma=False, axis_name is the axis that splits the batch, and the numbers are the same.
    steps_per_epoch: of the algorithm's clock, usually a pass over the unlabelled pool. stages: the
    model in parts (`models.Stages`), for methods whose own `forward` replaces these passes.
    While state.watch.brake is 1 only the supervised loss counts; targets and metrics are computed
    all the same. A step whose loss or gradient is not finite changes only state.step: its metric
    `skipped` is 1 and the other metrics have weight 0.

    accumulate: number of parts of every view that run through the model one after the other, to
    save memory. Losses and their gradients in the logits are those of the whole batch: the logits
    are computed first, without gradient, and every part runs again for its gradient. This gives the
    same numbers for about a third more work (as GradCache, Gao et al., arXiv 2101.06983).

    method_start: updates before the method's clock starts, see `supervised_start`.
    oracle: gives the method hidden labels, where known, in place of its own guesses.

    Returns the next state and metrics as (sum, weight) pairs. When traced, raises BadInput for a
    method with a `forward` without `stages` or with packed rows, and for accumulation with either.
    """

    if algorithm.forward is not None and stages is None:
        raise BadInput(
            "the method works inside the model, not only on its logits: pass train_step "
            "stages=models.build(...).stages, or those of your own model (see models.Stages)."
        )
    if algorithm.forward is not None and "text" in batch["labelled"]:
        raise BadInput(NOT_PACKED)
    if accumulate > 1 and (algorithm.forward is not None or "text" in batch["labelled"]):
        raise BadInput(NOT_ACCUMULATED)
    across = NO_COLLECTIVES
    if axis_name is not None:
        across = Collectives(
            sum=lambda x: jax.lax.psum(x, axis_name),
            gather=lambda x: jax.lax.all_gather(x, axis_name, tiled=True),
        )
    rng = jax.random.fold_in(state.rng, state.step)
    method_step = state.step - method_start
    clock = StepInfo(
        step=method_step,
        progress=method_step.astype(jnp.float32) / max(total_steps - method_start, 1),
        epoch=method_step // steps_per_epoch,
        epoch_ends=(method_step + 1) % steps_per_epoch == 0,
        rng=rng,
    )

    def run(params, rows, view):
        key = dropout_key(rng, view)
        if view != "strong" or not algorithm.view_per_head:
            return apply(params, rows, key, True)
        passes = [apply(params, rows, key, True) for key in jax.random.split(key, weak.shape[1])]
        return jnp.stack([logits[:, head] for head, logits in enumerate(passes)], axis=1)

    weak = None
    if "weak" in algorithm.views and algorithm.forward is None:
        teacher = state.ema_params if algorithm.teacher == "ema" else state.params
        weak = in_parts(lambda rows: run(teacher, rows, "weak"), batch["weak"], accumulate)
        weak = jax.lax.stop_gradient(weak)

    with_gradient = {view: batch[view] for view in ("labelled", *algorithm.views) if view != "weak"}

    def logits_of(params, views):
        params = optim.stop_frozen(params, freeze)
        if algorithm.forward is not None:
            return algorithm.forward(stages, params, batch, clock, across)
        return {view: run(params, rows, view) for view, rows in views.items()}

    def judge(logits):
        """Returns the objective as a function of the logits, and by-products."""
        seen, taught = jax.lax.stop_gradient(logits), batch
        if weak is not None:
            seen |= {"weak": weak}
        if oracle:
            seen |= _true_logits(seen, batch["hidden_label"], algorithm)
            taught = batch | _true_soft_labels(batch)
        algo_state, target = algorithm.target(state.algo_state, seen, taught, clock, across)
        algo_state, target = jax.lax.stop_gradient((algo_state, target))
        terms = algorithm.loss(logits, target, batch, clock)
        # Each device adds its own rows over the global count, so that summing the devices'
        # gradients gives the gradient of the global ratio.
        counts = {name: across.sum(term.counts.sum()) for name, term in terms.items()}
        total = sum(
            (1.0 if name == "supervised" else 1.0 - state.watch.brake)
            * term.coefficient
            * weighted(term.losses, term.weights).sum()
            / jnp.maximum(counts[name], 1.0)
            for name, term in terms.items()
        )
        return total, (algo_state, terms, target, seen)

    (total, (algo_state, terms, target, seen)), grads = value_and_grad(
        logits_of, judge, state.params, with_gradient, accumulate
    )
    total, grads = across.sum((total, grads))
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss/total": (total, jnp.ones(())), "grad_norm": (grad_norm, jnp.ones(()))}
    metrics |= across.sum(term_metrics(terms))
    if target is not None:
        metrics |= across.sum(
            diagnostics.pseudo_label_metrics(
                target, seen.get("weak", seen.get("strong")), batch["weight"], batch["hidden_label"]
            )
        )
        # A count of the global batch: its weight must not be summed over devices.
        metrics["pseudo/used"] = (metrics["pseudo/share_0"][1], jnp.ones(()))
    next_state = TrainState(
        step=state.step + 1,
        params=params,
        ema_params=optim.update_average(state.ema_params, params, ema_decay, state.step),
        opt_state=opt_state,
        algo_state=algo_state,
        rng=state.rng,
        watch=_watch(state.watch, seen.get("labelled"), batch["labelled"], across),
    )
    finite = jnp.isfinite(total) & jnp.isfinite(grad_norm)
    return skip_unless(finite, state, next_state, metrics)


def _true_logits(seen: dict, hidden_label, algorithm: Algorithm) -> dict:
    """Returns the logits behind the pseudo-labels, as if the model were sure of the hidden labels.

    Its own logits stay where the label is unknown.
    Methods inside the model may guess from both views; the others read the strong one only for
    losses of their own, unless it is their only view.
    """
    both = algorithm.forward is not None or "weak" not in algorithm.views
    found = {}
    for view in ("weak", "strong") if both else ("weak",):
        if view in seen:
            sure = ORACLE_LOGIT * jax.nn.one_hot(hidden_label, seen[view].shape[-1])[:, None]
            found[view] = jnp.where((hidden_label >= 0)[:, None, None], sure, seen[view])
    return found


def _true_soft_labels(batch: dict) -> dict:
    """Returns the hidden labels as soft labels; where unknown, the batch's own or none."""
    hidden, own = batch["hidden_label"], jnp.zeros(batch["weight"].shape)
    known = hidden >= 0
    return {
        "soft_label": jnp.where(known, hidden, batch.get("soft_label", own)),
        "soft_weight": jnp.where(known, 1.0, batch.get("soft_weight", own)),
    }


def supervised_start(train_step: Callable, supervised_steps: int) -> Callable:
    """Returns a train step whose first `supervised_steps` updates are supervised ones.

    Pseudo-labels of the initial, random head would be noise. In these updates the unlabelled views
    do not run and the method's state stays as it is; its clock, ramps and epochs start after them.
    train_step: a functools.partial of `train_step`.
    """
    method = functools.partial(train_step, method_start=supervised_steps)

    def step(state: TrainState, batch: dict) -> tuple[TrainState, Metrics]:
        unmeasured = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(method, state, batch)[1]
        )

        def supervised(state, batch):
            state, metrics = train_step(state, batch, algorithm=build("supervised"))
            return state, unmeasured | metrics

        return jax.lax.cond(state.step < supervised_steps, supervised, method, state, batch)

    return step


def _watch(watch: Watch, logits, labelled: dict, across: Collectives) -> Watch:
    """Adds the margins of this step's labelled rows. Mixing methods have no logits of these rows;
    without the labelled_size of init_state no margins are kept."""
    if logits is None or watch.visits.size == 0:
        return watch
    margin = diagnostics.true_class_margins(logits, labelled["label"])
    index, weight, margin = across.gather((labelled["index"], labelled["weight"], margin))
    counts = weight > 0
    return watch._replace(
        margin_sum=watch.margin_sum.at[index].add(jnp.where(counts, margin, 0.0), mode="drop"),
        visits=watch.visits.at[index].add(counts.astype(jnp.int32), mode="drop"),
    )


def term_metrics(terms: dict[str, Term]) -> Metrics:
    """Returns each term's loss, before its coefficient, as (sum, weight)."""
    return {
        f"loss/{name}": (weighted(term.losses, term.weights).sum(), term.counts.sum())
        for name, term in terms.items()
    }
