"""Finds what masks leave of a network: the analysis behind `compact`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnnk._core.errors import InputError
from jnnk.network._evaluation import ApplyFunction
from jnnk.network._known import is_of_numbers
from jnnk.network._leaves import (
    ThinLeaf,
    is_broadcastable,
    matching,
    paths_of,
    rectangle,
)
from jnnk.network._partial import Analysis
from jnnk.network._patterns import (
    Layout,
    Pattern,
    collapsed,
    everything,
    layout_of,
    pattern_of,
    same_layout,
    uniform,
)
from jnnk.network._thinning import Thinning, analysed
from jnnk.network._traced import Traced, read_inputs, shape_of, traced

PyTree = Any


def compact(
    apply_fn: ApplyFunction, variables: PyTree, masks: PyTree, images: PyTree
) -> tuple[ApplyFunction, PyTree]:
    """The network without the channels that masks removed, and its variables.

    Channels go wherever the network's operations let single ones go: through residual sums,
    concatenations, depthwise and grouped convs (whole groups), reshapes and dense layers. An
    operation that mixes channels otherwise, or has no rule, such as a scan, gets all of them.

    Args:
        apply_fn: ``apply_fn(variables, images)``, traceable by JAX, to anything.
        variables: its variables, a pytree of arrays.
        masks: 0 where a weight is removed; a pytree with the treedef of ``variables`` or of a part
            of it (such as ``params``), each leaf broadcastable to its variable.
        images: a batch, or its `jax.ShapeDtypeStruct`, of any batch size: only shapes are read.

    Returns:
        ``(apply_small, variables_small)``: a function of the same arguments, with the results of
        ``apply_fn`` on the masked variables, up to rounding, at any batch size; and the variables,
        with the same treedef and smaller leaves. See `Thinning.function`.

    Raises:
        InputError: masks that do not fit the variables, or may stand beside several parts of them.
    """
    thinning = thin(apply_fn, variables, masks, images)
    return thinning.function(apply_fn), thinning.variables(variables)


def thin(apply_fn: ApplyFunction, variables: PyTree, masks: PyTree, images: PyTree) -> Thinning:
    """What masks leave of a network; the arguments of `compact`.

    A weight stays a variable where something that depends on the images is computed with it and an
    output needs the result. Where a result is the same for all images, such as what BatchNorm makes
    of a dead filter, its weights are frozen, in the thinning. All others are removed. Leaves that
    ``apply_fn`` does not read stay whole; of those that it reads, one element stays at least.
    What is zero stays zero whatever it is multiplied with or divided by, infinity and NaN included.
    """
    paths, arrays = paths_of(variables)
    leaves = _masked_leaves(paths, arrays, masks)
    shapes = jax.tree.map(shape_of, variables)
    found = traced(apply_fn, shapes, (images,), {}, leaves)
    read = read_inputs(found.program)
    kept: list[Layout | None] = [
        None if number in read and leaf.values is not None else everything(len(leaf.shape))
        for number, leaf in zip(found.program.inputs, leaves, strict=False)
    ]
    while True:
        leaves = [_with_kept(leaf, layout) for leaf, layout in zip(leaves, kept, strict=True)]
        analysis = analysed(found, leaves)
        grown = _live_layouts(found, analysis, kept)
        if all(map(same_layout, grown, kept)):
            return Thinning(tuple(_finished(found, analysis, leaves)))
        kept = grown


def _masked_leaves(paths: Sequence[Any], arrays: Sequence[Any], masks: PyTree) -> list[ThinLeaf]:
    """The leaves with their masks and weights, all of them frozen at first."""
    leaves = [
        ThinLeaf(
            path,
            tuple(jnp.shape(array)),
            everything(jnp.ndim(array)),
            False,
            None,
            None,
            uniform(jnp.ndim(array), False, bool),
        )
        for path, array in zip(paths, arrays, strict=True)
    ]
    masked = {number: mask for number, mask in _masks_of(leaves, masks)}
    return [
        _with_values(leaf._replace(masked=masked.get(number, leaf.masked)), array)
        for number, (leaf, array) in enumerate(zip(leaves, arrays, strict=True))
    ]


def _masks_of(leaves: Sequence[ThinLeaf], masks: PyTree) -> list[tuple[int, Pattern]]:
    paths, arrays = paths_of(masks)
    shapes = [tuple(jnp.shape(array)) for array in arrays]
    found = matching(paths, shapes, leaves, fits=is_broadcastable, may_share=False)
    result = []
    for path, array, shape, number in zip(paths, arrays, shapes, found, strict=True):
        if number is None or not is_broadcastable(shape, leaves[number].shape):
            raise InputError(
                "masks: expected leaves that can be broadcast to the variables of their paths, got "
                f"shape {shape} at {''.join(path) or 'the top'}"
            )
        rank = len(leaves[number].shape)
        pattern = (np.asarray(array) == 0).reshape((1,) * (rank - len(shape)) + shape)
        result.append((number, collapsed(pattern)))
    return result


def _with_values(leaf: ThinLeaf, array: Any) -> ThinLeaf:
    if not is_of_numbers(jnp.result_type(array)):
        return leaf
    values = np.asarray(jnp.asarray(array))
    values = np.where(leaf.masked, np.zeros((), values.dtype), values)
    return leaf._replace(rest=everything(values.ndim), values=values)


def _with_kept(leaf: ThinLeaf, kept: Layout | None) -> ThinLeaf:
    return leaf._replace(kept=kept or (), unread=kept is None)


def _live_layouts(
    found: Traced, analysis: Analysis, kept: Sequence[Layout | None]
) -> list[Layout | None]:
    """What is to stay of each leaf, no less than so far."""
    grown: list[Layout | None] = []
    for number, layout in zip(found.program.inputs, kept, strict=False):
        need, shape = analysis.needs[number], found.program.shapes[number].shape
        if need is None:
            grown.append(layout)
        else:
            grown.append(layout_of(need.live | pattern_of(layout, shape), whole=need.whole))
    return grown


def _finished(found: Traced, analysis: Analysis, leaves: Sequence[ThinLeaf]) -> list[ThinLeaf]:
    """The leaves with those weights frozen that constants are computed from."""
    result = []
    for leaf, number in zip(leaves, found.program.inputs, strict=False):
        need = analysis.needs[number]
        rest = None
        if need is not None and leaf.values is not None:
            kept = pattern_of(None if leaf.unread else leaf.kept, leaf.shape)
            rest = layout_of(need.needed & ~kept & ~leaf.masked, whole=need.whole)
        values = None if rest is None else rectangle(leaf.values, rest)
        one = tuple(np.zeros(1, int) for _ in leaf.shape)
        result.append(
            leaf._replace(kept=one if leaf.unread else leaf.kept, rest=rest, values=values)
        )
    return result
