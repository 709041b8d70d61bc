"""Activations of a network over a data set, one layer at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Shaped

from jnnk._core.arrays import ArrayLike
from jnnk._core.errors import InputError
from jnnk._core.whole_numbers import is_whole_number
from jnnk.network._passes import LayerActivations, known_layer, plan_layer, run_passes
from jnnk.network._reading import read
from jnnk.network._reported import reported_layers
from jnnk.network._with_activations import (
    SITES,
    image_shape,
    layers_of,
    with_activations,
)

#: What `capture` takes a layer's activations from.
Site = Literal["activation", "conv", "reported"]
#: Images a call, by default.
BATCH_SIZE = 256
#: Bytes of activations in memory at once, by default.
MEMORY_LIMIT = 2**30


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
        layers = reported_layers(apply_fn(variables, image))
        order.extend(layers)  # a dict that leaves a transformation is sorted by key
        return layers

    shapes = jax.eval_shape(activations, variables, image)
    return {name: shapes[name].shape[1:] for name in order}


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
    batch_size: int = BATCH_SIZE,
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
        raise InputError(f"site: expected one of {', '.join(SITES)}, reported, got {site!r}")
    if not is_whole_number(batch_size):
        raise InputError(f"batch_size: expected a whole number of at least 1, got {batch_size!r}")
    if isinstance(layers, str):
        raise InputError(f"layers: expected a list of names, such as [{layers!r}], got {layers!r}")
    shapes = layer_shapes(apply_fn, variables, images, site=site)
    if not shapes and layers is None:
        raise InputError(
            "apply_fn: no convolution of it can be captured: print(read(...)) says why; "
            "with site='reported' the layers are those that it returns by name"
        )
    plans = [
        plan_layer(name, shapes, (channels or {}).get(name), pooling, size)
        for name in (shapes if layers is None else layers)
    ]
    for name in channels or {}:
        known_layer("channels", name, shapes)
    if site != "reported":
        apply_fn = with_activations(apply_fn, site=site)
    return run_passes(
        apply_fn,
        variables,
        images,
        plans,
        storage,
        min(int(batch_size), len(images)),
        memory_limit,
        directory,
    )


def _stacked(images: Any) -> np.ndarray:
    """The images as one array, as they are if they are one."""
    if not hasattr(images, "shape"):
        try:
            images = np.asarray(images)
        except ValueError:
            raise InputError(
                "images: expected an array (N, ...), got some of other shapes"
            ) from None
    if not images.ndim or not len(images):
        raise InputError(f"images: expected at least one image (N, ...), got shape {images.shape}")
    if images.dtype.kind in "OUSM":
        raise InputError(f"images: expected an array of numbers, got dtype {images.dtype}")
    return images


def _storage_dtype(dtype: Any) -> np.dtype:
    known = [jnp.dtype(name) for name in ("float32", "bfloat16", "float16")]
    try:
        found = None if dtype is None else jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found not in known:
        raise InputError(f"dtype: expected float32, bfloat16 or float16, got {dtype!r}")
    return found
