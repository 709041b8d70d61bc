"""Any pytree of arrays as nested dicts by the names of its leaves, and back."""

from typing import Any

import jax

from jnnk._core.errors import InputError
from jnnk.network._names import PyTree, leaf_path

#: Arrays by name, such as ``{"conv1": {"kernel": ...}}``.
NamedTree = dict[str, Any]


def named_tree(tree: PyTree) -> NamedTree:
    """The arrays of a pytree in nested dicts.

    Args:
        tree: any pytree of arrays, such as the parameters of an Equinox module.

    Returns:
        The arrays by the parts of their names: a leaf ``layers/0/weight`` is at
        ``["layers"]["0"]["weight"]``. Boxes around arrays have no part in it.

    Raises:
        InputError: if the name of one leaf goes on where that of another ends.
    """
    found: NamedTree = {}
    leaves: Any = jax.tree_util.tree_leaves_with_path(tree)
    for path, leaf in leaves:
        *parents, last = _parts(path)
        inner = found
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                break
        if not isinstance(inner, dict) or last in inner:
            raise InputError(
                f"variables: expected names of which none begins another, got {leaf_path(path)}"
            )
        inner[last] = leaf
    return found


def like_tree(named: NamedTree, like: PyTree) -> PyTree:
    """The pytree whose arrays `named_tree` has put into nested dicts.

    Args:
        named: the nested dicts.
        like: a pytree of the form wanted, of anything.
    """

    def leaf_of(path: Any, _: Any) -> Any:
        found: Any = named
        for part in _parts(path):
            found = found[part]
        return found

    return jax.tree_util.tree_map_with_path(leaf_of, like)


def _parts(path: Any) -> list[str]:
    return leaf_path(path).split("/")
