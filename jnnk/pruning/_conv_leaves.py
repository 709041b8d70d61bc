"""Which leaves of a tree of parameters are the kernels of convolutions, and how they lie there."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnnk._core.arrays import ArrayLike
from jnnk.network import Conv, Network
from jnnk.network._kernels import KernelAxes
from jnnk.network._names import Path, PyTree, leaf_path, leaves_by_path, named_leaves

_LARGEST = 32  # the side of the largest kernels in use, those of patches of vision transformers
# Words in the names of layers, as `_words` makes them.
_CONVS = {"conv", "convs", "convolution", "convolutional"}
_OTHERS = {"dense", "linear", "attention"}  # unless a conv is named too, as in "dense_conv"
_PROJECTIONS = {"query", "key", "value"}  # as the first word


class ConvLeaf(NamedTuple):
    """A leaf that holds the kernels of a convolution.

    Kernels are looked at as (h, w, Cin, Cout). Those of one dimension have w = 1; of three, (d, h,
    w) becomes (d, h * w). Copies of a convolution in one leaf (of the steps of a scan, or of a
    vmap) count as one with the filters of all: Cout is then copies x filters. Of grouped ones Cin
    is the number of channels of a group.

    Attributes:
        shape: of the leaf.
        axes: what its axes are.
    """

    shape: tuple[int, ...]
    axes: KernelAxes

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """(h, w, Cin, Cout) of the kernels."""
        first, *others = [self.shape[axis] for axis in self.axes.spatial]
        filters = math.prod(self.shape[axis] for axis in (*self.axes.stack, self.axes.output))
        return first, math.prod(others), self.shape[self.axes.input], filters

    def kernels(self, leaf: ArrayLike) -> jax.Array:
        """The leaf, or one of its shape, as kernels (h, w, Cin, Cout)."""
        return jnp.transpose(jnp.asarray(leaf), self._order).reshape(self.kernel_shape)

    def mask(self, keep: ArrayLike) -> jax.Array:
        """Which kernels are kept, (Cin, Cout), as a float32 mask of the leaf, 1 by position."""
        sizes = [self._mask_shape[axis] for axis in self._order]
        back = [self._order.index(axis) for axis in range(len(sizes))]
        xp = np if isinstance(keep, np.ndarray) else jnp
        return jnp.asarray(xp.transpose(xp.asarray(keep, xp.float32).reshape(sizes), back))

    def keep(self, mask: ArrayLike) -> jax.Array:
        """Which kernels a mask of the leaf keeps, in any position: bool (Cin, Cout)."""
        kept = jnp.broadcast_to(jnp.asarray(mask) != 0, self.shape)
        return self.kernels(kept).any((0, 1))

    @property
    def _order(self) -> tuple[int, ...]:
        axes = self.axes
        return (*axes.spatial, axes.input, *axes.stack, axes.output)

    @property
    def _mask_shape(self) -> tuple[int, ...]:
        spatial = self.axes.spatial
        return tuple(1 if axis in spatial else size for axis, size in enumerate(self.shape))


_FLAX = KernelAxes(spatial=(0, 1), input=2, output=3, stack=())


def conv_leaves(tree: PyTree, *, network: Network | None = None) -> dict[str, ConvLeaf]:
    """The leaves of a tree that hold kernels of convolutions.

    Args:
        tree: the variables of a network, or a part of them with all kernels in it, such as
            Flax's ``params``; or a tree of that form with masks of them.
        network: as `jnnk.network.read` reads it. It tells kernels of any layout; without it they
            are told by name and shape, see `conv_kernels`.

    Returns:
        Path -> the leaf, in the tree's order.

    Raises:
        ValueError: if the tree lacks a kernel of the network, or has one of another shape.
    """
    if network is None:
        found = conv_kernels(tree)
        return {path: ConvLeaf(leaf.shape, _FLAX) for path, leaf in found.items()}
    if not isinstance(network, Network):
        raise ValueError(
            f"network: expected one read by jnnk.network.read, got {type(network).__name__}"
        )
    leaves = leaves_by_path(tree)
    known = {_conv_path_in(leaves, conv): conv for conv in network.convs}
    return {
        leaf_path(path): ConvLeaf(known[path].kernel_shape, known[path].axes)
        for path in leaves
        if path in known
    }


def _conv_path_in(leaves: Mapping[Path, Any], conv: Conv) -> Path:
    """Where the kernel of a convolution lies in a tree, or a mask of it."""
    path = path_in(leaves, conv.path)
    shape = jnp.shape(leaves[path])
    is_mask = shape == () or all(
        size in (1, expected) for size, expected in zip(shape, conv.kernel_shape, strict=False)
    )
    if not is_mask:
        raise ValueError(
            f"network: expected one of this tree, whose {conv.name!r} has the kernel {shape}, got "
            f"one with {conv.kernel_shape}"
        )
    return path


def path_in(leaves: Mapping[Path, Any], path: Path) -> Path:
    """Where a leaf of the variables lies in a tree, maybe one of a part of them."""
    found = find_path(leaves, path)
    if found is not None:
        return found
    raise ValueError(
        f"network: expected one of this tree (leaves {', '.join(map(leaf_path, list(leaves)[:4]))},"
        f" ...), got one with {jax.tree_util.keystr(path)}"
    )


def find_path(leaves: Mapping[Path, Any], path: Path) -> Path | None:
    """As `path_in`; None where it does not lie in the tree."""
    ends = (path[start:] for start in range(len(path) or 1))
    return next((end for end in ends if end in leaves), None)


def conv_kernels(params: PyTree) -> dict[str, jax.Array]:
    """The kernels of a network's 2D convolutions.

    Parameters alone do not tell a convolution for certain. Taken is a leaf named ``kernel`` of four
    axes, at most 32 x 32 in the first two, unless

    - those two differ and neither is 1: what ``scan`` and ``vmap`` stack looks like that;
    - its layer has a bias other than one number for each filter, or a layer beside it a ``scale``
      of two axes, the first as long as the kernel's: all there is stacked;
    - a word of the layer's name tells another kind: ``local``, or ``dense``, ``linear``,
      ``attention`` without ``conv`` beside it, or ``query``, ``key``, ``value`` at the start.

    A stack of kernels ``(k, Cin, Cout)`` of 1D convolutions without bias is taken for a 2D one if
    it is k of them, or k is 1, or it is 1, and nothing beside it tells.

    Args:
        params: pytree of parameters, or a mask of them.

    Returns:
        Path -> weights ``(h, w, Cin, Cout)``, in the tree's order.
    """
    leaves = named_leaves(params)
    return {path: leaf for path, leaf in leaves.items() if _is_conv_kernel(path, leaves)}


def other_kernels(params: PyTree) -> dict[str, tuple[int, ...]]:
    """The leaves that may hold convolutions but are not taken for kernels of 2D ones.

    Args:
        params: pytree of parameters.

    Returns:
        Path -> shape of the leaves named ``kernel`` with three axes or more that ``conv_kernels``
        leaves out: of 1D and 3D convolutions, of layers that share no weights, of dense layers over
        several axes, and what ``scan`` and ``vmap`` have stacked.
    """
    leaves = named_leaves(params)
    return {
        path: jnp.shape(leaf)
        for path, leaf in leaves.items()
        if _is_kernel(path) and jnp.ndim(leaf) > 2 and not _is_conv_kernel(path, leaves)
    }


def _is_kernel(path: str) -> bool:
    return path.rpartition("/")[2] == "kernel"


def _is_conv_kernel(path: str, leaves: dict[str, jax.Array]) -> bool:
    shape = jnp.shape(leaves[path])
    if not _is_kernel(path) or len(shape) != 4 or max(shape[:2]) > _LARGEST:
        return False
    if shape[0] != shape[1] and min(shape[:2]) > 1:
        return False
    layer = path.rpartition("/")[0]
    bias = leaves.get(f"{layer}/bias" if layer else "bias")
    if bias is not None and jnp.shape(bias) not in ((), shape[3:]):  # (): in a mask
        return False
    return not _is_stacked(layer, shape[0], leaves) and not _is_named_otherwise(layer)


def _is_stacked(layer: str, length: int, leaves: dict[str, jax.Array]) -> bool:
    """Whether a layer in the same module has a vector of scales for each of as many copies."""
    module = layer.rpartition("/")[0]
    scales = (path for path, leaf in leaves.items() if jnp.shape(leaf)[:-1] == (length,))
    return any(
        path.endswith("/scale") and path.removesuffix("/scale").rpartition("/")[0] == module
        for path in scales
    )


def _is_named_otherwise(layer: str) -> bool:
    words = _words(layer.rpartition("/")[2])
    if "local" in words or _CONVS & {*words}:
        return "local" in words
    return bool(_OTHERS & {*words} or _PROJECTIONS & {*words[:1]})


def _words(name: str) -> list[str]:
    """The words of a name such as ``"DenseGeneral_0"`` or ``"dense_conv1"``, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
