"""Activations of a network over a data set, one layer at a time."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from jnnk._core.arrays import ArrayLike
from jnnk._core.errors import InputError
from jnnk._core.whole_numbers import is_whole_number
from jnnk.network._reading import read
from jnnk.network._with_activations import (
    SITES,
    WithActivations,
    image_shape,
    layers_of,
    with_activations,
)

#: What `capture` takes a layer's activations from.
Site = Literal["activation", "conv", "reported"]
#: Bytes of activations in memory at once, by default.
MEMORY_LIMIT = 2**30


class LayerActivations(NamedTuple):
    """What one layer answers to every image.

    Attributes:
        name: the layer.
        values: a memory map where they exceed the limit.
        channels: which of the layer's channels these are.
        pooling: how windows of positions became one: a key of ``POOLINGS``, or "none".
        window: side of those windows in positions; 1 with "none".
    """

    name: str
    values: Float[np.ndarray, "N H W C"]
    channels: Int[np.ndarray, " C"]
    pooling: str
    window: int


def layer_shapes(
    apply_fn: Callable[[Any, Array], Any],
    variables: Any,
    images: Shaped[ArrayLike, "N ..."],
    *,
    site: Site = "activation",
) -> dict[str, tuple[int, ...]]:
    """The layers of a network that can be captured, without running it.

    Args:
        apply_fn: as in `capture`.
        variables: the network's variables.
        images: their shape and dtype alone matter.
        site: as in `capture`.

    Returns:
        Shape of one image's activations, (H, W, C), by layer name, in the network's order.

    Raises:
        InputError: as `capture` does.
    """
    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    if site != "reported":
        network = read(apply_fn, variables, image)
        return {layer.name: image_shape(layer.conv) for layer in layers_of(network)}
    order: list[str] = []

    def activations(variables: Any, image: Array) -> dict[str, Array]:
        layers = _layers_of(apply_fn(variables, image))
        order.extend(layers)  # a dict that leaves a transformation is sorted by key
        return layers

    shapes = jax.eval_shape(activations, variables, image)
    return {name: shapes[name].shape[1:] for name in order}


def _layers_of(returned: Any) -> dict[str, Array]:
    """The activations in what a network returned.

    Raises:
        InputError: where that is something else than logits and activations by name.
    """
    layers = returned[1] if isinstance(returned, tuple | list) and len(returned) == 2 else None
    if isinstance(layers, Mapping) and all(
        isinstance(name, str) and hasattr(values, "shape") for name, values in layers.items()
    ):
        return dict(layers)
    hint = ""
    if isinstance(layers, Mapping) and "intermediates" in layers:
        hint = (
            "; of Flax's capture_intermediates take the arrays out of state['intermediates'], such "
            "as {'conv': state['intermediates']['conv']['__call__'][0]}"
        )
    raise InputError(
        "with site='reported', apply_fn must return (logits, {layer name: activations}), names "
        f"being text and activations arrays; got {_in_words(returned)}{hint}"
    )


def _in_words(value: Any) -> str:
    """The kind of a value, and of what is in it."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{name!r}: {_in_words(item)}" for name, item in list(value.items())[:3])
        return f"{{{inside}{', ...' if len(value) > 3 else ''}}}"
    if isinstance(value, tuple | list):
        inside = ", ".join(_in_words(item) for item in value[:3])
        ends = "()" if isinstance(value, tuple) else "[]"
        return f"{ends[0]}{inside}{', ...' if len(value) > 3 else ''}{ends[1]}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array {value.dtype}{list(value.shape)}"
    return type(value).__name__


def capture(
    apply_fn: Callable[[Any, Array], Any],
    variables: Any,
    images: Shaped[ArrayLike, "N ..."] | Sequence[ArrayLike],
    *,
    layers: Sequence[str] | None = None,
    site: Site = "activation",
    channels: Mapping[str, Sequence[int]] | None = None,
    pooling: str = "none",
    size: int | None = None,
    dtype: DTypeLike = "float32",
    batch_size: int = 256,
    memory_limit: int = MEMORY_LIMIT,
    directory: str | Path | None = None,
) -> Iterator[LayerActivations]:
    """Runs a network over images and yields its layers' activations one after the other.

    The images pass through the network as often as the layers need passes: consecutive layers
    share one as long as they fit into ``memory_limit`` together. What a pass does not ask for
    (later layers, the logits) is never computed. Drop each result before asking for the next and
    no more than the limit and one batch is in memory.

    Args:
        apply_fn: ``(variables, images) -> anything``, jittable, each image on its own (BatchNorm in
            inference mode): the last batch is filled up. `jnnk.network.as_function` makes it of
            models.
        variables: the network's variables.
        images: an array or a memory map, given to ``apply_fn`` in batches as they are; a list
            of N arrays is stacked.
        layers: names in the order wanted, of convolutions as `jnnk.network.read` gives them; None
            means all, in the network's order.
        site: where a convolution's activations are taken: "activation", behind bias, norm and
            nonlinearity; "conv", its own output; or "reported": the network returns
            ``(anything, {layer name: (B, H, W, C)})``, and these are the layers.
        channels: layer name to the channels to keep; layers not named keep all.
        pooling: "none", or how windows of positions become one: "mean", "max" or "subsample"
            (the upper left one). Windows at the right and lower edge may be smaller.
        size: with pooling, the most positions a side may have; each layer gets the smallest
            window that does it, so 1 pools over the whole map.
        dtype: storage, "float32", "bfloat16" or "float16" (where more than 65504 is infinity), by
            name or as ``jnp.float32``, ``np.float32``, ``np.dtype("float32")``.
        batch_size: images per step.
        memory_limit: bytes; a layer larger than that goes to a memory map.
        directory: where memory maps are made, in files without a name that vanish with the
            array; None means the system's folder for temporary files.

    Returns:
        An iterator of `LayerActivations`; the input is checked at once, the work done on demand.

    Raises:
        InputError: for a network without convolutions, unknown layers, channels, pooling or dtype,
            no images, a batch size that is no whole number of at least 1, or with "reported" a
            network that returns something else than layers (N, H, W, C) by name.
    """
    storage = _storage_dtype(dtype)
    images = _stacked(images)
    if site not in (*SITES, "reported"):
        raise InputError(f"site must be one of {', '.join(SITES)}, reported; got {site!r}")
    if not is_whole_number(batch_size):
        raise InputError(f"batch_size must be a whole number of at least 1; got {batch_size!r}")
    if isinstance(layers, str):
        raise InputError(f"layers must be a list of names, such as [{layers!r}]; got {layers!r}")
    shapes = layer_shapes(apply_fn, variables, images, site=site)
    if not shapes and layers is None:
        raise InputError(
            "apply_fn: no convolution of it can be captured: print(read(...)) says why; "
            "with site='reported' the layers are those that it returns by name"
        )
    plans = [
        _plan(name, shapes, (channels or {}).get(name), pooling, size)
        for name in (shapes if layers is None else layers)
    ]
    for name in channels or {}:
        _known("channels", name, shapes)
    if site != "reported":
        apply_fn = with_activations(apply_fn, site=site)
    return _run(
        apply_fn,
        variables,
        images,
        plans,
        storage,
        min(int(batch_size), len(images)),
        memory_limit,
        directory,
    )


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


def _none(values: Array, window: int) -> Array:
    return values


def _mean(values: Array, window: int) -> Array:
    ones = jnp.ones((1, *values.shape[1:3], 1), values.dtype)  # edge windows hold fewer
    return _windows(values, window, 0.0, lax.add) / _windows(ones, window, 0.0, lax.add)


def _max(values: Array, window: int) -> Array:
    return _windows(values, window, -jnp.inf, lax.max)


def _subsample(values: Array, window: int) -> Array:
    return values[:, ::window, ::window]


POOLINGS: dict[str, Callable[[Array, int], Array]] = {
    "none": _none,
    "mean": _mean,
    "max": _max,
    "subsample": _subsample,
}


def _windows(values: Array, window: int, start: float, combine: Callable[[Any, Any], Any]) -> Array:
    missing = [(0, 0), *((0, -side % window) for side in values.shape[1:3]), (0, 0)]
    shape = (1, window, window, 1)
    return lax.reduce_window(
        values, jnp.asarray(start, values.dtype), combine, shape, shape, missing
    )


class _Plan(NamedTuple):
    """What to keep of one layer; hashable, a static argument of the program that does it."""

    name: str
    shape: tuple[int, ...]  # of one image
    channels: tuple[int, ...]
    pooling: str
    window: int

    def reduce(self, values: Array, dtype: np.dtype) -> Array:
        """(B, H, W, C) to (B, *shape)."""
        kept = jnp.take(values, np.asarray(self.channels), axis=-1).astype(jnp.float32)
        return POOLINGS[self.pooling](kept, self.window).astype(dtype)


def _run(
    apply_fn: Callable[[Any, Array], Any],
    variables: Any,
    images: np.ndarray,
    plans: list[_Plan],
    dtype: np.dtype,
    batch_size: int,
    memory_limit: int,
    directory: str | Path | None,
) -> Iterator[LayerActivations]:
    def num_bytes(plan: _Plan) -> int:
        return len(images) * int(np.prod(plan.shape)) * dtype.itemsize

    def allocate(plan: _Plan) -> np.ndarray:
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
    group: list[_Plan],
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
    plans: tuple[_Plan, ...],
    dtype: np.dtype,
) -> list[Array]:
    if isinstance(apply_fn, WithActivations):  # traced again, for these layers alone
        apply_fn = dataclasses.replace(apply_fn, layers=tuple(plan.name for plan in plans))
    activations = _layers_of(apply_fn(variables, batch))
    return [plan.reduce(activations[plan.name], dtype) for plan in plans]


def _plan(
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    channels: Sequence[int] | None,
    pooling: str,
    size: int | None,
) -> _Plan:
    _known("layers", name, shapes)
    if len(shapes[name]) != 3:
        raise InputError(
            f"layer {name!r} must have activations (N, H, W, C); "
            f"got {('N', *shapes[name])} (reshape dense ones to (N, 1, 1, C))"
        )
    height, width, num_channels = shapes[name]
    kept = np.arange(num_channels) if channels is None else np.asarray(channels)
    is_meant = kept.ndim == 1 and kept.size and np.issubdtype(kept.dtype, np.integer)
    if not is_meant or kept.min() < 0 or kept.max() >= num_channels:
        raise InputError(
            f"channels of layer {name!r} must be numbers in [0, {num_channels}); got {channels}"
        )
    if pooling not in POOLINGS:
        raise InputError(f"pooling must be one of {', '.join(POOLINGS)}; got {pooling!r}")
    if (pooling == "none") != (size is None):
        raise InputError(
            f"size goes together with a pooling other than 'none'; got {pooling!r} and {size}"
        )
    if size is not None and not is_whole_number(size):
        raise InputError(f"size must be a whole number of at least 1; got {size!r}")
    window = 1 if size is None else -(-max(height, width) // size)
    shape = (-(-height // window), -(-width // window), len(kept))
    return _Plan(name, shape, tuple(kept.tolist()), pooling, window)


def _known(argument: str, name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if name not in shapes:
        known = ", ".join(shapes) or "none that can be captured: print(jnnk.network.read(...))"
        raise InputError(f"{argument}: no layer {name!r}; the network has {known}")


def _stacked(images: Any) -> np.ndarray:
    """The images as one array, as they are if they are one."""
    if not hasattr(images, "shape"):
        try:
            images = np.asarray(images)
        except ValueError:
            raise InputError("images must be an array (N, ...); got some of other shapes") from None
    if not images.ndim or not len(images):
        raise InputError(f"images must hold at least one image, (N, ...); got shape {images.shape}")
    if images.dtype.kind in "OUSM":
        raise InputError(f"images must be an array of numbers; got dtype {images.dtype}")
    return images


def _storage_dtype(dtype: Any) -> np.dtype:
    known = [jnp.dtype(name) for name in ("float32", "bfloat16", "float16")]
    try:
        found = None if dtype is None else jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found not in known:
        raise InputError(f"dtype must be float32, bfloat16 or float16; got {dtype!r}")
    return found
