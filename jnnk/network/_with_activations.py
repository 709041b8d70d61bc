"""Any network as a function that also returns the activations of its convolutions."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnnk._core.errors import InputError
from jnnk.network._convs import Conv, Maps
from jnnk.network._network import Network
from jnnk.network._program import Place, run
from jnnk.network._reading import read_with_structure
from jnnk.network._tracing import Structure

SITES = ("activation", "conv")


class Layer(NamedTuple):
    """What `with_activations` calls a layer.

    Attributes:
        name: that of the convolution; of one that runs in a scan ``name[0]``, ``name[1]``, ... for
            its steps, in the order of the stacked kernels.
        conv: the convolution.
        step: which step of its scans, counted through; None outside of a scan.
    """

    name: str
    conv: Conv
    step: int | None


@dataclass(frozen=True)
class WithActivations:
    """A network with its activations; made by `with_activations`, hashable as a static argument.

    Attributes:
        apply_fn: the network.
        layers: names of the layers to return; None for all.
        site: where activations are taken, see `with_activations`.
    """

    apply_fn: Callable[..., Any]
    layers: tuple[str, ...] | None
    site: str

    def __call__(self, variables: Any, images: Any, *args: Any) -> tuple[Any, dict[str, Array]]:
        network, structure = read_with_structure(self.apply_fn, variables, images, *args)
        layers = self._chosen(network)
        for layer in layers:
            seen = self._maps(layer).shape[0]
            if seen != images.shape[0]:
                raise InputError(
                    f"layers: {layer.name!r} sees {seen} images where {images.shape[0]} are given; "
                    "name layers that see each image once"
                )
        maps = [self._maps(layer) for layer in layers]
        inputs = (variables, images, args)
        outputs, activations = outputs_with(network, structure, layers, maps, inputs)
        if not network.program.keeps_derivatives:
            outputs = self.apply_fn(variables, images, *args)
        return outputs, activations

    def _chosen(self, network: Network) -> list[Layer]:
        known = {layer.name: layer for layer in layers_of(network)}
        if self.layers is None:
            return list(known.values())
        for name in self.layers:
            if name not in known:
                raise InputError(f"layers: no layer {name!r}; the network has {', '.join(known)}")
        return [known[name] for name in self.layers]

    def _maps(self, layer: Layer) -> Maps:
        return layer.conv.activation if self.site == "activation" else layer.conv.output


def with_activations(
    apply_fn: Callable[..., Any],
    *,
    layers: Sequence[str] | None = None,
    site: Literal["activation", "conv"] = "activation",
) -> WithActivations:
    """A network as a function that returns its outputs and the activations of its layers.

    It can be jitted and differentiated as the network itself; what ``jax.checkpoint`` would compute
    again is kept. Derivatives of its own hold, but for one around a convolution (such as a
    quantised one with ``jax.custom_vjp``): that holds in the outputs alone, which are then computed
    apart, and activations are differentiated as what they are computed by.

    Args:
        apply_fn: ``(variables, images, *others) -> anything``, traceable by JAX.
        layers: names of convolutions, as `read` gives them, in the order wanted; None for all.
        site: "activation", behind bias, norm and nonlinearity; or "conv", the output of the
            convolution itself.

    Returns:
        ``(variables, images, *others) -> (anything, {name: (N, H, W, C)})``, whatever the order of
        axes in the network. One axis of positions gives (N, 1, L, C), three give (N, D * H, W, C).

    Raises:
        InputError: for another ``site``, or (when called) an unknown layer.

    Examples:
        >>> def apply_fn(variables, images):
        ...     maps = jax.lax.conv(images, variables["conv1"], (1, 1), "SAME")
        ...     return jax.nn.relu(maps).mean((2, 3))
        >>> variables = {"conv1": jnp.ones((4, 3, 3, 3))}
        >>> _, activations = with_activations(apply_fn)(variables, jnp.ones((2, 3, 8, 8)))
        >>> activations["conv1"].shape
        (2, 8, 8, 4)
    """
    if site not in SITES:
        raise InputError(f"site: expected one of {', '.join(SITES)}, got {site!r}")
    if isinstance(layers, str):
        raise InputError(f"layers: expected a list of names, such as [{layers!r}], got {layers!r}")
    return WithActivations(apply_fn, None if layers is None else tuple(layers), site)


def outputs_with(
    network: Network,
    structure: Structure,
    layers: Sequence[Layer],
    maps: Sequence[Maps],
    inputs: Any,
) -> tuple[Any, dict[str, Array]]:
    """What a network returns, and the activations of some layers by name.

    Args:
        network: as `traced` gives it.
        structure: of what it returns, likewise.
        layers: the layers.
        maps: where the activations of each are.
        inputs: all arguments of the network.
    """
    places = [*map(Place, network.program.outputs), *(each.place for each in maps)]
    values = run(network.program, jax.tree.leaves(inputs), places)
    outputs = jax.tree.unflatten(structure, values[: -len(layers) or None])
    return outputs, {
        layer.name: _as_images(of_layer, value, layer)
        for layer, of_layer, value in zip(
            layers, maps, values[len(values) - len(layers) :], strict=True
        )
    }


def layers_of(network: Network) -> Iterator[Layer]:
    """The layers of a network in its order: its convolutions, each step of a scan by itself."""
    for conv in network.convs:
        if not conv.output.place.scans:
            yield Layer(conv.name, conv, None)
        else:
            for step in range(conv.steps):
                yield Layer(f"{conv.name}[{step}]", conv, step)


def image_shape(conv: Conv) -> tuple[int, int, int]:
    """(H, W, C) of one image's activations, however many axes of positions there are."""
    *before, width, channels = conv.output_shape
    return math.prod(before), width, channels


def _as_images(maps: Maps, value: Array, layer: Layer) -> Array:
    """A value of the program as (N, H, W, C)."""
    value = maps.ordered(value)
    if layer.step is not None:
        value = value.reshape(layer.conv.steps, *maps.shape)[layer.step]
    return jnp.reshape(value, (maps.shape[0], *image_shape(layer.conv)))
