"""Names of the leaves of a tree of variables."""

from collections.abc import Sequence
from typing import Any, cast

import jax

#: A pytree of arrays, such as the variables of a network or a mask of them.
PyTree = Any
#: Where a leaf lies in a pytree: JAX's keys.
Path = tuple[Any, ...]
#: What libraries call the kernel of a layer.
KERNELS = ("kernel", "weight", "w")


def unboxed(path: Sequence[Any]) -> Path:
    """A JAX key path without the box around its leaf, if it has one.

    Flax's boxes lie in dicts; an attribute ``value`` of another attribute is one of a module.
    """
    keys, last = [*path[:-1]], [*path[-1:]]
    is_value = last == [jax.tree_util.GetAttrKey("value")]
    is_box = is_value and bool(keys) and not isinstance(keys[-1], jax.tree_util.GetAttrKey)
    return tuple(keys) if is_box else tuple(path)


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


def layer_of_leaf(name: str) -> str:
    """The layer of a leaf, by its name as of `leaf_path`: without ``kernel`` and the like."""
    layer, _, leaf = name.rpartition("/")
    return layer if layer and leaf in KERNELS else name


def layer_name(path: Sequence[Any]) -> str:
    """Name of the layer that a kernel belongs to, such as ``"layer1_0/conv1"``.

    The path without the collection at its start (``params``; of a tuple of parameters and states,
    the place 0) and without ``kernel``, ``weight`` or ``w`` at its end.
    """
    path = unboxed(path)
    names = [leaf_path([key]) for key in path]
    if len(names) > 1 and (names[0] == "params" or path[0] == jax.tree_util.SequenceKey(0)):
        names = names[1:]
    if len(names) > 1 and names[-1] in KERNELS:
        names = names[:-1]
    return "/".join(names) or "conv"
