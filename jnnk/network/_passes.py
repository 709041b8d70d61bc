"""Passes of images through a network, each for as many layers as fit into memory together."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jnnk._core.errors import InputError
from jnnk._core.whole_numbers import is_whole_number
from jnnk.network._poolings import POOLINGS
from jnnk.network._reported import reported_layers
from jnnk.network._with_activations import WithActivations


class LayerActivations(NamedTuple):
    """What one layer answers to every image.

    Attributes:
        name: the layer.
        values: a memory map where they exceed the limit.
        channels: which of the layer's channels these are.
        pooling: how windows of positions became one: a key of ``POOLINGS``.
        window: side of those windows in positions; 1 with "none".
    """

    name: str
    values: Float[np.ndarray, "N H W C"]
    channels: Int[np.ndarray, " C"]
    pooling: str
    window: int


class Plan(NamedTuple):
    """What to keep of one layer; hashable, a static argument of the program that does it.

    Attributes:
        name: the layer.
        shape: (H, W, C) of what is kept of one image.
        channels: which of the layer's channels are kept.
        pooling: how windows of positions become one: a key of ``POOLINGS``.
        window: side of those windows in positions; 1 with "none".
    """

    name: str
    shape: tuple[int, ...]
    channels: tuple[int, ...]
    pooling: str
    window: int

    def reduce(self, values: Array, dtype: np.dtype) -> Array:
        """(B, H, W, C) to (B, *shape)."""
        kept = jnp.take(values, np.asarray(self.channels), axis=-1).astype(jnp.float32)
        return POOLINGS[self.pooling](kept, self.window).astype(dtype)


def plan_layer(
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    channels: Sequence[int] | None,
    pooling: str,
    size: int | None,
) -> Plan:
    """What to keep of a layer.

    Args:
        name: the layer.
        shapes: of each layer's activations of one image.
        channels: which of its channels; None for all.
        pooling: a key of ``POOLINGS``.
        size: the most positions along a side after pooling; None with "none".

    Raises:
        InputError: if there is no such layer, its activations are no maps of channels, or an
            argument is none of these.
    """
    known_layer("layers", name, shapes)
    if len(shapes[name]) != 3:
        raise InputError(
            f"layer {name!r}: expected activations (N, H, W, C), "
            f"got {('N', *shapes[name])} (reshape dense ones to (N, 1, 1, C))"
        )
    height, width, num_channels = shapes[name]
    kept = np.arange(num_channels) if channels is None else np.asarray(channels)
    is_meant = kept.ndim == 1 and kept.size and np.issubdtype(kept.dtype, np.integer)
    if not is_meant or kept.min() < 0 or kept.max() >= num_channels:
        raise InputError(
            f"channels of layer {name!r}: expected numbers in [0, {num_channels}), got {channels}"
        )
    if pooling not in POOLINGS:
        raise InputError(f"pooling: expected one of {', '.join(POOLINGS)}, got {pooling!r}")
    if (pooling == "none") != (size is None):
        raise InputError(
            f"size: expected None without pooling, a number with it, got {size} and {pooling!r}"
        )
    if size is not None and not is_whole_number(size):
        raise InputError(f"size: expected a whole number of at least 1, got {size!r}")
    window = 1 if size is None else -(-max(height, width) // size)
    shape = (-(-height // window), -(-width // window), len(kept))
    return Plan(name, shape, tuple(kept.tolist()), pooling, window)


def known_layer(argument: str, name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises an InputError for a layer that the network has not.

    Args:
        argument: what the message says is wrong.
        name: the layer.
        shapes: of the activations of the layers that there are.
    """
    if name not in shapes:
        known = ", ".join(shapes) or "none that can be captured: print(jnnk.network.read(...))"
        raise InputError(f"{argument}: no layer {name!r}; the network has {known}")


def split_passes(sizes: Sequence[int], *, memory_limit: int) -> list[int]:
    """How many consecutive layers share each pass of the images through the network.

    Args:
        sizes: bytes of each layer's activations, in order.
        memory_limit: bytes of a pass, unless it has one layer alone.
    """
    counts: list[int] = []
    left = 0
    for size in sizes:
        if counts and size <= left:
            counts[-1] += 1
        else:
            counts, left = [*counts, 1], memory_limit
        left -= size
    return counts


def run_passes(
    apply_fn: Callable[[Any, Array], Any],
    variables: Any,
    images: np.ndarray,
    plans: list[Plan],
    dtype: np.dtype,
    batch_size: int,
    memory_limit: int,
    directory: str | Path | None,
) -> Iterator[LayerActivations]:
    """Runs the images through the network, once for as many layers as fit into memory together.

    Args:
        apply_fn: ``apply_fn(variables, images)``, which returns activations by name.
        variables: of the network.
        images: (N, ...) all of them.
        plans: what to keep of each layer, in the order in which they are yielded.
        dtype: in which activations are kept.
        batch_size: images a call.
        memory_limit: bytes of the activations of a pass, and of a layer that is no memory map.
        directory: of memory maps; None for the system's.
    """

    def num_bytes(plan: Plan) -> int:
        return len(images) * int(np.prod(plan.shape)) * dtype.itemsize

    def allocate(plan: Plan) -> np.ndarray:
        shape = (len(images), *plan.shape)
        if num_bytes(plan) <= memory_limit:
            return np.empty(shape, dtype)
        with tempfile.TemporaryFile(dir=directory) as file:  # the map keeps a handle of its own
            return np.memmap(file, dtype, "w+", shape=shape)

    for count in split_passes([num_bytes(plan) for plan in plans], memory_limit=memory_limit):
        group, plans = plans[:count], plans[count:]
        stored = [allocate(plan) for plan in group]
        _fill(stored, apply_fn, variables, images, group, dtype, batch_size)
        while group:  # popped, so that what the caller drops is freed
            plan = group.pop(0)
            yield LayerActivations(
                plan.name,
                stored.pop(0),
                np.asarray(plan.channels),
                plan.pooling,
                plan.window,
            )


def _fill(
    stored: list[np.ndarray],
    apply_fn: Callable[[Any, Array], Any],
    variables: Any,
    images: np.ndarray,
    group: list[Plan],
    dtype: np.dtype,
    batch_size: int,
) -> None:
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        number = len(batch)
        filling = np.repeat(batch[:1], batch_size - number, axis=0)  # one shape, one compilation
        results = _reduced_activations(
            variables,
            np.concatenate([batch, filling]),
            apply_fn=apply_fn,
            plans=tuple(group),
            dtype=dtype,
        )
        for target, result in zip(stored, results, strict=True):
            target[start : start + number] = np.asarray(result)[:number]


# Compiled once for a network and its layers, whatever the variables: runs measure many epochs.
@partial(jax.jit, static_argnames=("apply_fn", "plans", "dtype"))
def _reduced_activations(
    variables: Any,
    batch: Array,
    *,
    apply_fn: Callable[[Any, Array], Any],
    plans: tuple[Plan, ...],
    dtype: np.dtype,
) -> list[Array]:
    if isinstance(apply_fn, WithActivations):  # traced again, for these layers alone
        apply_fn = dataclasses.replace(apply_fn, layers=tuple(plan.name for plan in plans))
    activations = reported_layers(apply_fn(variables, batch))
    return [plan.reduce(activations[plan.name], dtype) for plan in plans]
