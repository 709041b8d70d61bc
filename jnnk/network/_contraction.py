"""The rule of convolutions and matrix products.

What a result reads of constant inputs is a constant: it is computed once, from frozen weights, and
added. What it reads of live ones is computed, by a smaller kernel.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.network._grouped_convs import grouped_conv
from jnnk.network._internals import evaluate
from jnnk.network._known import (
    CONSTANT,
    LIVE,
    MISSING,
    ZERO,
    Known,
    Need,
    Part,
    Rule,
    nothing,
    pushed,
    settled,
)
from jnnk.network._patterns import Layout, collapsed, layout_of, over, pattern_of, uniform
from jnnk.network._placing import constants, placed, rest_taken
from jnnk.network._products import Product, product_of
from jnnk.network._program import CONV, Operation
from jnnk.network._small_convs import small_conv


def _paired(product: Product, left: Known, right: Known) -> np.ndarray:
    """Kinds of the single products, on the common axes.

    A product of a constant channel, or of one that removed weights made, with a weight that was
    removed is none: the thinned network did not read that channel.
    """
    one, other = product.left(left.kind), product.right(right.kind)
    kind = np.maximum(one, other)
    cut = (one == ZERO) | (other == ZERO)
    if left.of_images or right.of_images:
        cut |= (one == MISSING) & (other == MISSING)
    if left.of_images and not right.of_images:
        cut |= (one == CONSTANT) & (other == MISSING)
    if right.of_images and not left.of_images:
        cut |= (one == MISSING) & (other == CONSTANT)
    return np.where(cut, np.uint8(ZERO), kind)


def _known(operation: Operation, inputs: Sequence[Known], shapes: Sequence[Any]) -> list[Known]:
    left, right = inputs
    product = product_of(operation, shapes)
    paired = _paired(product, left, right)
    kind = over(paired, product.summed)
    of_images = left.of_images or right.of_images
    result = product.to_result(kind)
    value = nothing(len(shapes[2].shape), shapes[2].dtype)
    if (kind == CONSTANT).any():
        value = _product_of_constants(operation, left.value, right.value, shapes)
    return [settled(result, value, of_images=of_images)]


def _product_of_constants(
    operation: Operation, left: np.ndarray, right: np.ndarray, shapes: Sequence[Any]
) -> np.ndarray:
    """The operation on constants, for one image."""
    of_left, of_right = list(left.shape), list(right.shape)
    whole, other = shapes[0].shape, shapes[1].shape
    if operation.name == CONV:
        batch = operation.params["dimension_numbers"].lhs_spec[0]
        of_left = [n if a == batch else whole[a] for a, n in enumerate(of_left)]
        of_right = list(other)
    else:
        (left_summed, right_summed), (left_batch, right_batch) = operation.params[
            "dimension_numbers"
        ]
        for one, two in zip(
            (*left_summed, *left_batch), (*right_summed, *right_batch), strict=True
        ):
            both = max(of_left[one], of_right[two])
            of_left[one] = of_right[two] = whole[one] if one in left_summed else both
    arrays = [np.broadcast_to(left, of_left), np.broadcast_to(right, of_right)]
    return collapsed(np.asarray(evaluate(operation.equation, list(map(jnp.asarray, arrays)))[0]))


def _needs(
    operation: Operation,
    inputs: Sequence[Known],
    outputs: Sequence[Known],
    needs: Sequence[Need | None],
    shapes: Sequence[Any],
) -> list[Need | None]:
    left, right = inputs
    (need,) = needs
    assert need is not None
    product = product_of(operation, shapes)
    read = _paired(product, left, right) != ZERO
    # That a value of the images is zero is found again when the thinned function is traced.
    zeros = [
        (one == ZERO) & ((other == CONSTANT) | (other == LIVE)) if known.of_images else False
        for one, other, known in _with_others(product, left, right)
    ]
    needed, live = product.result(need.needed), product.result(pushed(need, outputs[0]))
    if _is_grouped(operation, shapes):  # groups stay whole
        needed, live, read = (over(each, [2, 3]) for each in (needed, live, read))
    living = live & read
    of_left, of_right = living, living
    if left.of_images:
        of_right = living & (product.left(left.kind) == LIVE)
    if right.of_images:
        of_left = living & (product.right(right.kind) == LIVE)
    spatial = _spatial(operation, shapes)
    return [
        Need(product.to_left(needed & (read | zeros[0])), product.to_left(of_left), spatial[0]),
        Need(product.to_right(needed & (read | zeros[1])), product.to_right(of_right), spatial[1]),
    ]


def _with_others(
    product: Product, left: Known, right: Known
) -> tuple[tuple[np.ndarray, np.ndarray, Known], ...]:
    """Kinds of each side on the common axes, those of the other, and what is known of the side."""
    one, other = product.left(left.kind), product.right(right.kind)
    return (one, other, left), (other, one, right)


def _spatial(operation: Operation, shapes: Sequence[Any]) -> tuple[frozenset[int], frozenset[int]]:
    """Axes of both sides that a convolution reads whole."""
    if operation.name != CONV:
        return frozenset(), frozenset()
    numbers, rank = operation.params["dimension_numbers"], len(shapes[0].shape)
    return (
        frozenset(range(rank)) - set(numbers.lhs_spec[:2]),
        frozenset(range(rank)) - set(numbers.rhs_spec[:2]),
    )


def _is_grouped(operation: Operation, shapes: Sequence[Any]) -> bool:
    """Whether a convolution has groups of several input channels."""
    if operation.name != CONV or operation.params["feature_group_count"] == 1:
        return False
    return shapes[1].shape[operation.params["dimension_numbers"].rhs_spec[1]] > 1


class _Plan(NamedTuple):
    """How a product is thinned.

    Attributes:
        layout: of the result that is computed.
        along: what is kept of each axis that is summed over.
        rest: the constants that the product sums up outside of it; None where there are none.
    """

    layout: Layout
    along: tuple[np.ndarray | None, ...]
    rest: Known | None


def _plan(
    operation: Operation,
    inputs: Sequence[Known],
    layouts: Sequence[Layout | None],
    shapes: Sequence[Any],
) -> _Plan | None:
    (layout,), product = layouts, product_of(operation, shapes)
    if layout is None or product.groups > 1:
        return None
    left, right = inputs
    inside = _of_channels(operation, layout) if operation.name == CONV else layout
    wanted = product.result(pattern_of(inside, shapes[2].shape))
    read = wanted & (_paired(product, left, right) != ZERO)
    moving = (product.left(left.kind) == LIVE) | (product.right(right.kind) == LIVE)
    others = [axis for axis in range(read.ndim) if axis not in product.summed]
    rows = product.to_left(over(read & moving, others))
    kept = layout_of(rows if rows.any() else ~rows)
    assert kept is not None
    covered = product.left(pattern_of(_only(kept, product.left_summed), shapes[0].shape))
    rest = None
    if (read & ~covered).any():
        outside = product.to_left(~covered)
        value = np.where(outside, left.value, np.zeros((), left.value.dtype))
        found = _product_of_constants(operation, value, right.value, shapes)
        rest = Known(uniform(found.ndim, CONSTANT, np.uint8), found, True)
    return _Plan(inside, tuple(kept[axis] for axis in product.left_summed), rest)


def _compute(
    operation: Operation,
    inputs: Sequence[Part],
    layouts: Sequence[Layout | None],
    shapes: Sequence[Any],
    plan: _Plan | None,
) -> list[Any]:
    (layout,) = layouts
    assert layout is not None
    if plan is None:
        return [grouped_conv(operation, inputs, layout, shapes)]
    product = product_of(operation, shapes)
    left, right = inputs
    result = _applied(
        operation,
        _side(left, product.left_summed, plan.along, product.left_free, plan.layout),
        _side(right, product.right_summed, plan.along, product.right_free, plan.layout),
    )
    if plan.rest is not None:
        part = Part(shapes[2].shape, shapes[2].dtype, plan.rest, None, None)
        result = result + constants(part, plan.layout)
    return [rest_taken(result, plan.layout, layout)]


def _only(layout: Layout, axes: Sequence[int]) -> Layout:
    return tuple(kept if axis in axes else None for axis, kept in enumerate(layout))


def _of_channels(operation: Operation, layout: Layout) -> Layout:
    """The part of a layout that a convolution can leave out: of images and channels."""
    return _only(layout, operation.params["dimension_numbers"].out_spec[:2])


def _side(
    part: Part,
    summed: Sequence[int],
    along: Sequence[np.ndarray | None],
    free: dict[int, int],
    layout: Layout,
) -> jax.Array:
    """One side of a product with what is summed over and what is free thinned."""
    target: list[np.ndarray | None] = [None] * len(part.shape)
    for axis, kept in zip(summed, along, strict=True):
        target[axis] = kept
    for axis, of_result in free.items():
        target[axis] = layout[of_result]
    return placed(part, tuple(target))


def _applied(operation: Operation, left: jax.Array, right: jax.Array) -> jax.Array:
    if operation.name == CONV:
        return small_conv(operation, left, right)
    return evaluate(operation.equation, [left, right])[0]


CONTRACTION = Rule(_known, _needs, _compute, _plan)
