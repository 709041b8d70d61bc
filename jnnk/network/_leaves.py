"""The leaves of variables: their paths, and what a thinning keeps of each."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jnnk._core.errors import InputError
from jnnk.network._known import CONSTANT, LIVE, MISSING, ZERO, Known, nothing
from jnnk.network._patterns import Layout, Pattern, collapsed, pattern_of

#: Keys of a leaf in its pytree, as `jax.tree_util.keystr` writes them.
Path: TypeAlias = tuple[str, ...]
_Shape: TypeAlias = tuple[int, ...]


class ThinLeaf(NamedTuple):
    """What is left of one leaf of the variables.

    Attributes:
        path: where it is.
        shape: of the whole leaf.
        kept: the rectangle of it that stays a variable.
        unread: whether no live value reads it, and ``kept`` is one element that keeps its place.
        rest: the rectangle of frozen weights, from which constants are computed; or None.
        values: those weights, of the rectangle's shape; or None.
        masked: pattern of the weights that the masks removed, bool.
    """

    path: Path
    shape: _Shape
    kept: Layout
    unread: bool
    rest: Layout | None
    values: np.ndarray | None
    masked: Pattern


def paths_of(tree: Any) -> tuple[list[Path], list[Any]]:
    """Paths and leaves of a pytree."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [path_of(keys) for keys, _ in found], [leaf for _, leaf in found]


def path_of(keys: Sequence[Any]) -> Path:
    """Keys of a leaf, each as `jax.tree_util.keystr` writes it."""
    return tuple(jax.tree_util.keystr((key,)) for key in keys)


def known_of_leaf(leaf: ThinLeaf, dtype: Any) -> Known:
    """What is known of a leaf beside what stays a variable."""
    rank = len(leaf.shape)
    kind = np.where(leaf.masked, np.uint8(ZERO), np.uint8(MISSING)).reshape(leaf.masked.shape)
    value = nothing(rank, dtype)
    if leaf.rest is not None:
        frozen = pattern_of(leaf.rest, leaf.shape) & ~leaf.masked
        kind = np.where(frozen, np.uint8(CONSTANT), kind)
        assert leaf.values is not None
        value = leaf.values
        if any(each is not None for each in leaf.rest):
            value = np.zeros(leaf.shape, leaf.values.dtype)
            value[_rectangle(leaf.rest, leaf.shape)] = leaf.values
        value = value.astype(dtype)
    if not leaf.unread:
        kind = np.where(pattern_of(leaf.kept, leaf.shape), np.uint8(LIVE), kind)
    constant = kind == CONSTANT
    value = np.where(constant, value, np.zeros((), value.dtype)) if constant.any() else value
    if not constant.any():
        value = nothing(rank, dtype)
    return Known(collapsed(kind.astype(np.uint8)), value, False)


def rectangle(array: Any, layout: Layout) -> np.ndarray:
    """The elements of a NumPy array in a layout."""
    array = np.asarray(array)
    return array[_rectangle(layout, array.shape)]


def _rectangle(layout: Layout, shape: Sequence[int]) -> tuple[np.ndarray, ...]:
    return np.ix_(
        *(
            np.arange(size) if kept is None else kept
            for kept, size in zip(layout, shape, strict=True)
        )
    )


def is_same_shape(shape: _Shape, leaf: _Shape) -> bool:
    """Whether an array beside a leaf has its shape."""
    return shape == leaf


def is_broadcastable(shape: _Shape, leaf: _Shape) -> bool:
    """Whether an array beside a leaf can be broadcast to its shape."""
    try:
        return np.broadcast_shapes(shape, leaf) == leaf
    except ValueError:
        return False


def matching(
    paths: Sequence[Path],
    shapes: Sequence[_Shape],
    leaves: Sequence[ThinLeaf],
    *,
    fits: Callable[[_Shape, _Shape], bool] = is_same_shape,
    may_share: bool = True,
) -> list[int | None]:
    """For each leaf of another tree, the leaf of the variables that it stands beside.

    Trees are shaped like the variables, or like a part of them, or hold such trees: optimiser
    states, gradients, updated statistics. If all paths are those of one part of the variables, they
    stand beside that; so do all that lie under one key of the tree, such as an optimiser's moments.
    Else a leaf stands beside the one whose path ends like its own, in two keys or more (or all
    there are).

    Args:
        paths: of the tree.
        shapes: of its leaves.
        leaves: those of the variables.
        fits: of a leaf's shape and that of one of the variables, whether they belong together.
        may_share: whether a leaf may stand beside several that are thinned alike.

    Returns:
        Numbers of leaves; None for what stands beside none, such as a counter.

    Raises:
        InputError: a leaf may stand beside several, unless these are thinned alike and
            ``may_share``.
    """
    if list(paths) == [leaf.path for leaf in leaves]:
        return list(range(len(leaves)))
    parts = _parts(paths, leaves, least=2 if may_share else 1)

    def fitting_by(fits: Callable[[_Shape, _Shape], bool]) -> list[list[int]]:
        return [
            part
            for part in parts
            if all(fits(shape, leaves[n].shape) for shape, n in zip(shapes, part, strict=True))
        ]

    # Masks of a part may have axes of one element.
    fitting = fitting_by(fits) or fitting_by(is_broadcastable)
    if len(fitting) == 1 or (len(parts) == 1 and not may_share):
        return [*(fitting or parts)[0]]
    whole = _whole_parts(paths, shapes, leaves, fits) if may_share else {}
    by_end: dict[Path, list[int]] = {}
    for number, leaf in enumerate(leaves):
        by_end.setdefault(leaf.path[-1:], []).append(number)
    result: list[int | None] = []
    for number, (path, shape) in enumerate(zip(paths, shapes, strict=True)):
        if number in whole:
            result.append(whole[number])
            continue
        candidates = [n for n in by_end.get(path[-1:], []) if fits(shape, leaves[n].shape)]
        result.append(_beside(path, candidates, leaves, may_share=may_share))
    return result


def _parts(paths: Sequence[Path], leaves: Sequence[ThinLeaf], *, least: int) -> list[list[int]]:
    """For each part of the variables that has leaves of all these paths, these leaves.

    Paths of fewer than the least number of keys say too little.
    """
    shortest = min(paths, key=len, default=())
    if len(shortest) < least:
        return []
    places = {leaf.path: number for number, leaf in enumerate(leaves)}
    starts = [path[: -len(shortest)] for path in places if path[-len(shortest) :] == shortest]
    found = [[places.get((*start, *path)) for path in paths] for start in starts]
    whole = [[number for number in part if number is not None] for part in found]
    return [part for part in whole if len(part) == len(paths)]


def _whole_parts(
    paths: Sequence[Path],
    shapes: Sequence[_Shape],
    leaves: Sequence[ThinLeaf],
    fits: Callable[[_Shape, _Shape], bool],
) -> dict[int, int]:
    """Leaves of a tree below a key that has the leaves of just one part of the variables.

    A part is all variables, or those under one key whose paths have two keys more at least.
    """
    parts: dict[frozenset[Path], list[dict[Path, int]]] = {}
    for start, part in _below(leaf.path for leaf in leaves).items():
        if not start or min(map(len, part)) > 1:
            parts.setdefault(frozenset(part), []).append(part)
    found: dict[int, int] = {}
    for below in sorted(_below(paths).values(), key=len, reverse=True):
        fitting = [
            part
            for part in parts.get(frozenset(below), [])
            if all(fits(shapes[n], leaves[part[path]].shape) for path, n in below.items())
        ]
        if len(fitting) == 1 and not found.keys() & set(below.values()):
            found |= {number: fitting[0][path] for path, number in below.items()}
    return found


def _below(paths: Iterable[Path]) -> dict[Path, dict[Path, int]]:
    """For each key of a tree and its top, numbers of the leaves below, by what is left of paths."""
    found: dict[Path, dict[Path, int]] = {}
    for number, path in enumerate(paths):
        for depth in range(len(path)):
            found.setdefault(path[:depth], {})[path[depth:]] = number
    return found


def _beside(
    path: Path, candidates: Sequence[int], leaves: Sequence[ThinLeaf], *, may_share: bool
) -> int | None:
    lengths = {number: _shared_end(path, leaves[number].path) for number in candidates}
    enough = {n: length for n, length in lengths.items() if length >= min(len(leaves[n].path), 2)}
    if not enough:
        return None
    # One key may be all that there is of a path, and of those of leaves elsewhere the last.
    enough |= {n: length for n, length in lengths.items() if length == len(path)}
    longest = max(enough.values())
    best = [number for number, length in enough.items() if length == longest]
    if not all(may_share and _alike(leaves[best[0]], leaves[number]) for number in best[1:]):
        named = ", ".join("".join(leaves[number].path) for number in best)
        raise InputError(
            f"{'tree' if may_share else 'masks'}: expected leaves that stand beside one of the "
            f"variables, got {''.join(path)}, which may stand beside each of {named}"
        )
    return best[0]


def _shared_end(one: Path, other: Path) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def _alike(one: ThinLeaf, other: ThinLeaf) -> bool:
    same = pattern_of(one.kept, one.shape), pattern_of(other.kept, other.shape)
    return bool((same[0] == same[1]).all() and (one.masked == other.masked).all())
