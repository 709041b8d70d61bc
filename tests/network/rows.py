"""What a row of the table of networks holds, and what fills its variables."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jnnk.network._as_function import as_function

#: What sown activations have behind the names of their convs.
SOWN = ":activation"


class ListedConv(NamedTuple):
    """A convolution as a person counts it.

    Attributes:
        name: path of its kernel among the variables; of a second call with ``@2`` behind it.
        kernel_shape: as stored, with an axis of steps where a scan takes a slice in each step.
        groups: of channels.
        output_shape: positions and channels of one image, in this order whatever the network's.
        macs: multiplications for one image, of all steps; of a transposed convolution
            those with the inputs, not with the zeros between them.
        steps: of the scan that it is made in.
    """

    name: str
    kernel_shape: tuple[int, ...]
    groups: int
    output_shape: tuple[int, ...]
    macs: int
    steps: int = 1


@dataclass(frozen=True, eq=False)
class Row:
    """A small network, and what there is to know of it.

    Attributes:
        name: of the row.
        make: gives the function of variables and images, and the variables.
        images: a batch, in the layout that the network takes.
        convs: in the order in which they run.
        activations: ``(variables, images)`` -> the activation of each conv by its name, by the
            library's own means: (N, positions, C), with an axis of steps before in a scan.
    """

    name: str
    make: Callable[[], tuple[Callable[[Any, Any], Any], Any]]
    images: np.ndarray
    convs: tuple[ListedConv, ...]
    activations: Callable[[Any, Any], dict[str, jax.Array]]


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype("f4")


def random_like(tree: Any) -> Any:
    """Random arrays for arrays or their shapes: no constant is 0, no variance negative."""
    generator = np.random.default_rng(3)

    def fill(path: Any, leaf: Any) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return (
                jnp.ones(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
            )
        values = generator.standard_normal(leaf.shape)
        if any(name in jax.tree_util.keystr(path) for name in ("var", "scale", "gamma")):
            values = generator.uniform(0.5, 1.5, leaf.shape)
        elif leaf.ndim < 2:
            values = values / 2 + 0.1
        else:  # about as much comes out as goes in, whatever the layout
            values *= (2 * max(leaf.shape) / leaf.size) ** 0.5
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, tree)


def assert_close(found: Any, expected: Any) -> None:
    """Two pytrees are the same but for float32's rounding."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )


def avg_pool(x: jax.Array) -> jax.Array:
    """Means of 2 x 2 pixels of (N, H, W, C); Flax's own divides by an integer."""
    return nn.pool(x, 0.0, jax.lax.add, (2, 2), (2, 2), "VALID") / 4.0


def sow(module: nn.Module, conv: str, activation: jax.Array) -> None:
    """Sows the activation of a conv; its own name is taken by the conv."""
    module.sow("intermediates", f"{conv}{SOWN}", activation)


def linen_row(
    name: str,
    module: nn.Module,
    images: np.ndarray,
    convs: tuple[ListedConv, ...],
    *,
    sites: Mapping[str, tuple[str, Callable[[jax.Array], jax.Array]]] | None = None,
    **options: Any,
) -> Row:
    """A row of a Linen module.

    Args:
        name: of the row.
        module: the network.
        images: what it takes.
        convs: its convolutions.
        sites: conv -> the layer whose output, by Flax's ``capture_intermediates``, becomes the
            activation, and the function that follows it; None for a network that sows them.
        **options: of the module when it evaluates.
    """

    @functools.cache
    def make() -> tuple[Callable[[Any, Any], Any], Any]:
        shapes = jax.eval_shape(module.init, jax.random.key(0), images)
        return as_function(module, random_like(shapes))

    def activations(variables: Any, images: Any) -> dict[str, jax.Array]:
        _, state = module.apply(
            variables,
            images,
            mutable=["intermediates"],
            capture_intermediates=sites is not None,
            **options,
        )
        found = flatten_dict(state["intermediates"], sep="/")
        if sites is not None:
            return {
                conv: function(found[f"{layer}/__call__"][0])
                for conv, (layer, function) in sites.items()
            }
        return {
            name.removesuffix(SOWN) + (f"@{call + 1}" if call else ""): value
            for name, values in found.items()
            for call, value in enumerate(values)
        }

    return Row(name, make, images, convs, activations)
