"""Which leaves of a tree of parameters are the kernels of 2D convolutions."""

import re
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

#: A pytree of arrays, such as the parameters of a Flax network or a mask of them.
PyTree = Any
#: Where a leaf lies in a pytree: JAX's keys.
Path = tuple[Any, ...]

_LARGEST = 32  # the side of the largest kernels in use, those of patches of vision transformers
# Words in the names of layers, as `_words` makes them.
_CONVS = {"conv", "convs", "convolution", "convolutional"}
_OTHERS = {"dense", "linear", "attention"}  # unless a conv is named too, as in "dense_conv"
_PROJECTIONS = {"query", "key", "value"}  # as the first word


def unboxed(path: Sequence[Any]) -> Path:
    """A JAX key path without the box around its leaf, if it has one."""
    path = tuple(path)
    return path[:-1] if path[-1:] == (jax.tree_util.GetAttrKey("value"),) else path


def leaf_path(path: Sequence[Any]) -> str:
    """Name of a leaf, such as ``"layer1_0/conv1/kernel"``, from its JAX key path.

    A box around the leaf (``flax.linen.Partitioned``, a variable of ``flax.nnx``) has no part in
    the name.
    """
    return jax.tree_util.keystr(unboxed(path), simple=True, separator="/")


def leaves_by_path(tree: PyTree) -> dict[Path, Any]:
    """The leaves of a tree by their paths without boxes, in the tree's order."""
    leaves = cast(list[tuple[Path, Any]], jax.tree_util.tree_leaves_with_path(tree))
    return {unboxed(path): leaf for path, leaf in leaves}


def named_leaves(tree: PyTree) -> dict[str, jax.Array]:
    """The leaves of a tree by name, see `leaf_path`, in the tree's order."""
    return {leaf_path(path): leaf for path, leaf in leaves_by_path(tree).items()}


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
