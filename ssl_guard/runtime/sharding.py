"""Makes the device mesh and places state and batches on it.

The mesh has three axes. Rows of a batch are split over `data` and `fsdp`. A parameter is split
over `fsdp` (every device stores a part and gathers the rest when a layer needs it; Zhao et al.,
arXiv 2304.11277) and over `tensor` (a device computes its part of a layer; Shoeybi et al., arXiv
1909.08053), according to RULES. XLA adds the communication; the train step has none.
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
ROWS = ("data", "fsdp")  # axes that split the rows of a batch and of the pool

# Suffixes of parameter names, for all architectures in models/, and the mesh axes that split their
# dimensions. The averaged weights and the optimiser's moments have the same suffixes. The first
# match applies. Other parameters, and dimensions that their axes do not divide, are replicated.
RULES: tuple[tuple[str, tuple], ...] = (
    # Attention heads, and the hidden units of the feed-forward layer, are split over `tensor`.
    (r"(query|key|value|query_key_value|position_query|position_key)/kernel", ("fsdp", "tensor")),
    (r"(query|key|value|query_key_value|position_query|position_key)/bias", ("tensor",)),
    (r"attention/output/kernel", ("tensor", "fsdp")),
    (r"feed_forward/up/kernel", ("fsdp", "tensor")),
    (r"feed_forward/up/bias", ("tensor",)),
    (r"feed_forward/down/kernel", ("tensor", "fsdp")),
    # Embedding tables are split by width: a vocabulary size is rarely divisible.
    (r"embeddings(_relative)?/\w+/embedding", (None, "fsdp")),
    (r"convolution/kernel", (None, None, "fsdp")),
    # Projections of embeddings, and the heads' hidden layers.
    (r"((embeddings_)?projection|dense(_\d+)?)/kernel", ("fsdp", None)),
)
# Names of algorithm state arrays with one row per example of the pool.
POOL = r"algo_state/(.+/)?(selected|margins|visits|label|agreed|virtual_(margin|visits|draw))"
POOL_MULTIPLE = 1024  # their rows are padded to a multiple, so that shapes are equal on all meshes


def make_mesh(
    devices: list | None = None, *, data: int = -1, fsdp: int = 1, tensor: int = 1
) -> Mesh:
    """Makes a mesh of all devices of all processes, or of `devices`; -1 infers the size of an axis.

    Devices of one process are adjacent, so a process holds consecutive rows of every batch.
    Raises BadInput if the product of the axes is not the number of devices.
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
            f"{len(devices)} devices: make the product of the axes equal to it, or use one -1."
        )
    grid = np.asarray(devices).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def row_shards(mesh: Mesh) -> int:
    """Returns the number of parts that the rows of a batch are split into."""
    return math.prod(mesh.shape[axis] for axis in ROWS)


def own_slice(mesh: Mesh) -> dict[str, int]:
    """Returns process_index and process_count for data.pipeline, to read this process's rows.

    Processes that are joined by the tensor axis read the same rows.
    """
    devices, share = jax.local_device_count(), max(mesh.shape["tensor"], jax.local_device_count())
    return {
        "process_index": jax.process_index() * devices // share,
        "process_count": jax.process_count() * devices // share,
    }


def total(mesh: Mesh, *numbers: float) -> list[float]:
    """Sums over a batch the numbers that each process counted in its rows."""
    counted = multihost_utils.process_allgather(np.array(numbers)).sum(axis=0)
    return (counted * own_slice(mesh)["process_count"] / jax.process_count()).tolist()


def check_batch_sizes(mesh: Mesh, *, parts: int = 1, **batch_sizes: int) -> None:
    """Raises BadInput for a global batch size that the mesh's row axes do not divide.

    parts: number of parts that gradients are accumulated over.
    """
    shared = f"{row_shards(mesh)} devices" + (f" in {parts} parts" if parts > 1 else "")
    for name, size in batch_sizes.items():
        if size % (row_shards(mesh) * parts):
            raise BadInput(
                f"config.{name} = {size} does not divide over {shared}: make it a multiple."
            )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds whole (metrics, scores)."""
    return NamedSharding(mesh, PartitionSpec())


def split_rows(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays whose rows are split over the devices (batches)."""
    return NamedSharding(mesh, PartitionSpec(ROWS))


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts this process's rows of a batch (NumPy arrays) on its devices, as the global batch."""
    place = split_rows(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, x), batch)


def put_global_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts a batch on the devices, from all of its rows in every process."""
    place = split_rows(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, place, lambda rows: x[rows]), batch
    )


def shard_template(shapes: Any, mesh: Mesh, *, shard_pool: bool = False) -> Any:
    """Chooses the sharding of each array of a state by its name.

    Returns a tree of jax.ShapeDtypeStruct with shardings, the template that Orbax restores to.
    shapes: from jax.eval_shape, of the state or a part; shard_pool: splits state of pool examples
    like the rows of a batch; else it is replicated.
    """

    def placed(path, leaf):
        spec = _spec(leaf_name(path), leaf.shape, mesh, shard_pool)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(placed, shapes)


def shardings(placed: Any) -> Any:
    """Returns the shardings of a tree from `shard_template`, in the form that jit takes."""
    return jax.tree.map(lambda leaf: leaf.sharding, placed)


def gather_fsdp_params(fn: Callable, mesh: Mesh) -> Callable:
    """Wraps fn(params, ...) so that it first gathers each parameter over the fsdp axis.

    Otherwise XLA may gather the rows instead, and compute all of them on every device.
    """

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
    """Replicates arrays on all devices, so that any process can read them."""
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)


def pad_pool(state: Any) -> Any:
    """Pads the rows of pool arrays to a multiple of POOL_MULTIPLE with copies of the last row.

    No example indexes the added rows. state: before its first step, when all rows are equal.
    """

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
    rules: list[tuple[str, tuple]] = [(rf"(.+/)?{end}", axes) for end, axes in RULES]
    if shard_pool:
        rules.insert(0, (POOL, (ROWS,)))
    axes = next((axes for pattern, axes in rules if re.fullmatch(pattern, name)), ())
    sizes = [
        math.prod(mesh.shape[axis] for axis in np.atleast_1d(axis)) if axis else 1 for axis in axes
    ]
    fits = [size > 1 and n % size == 0 for size, n in zip(sizes, shape, strict=False)]
    return PartitionSpec(*[axis if fit else None for axis, fit in zip(axes, fits, strict=False)])
