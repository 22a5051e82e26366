"""The device mesh and the placement of state and batches on it.

The mesh has three axes. Rows of a batch are split over `data` and `fsdp`; a parameter is split over
`fsdp` (every device keeps a part and fetches the rest when a layer needs it; Zhao et al., arXiv
2304.11277) and over `tensor` (a device computes its part of a layer; Shoeybi et al., arXiv
1909.08053) as RULES says. The step itself knows nothing of this: XLA puts the communication in.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssl_guard.errors import BadInput

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")  # the axes that split the rows of a batch, and those of the pool

# Ends of the names of parameters, for all architectures in models/, and how their dimensions are
# split. The averaged weights and the optimiser's moments end in the same names. The first match
# counts; what matches none, and a dimension that its axes do not divide, is whole on every device.
RULES = (
    # Attention heads, and the hidden units of the feed-forward layer, are shared out.
    (r"(query|key|value|query_key_value|position_query|position_key)/kernel", ("fsdp", "tensor")),
    (r"(query|key|value|query_key_value|position_query|position_key)/bias", ("tensor",)),
    (r"attention/output/kernel", ("tensor", "fsdp")),
    (r"feed_forward/up/kernel", ("fsdp", "tensor")),
    (r"feed_forward/up/bias", ("tensor",)),
    (r"feed_forward/down/kernel", ("tensor", "fsdp")),
    # Tables are split by their width: a vocabulary is seldom a multiple of anything.
    (r"embeddings(_relative)?/\w+/embedding", (None, "fsdp")),
    (r"convolution/kernel", (None, None, "fsdp")),
    # Projections of embeddings, and the heads' hidden layers.
    (r"((embeddings_)?projection|dense(_\d+)?)/kernel", ("fsdp", None)),
)
# Names of the arrays of algorithm state that have a row for every example of the pool.
POOL = r"algo_state/(.+/)?(selected|margins|visits|label|agreed|virtual_(margin|visits|draw))"
POOL_MULTIPLE = 1024  # their rows are padded to a multiple, so that every mesh has the same shapes


def make_mesh(
    devices: list | None = None, *, data: int = -1, fsdp: int = 1, tensor: int = 1
) -> Mesh:
    """The mesh of all devices of all processes (or of the given ones); -1 takes what is left.

    Devices of one process stand together, so that it holds neighbouring rows of every batch.
    Raises BadInput for axes that the devices do not fill.
    """
    devices = sorted(
        jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id)
    )
    shape = np.array([data, fsdp, tensor])
    given = math.prod(shape[shape > 0].tolist())
    if (shape == -1).any() and len(devices) % given == 0:
        shape[shape == -1] = len(devices) // given
    if math.prod(shape.tolist()) != len(devices):
        raise BadInput(
            f"config.mesh (data {data}, fsdp {fsdp}, tensor {tensor}) does not fill "
            f"{len(devices)} devices: their product must be that, and -1 stands for what is left."
        )
    grid = np.asarray(devices).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def row_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in ROWS)


def own_slice(mesh: Mesh) -> dict[str, int]:
    """Which equal slice of every batch this process reads, as process_index and process_count of
    data.pipeline. Processes that a tensor axis joins read the same one."""
    devices, share = jax.local_device_count(), max(mesh.shape["tensor"], jax.local_device_count())
    return {
        "process_index": jax.process_index() * devices // share,
        "process_count": jax.process_count() * devices // share,
    }


def total(mesh: Mesh, *numbers: float) -> list[float]:
    """The sums over a batch of what every process counted in its slice."""
    counted = multihost_utils.process_allgather(np.array(numbers)).sum(axis=0)
    return (counted * own_slice(mesh)["process_count"] / jax.process_count()).tolist()


def check_batch_sizes(mesh: Mesh, *, parts: int = 1, **batch_sizes: int) -> None:
    """Raises BadInput for a global batch that the mesh's row axes do not divide; parts: that it is
    accumulated from."""
    shared = f"{row_shards(mesh)} devices" + (f" in {parts} parts" if parts > 1 else "")
    for name, size in batch_sizes.items():
        if size % (row_shards(mesh) * parts):
            raise BadInput(
                f"config.{name} = {size} does not divide over {shared}: make it a multiple."
            )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array (metrics, scores)."""
    return NamedSharding(mesh, PartitionSpec())


def split_rows(mesh: Mesh) -> NamedSharding:
    """The first axis is split over the devices (batches)."""
    return NamedSharding(mesh, PartitionSpec(ROWS))


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """A process's slice of a global batch (NumPy arrays) on its devices, as the global batch."""
    place = split_rows(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, x), batch)


def put_global_batch(batch: Any, mesh: Mesh) -> Any:
    """The same from a batch that every process has all rows of."""
    place = split_rows(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, place, lambda rows: x[rows]), batch
    )


def shard_template(shapes: Any, mesh: Mesh, *, shard_pool: bool = False) -> Any:
    """Where the arrays of a state go, by their names: a tree of jax.ShapeDtypeStruct, which is also
    what Orbax restores to. shapes: the state's or a part's (jax.eval_shape); shard_pool: state of
    pool examples is split like the rows of a batch, else it is whole on every device.
    """

    def placed(path, leaf):
        spec = _spec(leaf_name(path), leaf.shape, mesh, shard_pool)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(placed, shapes)


def shardings(placed: Any) -> Any:
    """The shardings of a tree of `place`, as jit takes them."""
    return jax.tree.map(lambda leaf: leaf.sharding, placed)


def gather_fsdp_params(fn: Callable, mesh: Mesh) -> Callable:
    """fn(params, ...) that first fetches what the fsdp axis splits of each parameter. Left to
    itself XLA may bring the rows together instead, and compute them all on every device."""

    def fetched(path, leaf):
        spec = _spec(leaf_name(path), leaf.shape, mesh)
        axes = [None if axis == "fsdp" else axis for axis in spec]
        place = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.lax.with_sharding_constraint(leaf, place)

    def with_whole(params, *arguments, **options):
        params = jax.tree_util.tree_map_with_path(fetched, params)
        return fn(params, *arguments, **options)

    return with_whole


def gather(tree: Any, mesh: Mesh) -> Any:
    """The arrays whole on every device, to be read by any process."""
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)


def pad_pool(state: Any) -> Any:
    """The state with the rows of its pool arrays filled up to a multiple of POOL_MULTIPLE with
    copies of the last one; no example has their number. Of a state before its first step, where
    all rows are equal."""

    def padded(path, leaf):
        if not re.fullmatch(POOL, leaf_name(path)):
            return leaf
        rest = [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, [(0, -len(leaf) % POOL_MULTIPLE), *rest], mode="edge")

    return jax.tree_util.tree_map_with_path(padded, state)


def leaf_name(path: tuple) -> str:
    """Joins the keys of a path of jax.tree_util by "/"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh, shard_pool=False) -> PartitionSpec:
    rules = [(rf"(.+/)?{end}", axes) for end, axes in RULES]
    if shard_pool:
        rules.insert(0, (POOL, (ROWS,)))
    axes = next((axes for pattern, axes in rules if re.fullmatch(pattern, name)), ())
    sizes = [
        math.prod(mesh.shape[axis] for axis in np.atleast_1d(axis)) if axis else 1 for axis in axes
    ]
    fits = [size > 1 and n % size == 0 for size, n in zip(sizes, shape, strict=False)]
    return PartitionSpec(*[axis if fit else None for axis, fit in zip(axes, fits, strict=False)])
