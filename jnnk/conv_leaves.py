"""Which leaves of a tree of parameters are the kernels of 2D convolutions."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any

_LARGEST = 32  # the side of the largest kernels in use, those of patches of vision transformers
_OTHER_LAYERS = re.compile(r"dense|linear|attention|local|^(query|key|value)(_|$)", re.IGNORECASE)


def unboxed(path: Sequence[Any]) -> tuple[Any, ...]:
    """A JAX key path without the box around its leaf, if it has one."""
    path = tuple(path)
    return path[:-1] if path[-1:] == (jax.tree_util.GetAttrKey("value"),) else path


def leaf_path(path: Sequence[Any]) -> str:
    """Name of a leaf, such as ``"layer1_0/conv1/kernel"``, from its JAX key path.

    A box around the leaf (``flax.linen.Partitioned``, a variable of ``flax.nnx``) has no part in
    the name.
    """
    return jax.tree_util.keystr(unboxed(path), simple=True, separator="/")


def conv_kernels(params: PyTree) -> dict[str, jax.Array]:
    """The kernels of a network's 2D convolutions.

    Parameters alone do not tell a convolution for certain. Taken is a leaf named ``kernel`` of four
    axes, at most 32 x 32 in the first two, if its layer is not named as another kind is
    (``dense``, ``linear``, ``attention``, ``local``, ``query``, ``key``, ``value``) and has no bias
    other than one number for each filter.

    Args:
        params: pytree of parameters, or a mask of them.

    Returns:
        Path -> weights ``(h, w, Cin, Cout)``, in the tree's order.
    """
    leaves = _named_leaves(params)
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
    leaves = _named_leaves(params)
    return {
        path: jnp.shape(leaf)
        for path, leaf in leaves.items()
        if _is_kernel(path) and jnp.ndim(leaf) > 2 and not _is_conv_kernel(path, leaves)
    }


def _named_leaves(params: PyTree) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {leaf_path(path): leaf for path, leaf in leaves}


def _is_kernel(path: str) -> bool:
    return path.rpartition("/")[2] == "kernel"


def _is_conv_kernel(path: str, leaves: dict[str, jax.Array]) -> bool:
    shape = jnp.shape(leaves[path])
    if not _is_kernel(path) or len(shape) != 4 or max(shape[:2]) > _LARGEST:
        return False
    layer = path.rpartition("/")[0]
    bias = leaves.get(f"{layer}/bias" if layer else "bias")
    if bias is not None and jnp.shape(bias) not in ((), shape[3:]):  # (): in a mask
        return False
    return not _OTHER_LAYERS.search(layer.rpartition("/")[2])
