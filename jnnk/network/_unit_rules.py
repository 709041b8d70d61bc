"""What each kind of operation does with units: carries, joins, starts or fixes them."""

import numpy as np

from jnnk.network._axiswise import ALONG_AXES, REDUCTIONS, axes_of
from jnnk.network._contraction import CONTRACTION
from jnnk.network._elementwise import ELEMENTWISE
from jnnk.network._joining import JOIN
from jnnk.network._kernels import Origin
from jnnk.network._known import CONSTANT, Known, Rule
from jnnk.network._patterns import collapsed, over, uniform
from jnnk.network._program import CONV, Operation
from jnnk.network._reshaping import BROADCAST, RESHAPE, TRANSPOSE
from jnnk.network._shifting import SHIFT
from jnnk.network._unit_finder import FIXED, NONE, Finder

_MOVES = (BROADCAST, JOIN, RESHAPE, SHIFT, TRANSPOSE)


def follow(finder: Finder, operation: Operation, rule: Rule) -> None:
    """Gives the results of an operation their units."""
    if not any(number in finder.units for number in operation.inputs) and not any(
        finder.known[number].of_images for number in operation.outputs
    ):
        return
    if rule is not CONTRACTION:
        finder.use_otherwise(operation.inputs)
    if rule is ELEMENTWISE:
        _follow_elements(finder, operation)
    elif rule in _MOVES:
        _follow_move(finder, operation, rule)
    elif rule is ALONG_AXES:
        _follow_reduction(finder, operation)
    elif rule is CONTRACTION:
        _follow_product(finder, operation)
    else:
        _follow_unknown(finder, operation)


def _follow_unknown(finder: Finder, operation: Operation) -> None:
    finder.use_otherwise(operation.inputs)
    for number in operation.inputs:
        finder.fix(finder.units_of(number), f"{operation.name} reads it, which has no rule")
    for number in operation.outputs:
        if finder.known[number].of_images:
            finder.units[number] = finder.uniform(number, FIXED)


def _follow_elements(finder: Finder, operation: Operation) -> None:
    found = [
        (finder.units_of(number), finder.known[number].of_images)
        for number in operation.inputs
        if number in finder.units and finder.program.shapes[number].shape
    ]
    shape = np.broadcast_shapes(*(units.shape for units, _ in found), *[(1,)][: not found])
    joined = np.zeros(shape, np.int64)
    for place, (units, of_images) in enumerate(found):
        others = found[:place] + found[place + 1 :]
        if finder.is_shared(units, of_images, others):
            # One number for several channels: it stays as long as one of them does.
            finder.fix(units, f"{operation.name} gives one number of it to several channels")
            continue
        finder.join(joined, units)
        joined = np.where(joined == NONE, units, joined)
    for number in operation.outputs:
        finder.units[number] = collapsed(
            joined if found else np.asarray(finder.uniform(number, NONE))
        )


def _follow_move(finder: Finder, operation: Operation, rule: Rule) -> None:
    inputs = [
        _as_known(finder, number)
        if place == 0 or rule is JOIN
        else _beside(finder, operation, place)
        for place, number in enumerate(operation.inputs)
    ]
    shapes = [finder.program.shapes[n] for n in (*operation.inputs, *operation.outputs)]
    if rule is JOIN and _joins_positions(finder, operation):
        _join_all(finder, operation)
        return
    alike = [axis for axis, size in enumerate(inputs[0].value.shape) if size == 1]
    for number, moved in zip(operation.outputs, rule.known(operation, inputs, shapes), strict=True):
        # Zeros around positions belong to whatever channel they are in.
        is_padded = operation.name == "pad"
        finder.units[number] = over(moved.value, alike) if is_padded else moved.value


def _joins_positions(finder: Finder, operation: Operation) -> bool:
    """Whether values are put side by side along an axis of positions, or of images."""
    axis = operation.params["dimension"]
    units = [finder.units_of(number) for number in operation.inputs]
    sizes = [finder.size(number, axis) for number in operation.inputs]
    return all(each.shape[axis] == 1 for each in units) and max(sizes) > 1


def _join_all(finder: Finder, operation: Operation) -> None:
    units = [finder.units_of(number) for number in operation.inputs]
    joined = np.zeros(np.broadcast_shapes(*(each.shape for each in units)), np.int64)
    for each in units:
        finder.join(joined, each)
        joined = np.where(joined == NONE, each, joined)
    finder.units[operation.outputs[0]] = joined


def _as_known(finder: Finder, number: int) -> Known:
    """The units of a value in the place of its constants, which move as they do."""
    units = finder.units_of(number)
    return Known(uniform(units.ndim, CONSTANT, np.uint8), units, of_images=True)


def _beside(finder: Finder, operation: Operation, place: int) -> Known:
    """An input that tells where to move, or what to pad with."""
    number = operation.inputs[place]
    if operation.name != "pad":
        return finder.known[number]
    fill = FIXED if finder.known[number].of_images else NONE
    return Known(np.asarray(CONSTANT, np.uint8), np.asarray(fill), of_images=True)


def _follow_reduction(finder: Finder, operation: Operation) -> None:
    """What is reduced together is coupled."""
    axes = axes_of(operation, len(finder.program.shapes[operation.inputs[0]].shape))
    for number in operation.inputs:
        units = finder.units_of(number)
        varying = [axis for axis in axes if units.shape[axis] > 1]
        first = units
        for axis in varying:
            first = first.take([0], axis=axis)
        if varying and operation.name in REDUCTIONS:
            finder.join(units, first)
        elif varying:
            finder.fix(units, f"{operation.name} goes along it")
        if operation.name in REDUCTIONS:
            first = first.reshape([n for axis, n in enumerate(first.shape) if axis not in axes])
        else:
            first = units
        for output in operation.outputs:
            finder.units[output] = first


def _follow_product(finder: Finder, operation: Operation) -> None:
    left, right = operation.inputs
    of_images = [finder.known[number].of_images for number in operation.inputs]
    kernel = left if not of_images[0] else right
    origin = finder.leaves.get(kernel)
    is_made_of_images = operation.name == CONV and not of_images[0]
    if all(of_images) or not any(of_images) or origin is None or is_made_of_images:
        _follow_unknown(finder, operation)
        return
    finder.use_otherwise([kernel], but=origin.leaf)
    if operation.name == CONV:
        _follow_conv(finder, operation, origin)
    else:
        _follow_dense(finder, operation, kernel_first=not of_images[0], origin=origin)


def _follow_conv(finder: Finder, operation: Operation, origin: Origin) -> None:
    numbers, params = operation.params["dimension_numbers"], operation.params
    images, kernel = operation.inputs
    read = finder.along(images, numbers.lhs_spec[1])
    groups, filters = params["feature_group_count"], finder.size(kernel, numbers.rhs_spec[0])
    made = finder.new(filters)
    if groups == 1:
        finder.cut(origin, numbers.rhs_spec[1], read)
    elif finder.size(kernel, numbers.rhs_spec[1]) == 1:
        finder.join(np.repeat(read, filters // groups), made)
    else:  # groups go whole
        by_group = [read.reshape(groups, -1), made.reshape(groups, -1)]
        for units in by_group:
            finder.join(units, by_group[1][:, :1])
    finder.cut(origin, numbers.rhs_spec[0], made)
    finder.join_kernel(kernel, numbers.rhs_spec[0], made)
    rank = len(finder.program.shapes[images].shape)
    shape = [filters if axis == numbers.out_spec[1] else 1 for axis in range(rank)]
    finder.units[operation.outputs[0]] = made.reshape(shape)


def _follow_dense(
    finder: Finder, operation: Operation, *, kernel_first: bool, origin: Origin
) -> None:
    (summed, batch) = operation.params["dimension_numbers"]
    sides = [0, 1] if kernel_first else [1, 0]
    of_kernel, of_values = (summed[side] for side in sides)
    kernel, values = (operation.inputs[side] for side in sides)
    if batch[0] or batch[1]:
        _follow_unknown(finder, operation)
        return
    for kernel_axis, axis in zip(of_kernel, of_values, strict=True):
        finder.cut(origin, kernel_axis, finder.along(values, axis, others=of_values))
    free = [a for a in range(len(finder.program.shapes[kernel].shape)) if a not in of_kernel]
    rank = len(finder.program.shapes[operation.outputs[0]].shape)
    start = 0 if kernel_first else rank - len(free)
    outputs = finder.uniform(operation.outputs[0], NONE)
    if len(free) == 1:
        made = finder.new(finder.size(kernel, free[0]))
        finder.cut(origin, free[0], made)
        finder.join_kernel(kernel, free[0], made)
        outputs = made.reshape([-1 if axis == start else 1 for axis in range(rank)])
    kept = [axis for axis in range(len(finder.program.shapes[values].shape))
            if axis not in of_values]  # fmt: skip
    if any(finder.units_of(values).shape[axis] > 1 for axis in kept) or len(free) != 1:
        finder.fix(finder.units_of(values), "a product has it along an axis that stays")
        outputs = finder.uniform(operation.outputs[0], FIXED)
    finder.units[operation.outputs[0]] = outputs
