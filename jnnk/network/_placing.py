"""Elements of a value where a thinned program wants them: computed ones taken, constants put in."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.network._known import Part
from jnnk.network._patterns import Layout, sizes_of

#: Constants of more elements are repeated from their distinct rows when the program runs.
_LARGE = 2**15
#: Runs of computed elements and constants that are joined as they come.
_FEW = 8


def placed(part: Part, target: Layout) -> jax.Array:
    """The elements of a value that a layout names, in its order; indices may repeat.

    Those that the program does not compute are the value's constants, or zero.
    """
    wanted = [
        None if kept is None and (part.layout is None or part.layout[axis] is None)
        else np.arange(part.shape[axis]) if kept is None
        else kept
        for axis, kept in enumerate(target)
    ]  # fmt: skip
    if part.layout is None:
        return constants(part, wanted)
    places = [
        None if indices is None else _places(computed, indices)
        for computed, indices in zip(part.layout, wanted, strict=True)
    ]
    array = part.array
    for axis, found in enumerate(places):
        if found is not None:
            array = taken(array, found[found >= 0], axis)
    for axis, found in enumerate(places):
        if found is not None and (found < 0).any():
            array = _filled(part, array, axis, wanted, places)
    return array


def _places(computed: np.ndarray | None, indices: np.ndarray) -> np.ndarray:
    """Where indices are among those computed; -1 where they are not."""
    if computed is None:
        return indices
    found = np.minimum(np.searchsorted(computed, indices), len(computed) - 1)
    return np.where(computed[found] == indices, found, -1)


def _filled(
    part: Part,
    array: jax.Array,
    axis: int,
    wanted: Sequence[np.ndarray | None],
    places: Sequence[np.ndarray | None],
) -> jax.Array:
    """Adds the constants along one axis; the axes before it are complete, those behind are not."""
    found, indices = places[axis], wanted[axis]
    assert found is not None and indices is not None
    rest: list[np.ndarray | None] = []
    for each, (place, index) in enumerate(zip(places, wanted, strict=True)):
        if each > axis and index is not None and place is not None:
            index = index[place >= 0]
        rest.append(index)
    runs = np.split(np.arange(len(found)), np.flatnonzero(np.diff(found >= 0)) + 1)
    if len(runs) <= _FEW:  # put one after the other, which costs less than an order
        return _joined(
            part, array, axis, rest, [(indices[run], bool(found[run[0]] >= 0)) for run in runs]
        )
    rest[axis] = indices[found < 0]
    both = jnp.concatenate([array, constants(part, rest)], axis=axis)
    order = np.concatenate([np.flatnonzero(found >= 0), np.flatnonzero(found < 0)])
    return taken(both, np.argsort(order), axis)


def _joined(
    part: Part,
    array: jax.Array,
    axis: int,
    rest: list[np.ndarray | None],
    runs: Sequence[tuple[np.ndarray, bool]],
) -> jax.Array:
    """Runs of indices along an axis: of elements that are computed, and of constants."""
    pieces: list[jax.Array] = []
    start = 0
    for indices, is_computed in runs:
        if is_computed:
            end = start + len(indices)
            pieces.append(jax.lax.slice_in_dim(array, start, end, axis=axis))
            start = end
        else:
            rest[axis] = indices
            pieces.append(constants(part, rest))
    return jnp.concatenate(pieces, axis=axis)


def constants(part: Part, wanted: Sequence[np.ndarray | None]) -> jax.Array:
    """Constants of a value at the indices named along each axis."""
    value = part.known.value.astype(part.dtype)
    for axis, indices in enumerate(wanted):
        if indices is not None and value.shape[axis] != 1:
            value = value.take(indices, axis=axis)
    return jnp.broadcast_to(written(value), sizes_of(tuple(wanted), part.shape))


def written(value: np.ndarray) -> jax.Array:
    """A known array as the program holds it: a large one by its distinct rows.

    What a constant filter emits differs along the borders of an image alone.
    """
    if value.size <= _LARGE:
        return jnp.asarray(value)
    repeats: list[tuple[int, np.ndarray]] = []
    small = value
    for axis in range(value.ndim):
        small, source = _distinct(small, axis)
        repeats.append((axis, source))
    # Or XLA writes the map out while it compiles.
    array = jax.lax.optimization_barrier(jnp.asarray(small))
    for axis, source in repeats:
        array = taken(array, source, axis)
    return array


def _distinct(value: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The slices that differ from the one before, and which of them stands for each slice."""
    if value.shape[axis] < 2:
        return value, np.arange(value.shape[axis])
    new = np.ones(value.shape[axis], bool)
    rows = np.moveaxis(value, axis, 0).reshape(len(new), -1)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return value.take(np.flatnonzero(new), axis=axis), np.cumsum(new) - 1


def taken(array: jax.Array, indices: np.ndarray, axis: int) -> jax.Array:
    """Elements along an axis, as a slice where indices are evenly spaced."""
    size = array.shape[axis]
    count = len(indices)
    step = int(indices[1] - indices[0]) if count > 1 else 1
    if count and step > 0 and np.array_equal(indices, indices[0] + step * np.arange(count)):
        if count == size:
            return array
        start = int(indices[0])
        return jax.lax.slice_in_dim(array, start, start + step * (count - 1) + 1, step, axis=axis)
    return jnp.take(array, indices.astype(np.int32), axis=axis, mode="clip")


def rest_taken(array: jax.Array, have: Layout, want: Layout) -> jax.Array:
    """What a layout keeps of a value along those axes that are whole in ``array``."""
    for axis, (old, new) in enumerate(zip(have, want, strict=True)):
        if old is None and new is not None:
            array = taken(array, new, axis)
    return array
