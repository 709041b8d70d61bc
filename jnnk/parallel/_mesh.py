"""Where batches and states lie: batches shared over the mesh axis "data", the rest everywhere.

The training step is one program over global arrays, so nothing here computes: with the batch laid
over the devices XLA makes the step data-parallel, batch statistics and gradients included.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from jnnk._core.errors import InputError

Tree = TypeVar("Tree")

DATA = "data"
#: The axes of a mesh that mean something. Over any other axis the work is repeated.
AXES = (DATA, "channel")


def parse_mesh(text: str) -> Mesh:
    """The mesh that ``"data=4,channel=2"`` names, over the first devices of all processes.

    Args:
        text: one or both of ``data=NUMBER`` and ``channel=NUMBER``, separated by commas.

    Returns:
        A mesh with these axes in this order, of type Auto (the compiler propagates shardings).

    Raises:
        InputError: on an axis that is not known or comes twice, on what is no whole number of at
            least 1, or if there are fewer devices than that.
    """
    example = f"expected something like data=4,channel=2, got {text!r}"
    sizes = {}
    for part in text.split(","):
        name, _, number = (side.strip() for side in part.partition("="))
        if name not in AXES:
            raise InputError(f"mesh: unknown axis {name!r}, there are data and channel; {example}")
        if name in sizes:
            raise InputError(f"mesh: axis {name} comes twice; {example}")
        if not (number.isascii() and number.isdigit() and int(number) >= 1):
            raise InputError(
                f"mesh: {name}: expected a whole number of at least 1, got {number!r}; {example}"
            )
        sizes[name] = int(number)
    wanted, available = math.prod(sizes.values()), jax.device_count()
    if wanted > available:
        raise InputError(f"mesh: {text!r} asks for {wanted} devices, there are {available}")
    return jax.make_mesh(
        tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes)
    )


def whole_mesh(text: str | None) -> Mesh:
    """The mesh of several processes, in which no device may be left out: each must take part.

    Args:
        text: see `parse_mesh`; None lays all devices along ``"data"``.

    Raises:
        InputError: as `parse_mesh`, or if there are more devices.
    """
    mesh = parse_mesh(text or f"data={jax.device_count()}")
    if mesh.size != jax.device_count():
        raise InputError(
            f"mesh: {text!r} takes {mesh.size} devices, but these processes have "
            f"{jax.device_count()}, and several processes must use all of theirs"
        )
    return mesh


def one_device() -> Mesh:
    """A mesh ``("data",)`` of this process' first device, on which all is where no mesh is given.

    More devices add up gradients in another order, so that none is taken that was not asked for:
    the same command gives the same numbers, however many there are.
    """
    return jax.make_mesh(
        (1,), (DATA,), axis_types=(AxisType.Auto,), devices=jax.local_devices()[:1]
    )


def local_rows(batch_size: int, mesh: Mesh) -> Int[np.ndarray, " rows"]:
    """The rows of a global batch that this process must feed, because its devices hold them.

    Args:
        batch_size: B, images of the global batch.
        mesh: with an axis ``"data"``; over any other axis rows are repeated.

    Returns:
        Ascending numbers in [0, B), all of them with one process.

    Raises:
        InputError: if the mesh has no axis ``"data"`` or B is not a multiple of its length.
    """
    if DATA not in mesh.shape:
        raise InputError(
            f"mesh: expected an axis {DATA} for training, got {', '.join(mesh.axis_names)}"
        )
    if batch_size % mesh.shape[DATA]:
        raise InputError(
            f"batch size {batch_size} is not a multiple of the {mesh.shape[DATA]} devices "
            f"on mesh axis {DATA!r}"
        )
    rows = np.arange(batch_size)
    here = _along_data(mesh).addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([rows[index] for index in here.values()]))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """A global batch from every process' share of it, laid over the mesh axis ``"data"``.

    Args:
        batch: pytree of arrays, the rows that :func:`local_rows` names.
        mesh: the same in all processes.

    Returns:
        The pytree of global arrays.
    """
    sharding = _along_data(mesh)

    def placed(share: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, share)

    return jax.tree.map(placed, batch)


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """A pytree on every device of the mesh; its buffers may be the ones given.

    Args:
        tree: arrays, the same in all processes.
        mesh: devices.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, everywhere)
    # Arrays of one process cannot be put on devices of others, but an equal input of all can.
    return jax.jit(lambda tree: tree, out_shardings=everywhere)(tree)


def shared_apply(apply_fn: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """A network whose batch the devices share, and whose answers are then whole on every device.

    Args:
        apply_fn: ``(variables, images) -> pytree``, each image on its own; jit what comes back.
        mesh: images go over its axis ``"data"``, where that divides their number.
    """

    def placed(tree: Tree, spec: PartitionSpec) -> Tree:
        return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, spec))

    def apply(variables: Any, images: jax.Array) -> Any:
        if images.shape[0] % mesh.shape.get(DATA, 1) == 0:
            images = placed(images, PartitionSpec(DATA if DATA in mesh.shape else None))
        return placed(apply_fn(variables, images), PartitionSpec())

    return apply


def gather(tree: Tree) -> Tree:
    """A pytree of global arrays as NumPy arrays, whole in every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def _along_data(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(DATA))
