"""The units of a network's values while its operations are gone through."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jnnk.network._axiswise import AXISWISE, axes_of
from jnnk.network._kernels import Origin, is_whole
from jnnk.network._known import Known
from jnnk.network._patterns import Pattern, collapsed, uniform
from jnnk.network._program import CONV, Program

#: The unit of elements that are the same whatever is removed, such as padding.
NONE = 0
#: The unit of what always stays: the images, and whatever is coupled to them.
FIXED = 1


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


class Finder:
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
        self.kernels_behind = self._kernels_behind(kernels)
        self.used_otherwise: set[int] = set()
        read = {number for operation in program.operations for number in operation.inputs}
        for leaf, number in enumerate(program.inputs[:count]):
            if number in read and leaf not in kernels:
                self._start_leaf(leaf, number)
        for number in program.inputs[count:]:
            self.units[number] = self.uniform(number, FIXED)

    def _kernels(self) -> set[int]:
        """Leaves that are multiplied with something, rather than element by element."""
        return {
            self.leaves[number].leaf
            for operation in self.program.operations
            if operation.name in (CONV, "dot_general")
            for number in operation.inputs
            if number in self.leaves
        }

    def _kernels_behind(self, kernels: set[int]) -> dict[int, frozenset[int]]:
        """Of each value that is computed from weights alone, the kernels among them."""
        found = {self.program.inputs[leaf]: frozenset([leaf]) for leaf in kernels}
        for operation in self.program.operations:
            behind = frozenset().union(*(found.get(each, ()) for each in operation.inputs))
            if behind:
                of_weights = (n for n in operation.outputs if not self.known[n].of_images)
                found.update(dict.fromkeys(of_weights, behind))
        return found

    def use_otherwise(self, numbers: Sequence[int], *, but: int | None = None) -> None:
        """Says that values meet the images otherwise than as kernels of a product.

        Args:
            numbers: of the values.
            but: the leaf that they are the kernel of.
        """
        for number in numbers:
            self.used_otherwise |= self.kernels_behind.get(number, frozenset()) - {but}

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

    def uniform(self, number: int, unit: int) -> Pattern:
        """The units of a value all of whose elements are of one."""
        return uniform(len(self.program.shapes[number].shape), unit, np.int64)

    def new(self, count: int) -> np.ndarray:
        """Units that are not in use yet."""
        self.next += count
        return np.arange(self.next - count, self.next)

    def units_of(self, number: int) -> Pattern:
        """The units of a value, which broadcast against its shape."""
        return self.units[number] if number in self.units else self.uniform(number, NONE)

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

    def along(self, number: int, axis: int, others: Sequence[int] = ()) -> np.ndarray:
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
        return np.broadcast_to(first.ravel(), self.size(number, axis))

    def size(self, number: int, axis: int) -> int:
        """The size of a value along an axis."""
        return self.program.shapes[number].shape[axis]

    def join_kernel(self, kernel: int, axis: int, made: np.ndarray) -> None:
        """A kernel that was multiplied by a parameter for each filter is coupled to it."""
        units = self.units_of(kernel)
        if units.shape[axis] > 1:
            self.join(units, made.reshape([-1 if a == axis else 1 for a in range(units.ndim)]))

    def cut(self, origin: Origin, axis: int, units: np.ndarray) -> None:
        """Says that units cut a kernel along one of its axes."""
        parts = [part for part in origin.view[axis] if part.size != 1] or origin.view[axis]
        if len(parts) != 1 or not is_whole(parts[0]) or origin.stack:
            if parts:
                self.fix(units, "an axis of a kernel is cut, joined or reversed before it is used")
            return
        place = (origin.leaf, parts[0].axis)
        if place in self.reduced:
            self.fix(units, "weights are normalised together along it")
        if place in self.of_kernels:
            self.join(self.of_kernels[place], units)
        else:
            self.of_kernels[place] = units

    def is_shared(
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
        """For each unit one that stands for all that it is coupled to."""
        edges = np.concatenate([np.empty((2, 0), np.int64), *self.edges], axis=1)
        graph = coo_array((np.ones(edges.shape[1], bool), tuple(edges)), (self.next, self.next))
        return connected_components(graph, directed=False)[1]

    def finished(self) -> Units:
        """The units, coupled ones as one."""
        for (leaf, _), units in self.of_kernels.items():
            if leaf in self.used_otherwise:
                self.fix(units, "its weights are not used as a kernel alone")
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
            if not along:  # all are coupled: they go along the only axis there is
                found, along = roots[units], [a for a, size in enumerate(units.shape) if size > 1]
            if len(along) > 1:
                reasons.update(
                    (int(root), "a parameter has it along several axes")
                    for root in np.unique(found)
                )
            else:
                axes.append(LeafAxis(leaf, along[0], found.ravel()))
        return Units(tuple(axes), reasons)
