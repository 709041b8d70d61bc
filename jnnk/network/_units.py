"""Which elements of a network's values belong to one channel, and which channels hang together.

Each filter of a convolution and each output of a dense layer starts a unit. Operations that move
elements carry the units along; those that join values element by element make units one: what is
added to a residual stream, scaled by BatchNorm or gated by squeeze-and-excitation comes and goes
together. A unit that something reads which has no rule, or that reaches an output, is fixed.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jnnk.network._axiswise import ALONG_AXES, AXISWISE, REDUCTIONS
from jnnk.network._axiswise import _axes as axes_of
from jnnk.network._contraction import CONTRACTION
from jnnk.network._elementwise import ELEMENTWISE
from jnnk.network._joining import JOIN
from jnnk.network._kernels import Origin
from jnnk.network._known import CONSTANT, Known, Rule
from jnnk.network._patterns import Pattern, collapsed, over, uniform
from jnnk.network._program import CONV, Operation, Program
from jnnk.network._reshaping import BROADCAST, RESHAPE, TRANSPOSE
from jnnk.network._shifting import SHIFT

#: The unit of elements that are the same whatever is removed, such as padding.
NONE = 0
#: The unit of what always stays: the images, and whatever hangs together with them.
FIXED = 1
_MOVES = (BROADCAST, JOIN, RESHAPE, SHIFT, TRANSPOSE)


class LeafAxis(NamedTuple):
    """An axis of a leaf along which its slices belong to units.

    Attributes:
        leaf: number of the leaf.
        axis: of the leaf.
        units: (size of the axis,), a unit for each index.
    """

    leaf: int
    axis: int
    units: np.ndarray


class Units(NamedTuple):
    """The units of a network.

    Attributes:
        axes: the axes of leaves that are cut with the units.
        reasons: why units are fixed, by unit; others can go.
    """

    axes: tuple[LeafAxis, ...]
    reasons: Mapping[int, str]


def find_units(
    program: Program,
    known: Sequence[Known],
    rules: Sequence[Rule],
    leaves: Mapping[int, Origin],
    count: int,
) -> Units:
    """Finds the units of a network.

    Args:
        program: the network, without operations that its outputs do not need.
        known: what is known of its values.
        rules: of its operations.
        leaves: the leaf that values are made of, by their numbers.
        count: number of leaves, which are the first inputs.
    """
    finder = _Finder(program, known, leaves, count)
    for operation, rule in zip(program.operations, rules, strict=True):
        finder.follow(operation, rule)
    for number in program.outputs:
        finder.fix(finder.units_of(number), "it reaches an output")
    return finder.finished()


class _Finder:
    """Units while a program is gone through."""

    def __init__(
        self, program: Program, known: Sequence[Known], leaves: Mapping[int, Origin], count: int
    ) -> None:
        self.program, self.known, self.leaves = program, known, leaves
        self.units: dict[int, Pattern] = {}
        self.next = FIXED + 1
        self.edges: list[np.ndarray] = []
        self.reasons: list[tuple[np.ndarray, str]] = []
        self.of_leaves: dict[int, Pattern] = {}
        self.of_kernels: dict[tuple[int, int], np.ndarray] = {}
        self.reduced = self._reduced()
        kernels = self._kernels()
        read = {number for operation in program.operations for number in operation.inputs}
        for leaf, number in enumerate(program.inputs[:count]):
            if number in read and leaf not in kernels:
                self._start_leaf(leaf, number)
        for number in program.inputs[count:]:
            self.units[number] = self._uniform(number, FIXED)

    def _kernels(self) -> set[int]:
        """Leaves that are multiplied with something, rather than element by element."""
        return {
            self.leaves[number].leaf
            for operation in self.program.operations
            if operation.name in (CONV, "dot_general")
            for number in operation.inputs
            if number in self.leaves
        }

    def _reduced(self) -> set[tuple[int, int]]:
        """Axes of leaves along which something is computed of a whole leaf."""
        return {
            (origin.leaf, part.axis)
            for operation in self.program.operations
            for number in operation.inputs[:1]
            if operation.name in AXISWISE and (origin := self.leaves.get(number))
            for axis in axes_of(operation, len(origin.view))
            for part in origin.view[axis]
        }

    def _start_leaf(self, leaf: int, number: int) -> None:
        shape = self.program.shapes[number].shape
        size = int(np.prod(shape))
        if size > 1:
            self.units[number] = self.of_leaves[leaf] = self.new(size).reshape(shape)

    def _uniform(self, number: int, unit: int) -> Pattern:
        return uniform(len(self.program.shapes[number].shape), unit, np.int64)

    def new(self, count: int) -> np.ndarray:
        """Units that are not in use yet."""
        self.next += count
        return np.arange(self.next - count, self.next)

    def units_of(self, number: int) -> Pattern:
        """The units of a value, which broadcast against its shape."""
        return self.units[number] if number in self.units else self._uniform(number, NONE)

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Makes units at the same places one."""
        one, other = np.broadcast_arrays(one, other)
        self.fix(np.where(one == FIXED, other, NONE), "it is joined with what always stays")
        self.fix(np.where(other == FIXED, one, NONE), "it is joined with what always stays")
        both = (one > FIXED) & (other > FIXED) & (one != other)
        if both.any():
            self.edges.append(np.unique(np.stack([one[both], other[both]]), axis=1))

    def fix(self, units: np.ndarray, reason: str) -> None:
        """Keeps units whatever happens."""
        units = np.unique(units)
        units = units[units > FIXED]
        if units.size:
            self.reasons.append((units, reason))

    def follow(self, operation: Operation, rule: Rule) -> None:
        """Gives the results of an operation their units."""
        if not any(number in self.units for number in operation.inputs) and not any(
            self.known[number].of_images for number in operation.outputs
        ):
            return
        if rule is ELEMENTWISE:
            self._follow_elements(operation)
        elif rule in _MOVES:
            self._follow_move(operation, rule)
        elif rule is ALONG_AXES:
            self._follow_reduction(operation)
        elif rule is CONTRACTION:
            self._follow_product(operation)
        else:
            self._follow_unknown(operation)

    def _follow_unknown(self, operation: Operation) -> None:
        for number in operation.inputs:
            self.fix(self.units_of(number), f"{operation.name} reads it, which has no rule")
        for number in operation.outputs:
            if self.known[number].of_images:
                self.units[number] = self._uniform(number, FIXED)

    def _follow_elements(self, operation: Operation) -> None:
        found = [
            (self.units_of(number), self.known[number].of_images)
            for number in operation.inputs
            if number in self.units and self.program.shapes[number].shape
        ]
        shape = np.broadcast_shapes(*(units.shape for units, _ in found), *[(1,)][: not found])
        joined = np.zeros(shape, np.int64)
        for place, (units, of_images) in enumerate(found):
            others = found[:place] + found[place + 1 :]
            if self._is_shared(units, of_images, others):
                # One number for several channels: it stays as long as one of them does.
                self.fix(units, f"{operation.name} gives one number of it to several channels")
                continue
            self.join(joined, units)
            joined = np.where(joined == NONE, units, joined)
        for number in operation.outputs:
            self.units[number] = collapsed(
                joined if found else np.asarray(self._uniform(number, NONE))
            )

    def _follow_move(self, operation: Operation, rule: Rule) -> None:
        inputs = [
            self._as_known(number) if place == 0 or rule is JOIN else self._beside(operation, place)
            for place, number in enumerate(operation.inputs)
        ]
        shapes = [self.program.shapes[n] for n in (*operation.inputs, *operation.outputs)]
        if rule is JOIN and self._joins_positions(operation):
            self._join_all(operation)
            return
        alike = [axis for axis, size in enumerate(inputs[0].value.shape) if size == 1]
        for number, moved in zip(
            operation.outputs, rule.known(operation, inputs, shapes), strict=True
        ):
            # Zeros around positions belong to whatever channel they are in.
            is_padded = operation.name == "pad"
            self.units[number] = over(moved.value, alike) if is_padded else moved.value

    def _joins_positions(self, operation: Operation) -> bool:
        """Whether values are put side by side along an axis of positions, or of images."""
        axis = operation.params["dimension"]
        units = [self.units_of(number) for number in operation.inputs]
        sizes = [self._size(number, axis) for number in operation.inputs]
        return all(each.shape[axis] == 1 for each in units) and max(sizes) > 1

    def _join_all(self, operation: Operation) -> None:
        units = [self.units_of(number) for number in operation.inputs]
        joined = np.zeros(np.broadcast_shapes(*(each.shape for each in units)), np.int64)
        for each in units:
            self.join(joined, each)
            joined = np.where(joined == NONE, each, joined)
        self.units[operation.outputs[0]] = joined

    def _as_known(self, number: int) -> Known:
        """The units of a value in the place of its constants, which move as they do."""
        units = self.units_of(number)
        return Known(uniform(units.ndim, CONSTANT, np.uint8), units, of_images=True)

    def _beside(self, operation: Operation, place: int) -> Known:
        """An input that tells where to move, or what to pad with."""
        number = operation.inputs[place]
        if operation.name != "pad":
            return self.known[number]
        fill = FIXED if self.known[number].of_images else NONE
        return Known(np.asarray(CONSTANT, np.uint8), np.asarray(fill), of_images=True)

    def _follow_reduction(self, operation: Operation) -> None:
        """What is reduced together hangs together."""
        axes = axes_of(operation, len(self.program.shapes[operation.inputs[0]].shape))
        for number in operation.inputs:
            units = self.units_of(number)
            varying = [axis for axis in axes if units.shape[axis] > 1]
            first = units
            for axis in varying:
                first = first.take([0], axis=axis)
            if varying and operation.name in REDUCTIONS:
                self.join(units, first)
            elif varying:
                self.fix(units, f"{operation.name} goes along it")
            if operation.name in REDUCTIONS:
                first = first.reshape([n for axis, n in enumerate(first.shape) if axis not in axes])
            else:
                first = units
            for output in operation.outputs:
                self.units[output] = first

    def _follow_product(self, operation: Operation) -> None:
        left, right = operation.inputs
        of_images = [self.known[number].of_images for number in operation.inputs]
        kernel = left if not of_images[0] else right
        origin = self.leaves.get(kernel)
        if all(of_images) or not any(of_images) or origin is None:
            self._follow_unknown(operation)
        elif operation.name == CONV:
            self._follow_conv(operation, origin)
        else:
            self._follow_dense(operation, kernel_first=not of_images[0], origin=origin)

    def _follow_conv(self, operation: Operation, origin: Origin) -> None:
        numbers, params = operation.params["dimension_numbers"], operation.params
        images, kernel = operation.inputs
        read = self._along(images, numbers.lhs_spec[1])
        groups, filters = params["feature_group_count"], self._size(kernel, numbers.rhs_spec[0])
        made = self.new(filters)
        if groups == 1:
            self._cut(origin, numbers.rhs_spec[1], read)
        elif self._size(kernel, numbers.rhs_spec[1]) == 1:
            self.join(np.repeat(read, filters // groups), made)
        else:  # groups go whole
            by_group = [read.reshape(groups, -1), made.reshape(groups, -1)]
            for units in by_group:
                self.join(units, by_group[1][:, :1])
        self._cut(origin, numbers.rhs_spec[0], made)
        self._join_kernel(kernel, numbers.rhs_spec[0], made)
        rank = len(self.program.shapes[images].shape)
        shape = [filters if axis == numbers.out_spec[1] else 1 for axis in range(rank)]
        self.units[operation.outputs[0]] = made.reshape(shape)

    def _follow_dense(self, operation: Operation, *, kernel_first: bool, origin: Origin) -> None:
        (summed, batch) = operation.params["dimension_numbers"]
        sides = [0, 1] if kernel_first else [1, 0]
        of_kernel, of_values = (summed[side] for side in sides)
        kernel, values = (operation.inputs[side] for side in sides)
        if batch[0] or batch[1]:
            self._follow_unknown(operation)
            return
        for kernel_axis, axis in zip(of_kernel, of_values, strict=True):
            self._cut(origin, kernel_axis, self._along(values, axis, others=of_values))
        free = [a for a in range(len(self.program.shapes[kernel].shape)) if a not in of_kernel]
        rank = len(self.program.shapes[operation.outputs[0]].shape)
        start = 0 if kernel_first else rank - len(free)
        outputs = self._uniform(operation.outputs[0], NONE)
        if len(free) == 1:
            made = self.new(self._size(kernel, free[0]))
            self._cut(origin, free[0], made)
            self._join_kernel(kernel, free[0], made)
            outputs = made.reshape([-1 if axis == start else 1 for axis in range(rank)])
        kept = [axis for axis in range(len(self.program.shapes[values].shape))
                if axis not in of_values]  # fmt: skip
        if any(self.units_of(values).shape[axis] > 1 for axis in kept) or len(free) != 1:
            self.fix(self.units_of(values), "a product has it along an axis that stays")
            outputs = self._uniform(operation.outputs[0], FIXED)
        self.units[operation.outputs[0]] = outputs

    def _along(self, number: int, axis: int, others: Sequence[int] = ()) -> np.ndarray:
        """The units along one axis of a value; those that differ along another one are fixed."""
        units = self.units_of(number)
        rest = tuple(each for each in range(units.ndim) if each not in (axis, *others))
        if any(units.shape[each] > 1 for each in rest):
            self.fix(units, "a product has it along an axis that stays")
        beside = tuple(each for each in range(units.ndim) if each != axis)
        first = units
        for each in beside:
            first = first.take([0], axis=each)
        if any(units.shape[each] > 1 for each in beside):
            self.join(units, first)
        return np.broadcast_to(first.ravel(), self._size(number, axis))

    def _size(self, number: int, axis: int) -> int:
        return self.program.shapes[number].shape[axis]

    def _join_kernel(self, kernel: int, axis: int, made: np.ndarray) -> None:
        """A kernel that was multiplied by a parameter for each filter hangs together with it."""
        units = self.units_of(kernel)
        if units.shape[axis] > 1:
            self.join(units, made.reshape([-1 if a == axis else 1 for a in range(units.ndim)]))

    def _cut(self, origin: Origin, axis: int, units: np.ndarray) -> None:
        """Says that units cut a kernel along one of its axes."""
        parts = [part for part in origin.view[axis] if part.size != 1] or origin.view[axis]
        if len(parts) != 1 or parts[0].inner != 1 or origin.stack:
            if parts:
                self.fix(units, "the axis of a kernel is cut or joined before it is used")
            return
        place = (origin.leaf, parts[0].axis)
        if place in self.reduced:
            self.fix(units, "weights are normalised together along it")
        if place in self.of_kernels:
            self.join(self.of_kernels[place], units)
        else:
            self.of_kernels[place] = units

    def _is_shared(
        self, units: Pattern, of_images: bool, others: Sequence[tuple[Pattern, bool]]
    ) -> bool:
        """Whether one element of an operand meets several units of another one."""
        if not (units > FIXED).any():
            return False
        for other, other_of_images in others:
            both = list(zip(units.shape, other.shape, strict=True))
            meets = any(mine == 1 and theirs > 1 for mine, theirs in both)
            is_wider = any(mine > 1 and theirs == 1 for mine, theirs in both)
            # A parameter may have more axes than the channels that it belongs to.
            differs = meets and (other_of_images or not of_images or is_wider)
            if differs and (self._roots()[other] != self._roots()[units]).any():
                return True
        return False

    def _roots(self) -> np.ndarray:
        """For each unit one that stands for all that it hangs together with."""
        edges = np.concatenate([np.empty((2, 0), np.int64), *self.edges], axis=1)
        graph = coo_array((np.ones(edges.shape[1], bool), tuple(edges)), (self.next, self.next))
        return connected_components(graph, directed=False)[1]

    def finished(self) -> Units:
        """The units with those that hang together as one."""
        roots = self._roots()
        reasons = dict.fromkeys(roots[[NONE, FIXED]].tolist(), "it stays")
        for units, reason in reversed(self.reasons):  # the first one counts
            reasons.update((int(root), reason) for root in np.unique(roots[units]))
        axes = [
            LeafAxis(leaf, axis, roots[units]) for (leaf, axis), units in self.of_kernels.items()
        ]
        for leaf, units in self.of_leaves.items():
            found = collapsed(roots[units])
            along = [axis for axis, size in enumerate(found.shape) if size > 1]
            if not along:  # all hangs together: it goes along the only axis there is
                found, along = roots[units], [a for a, size in enumerate(units.shape) if size > 1]
            if len(along) > 1:
                reasons.update(
                    (int(root), "a parameter has it along several axes")
                    for root in np.unique(found)
                )
            else:
                axes.append(LeafAxis(leaf, along[0], found.ravel()))
        return Units(tuple(axes), reasons)
