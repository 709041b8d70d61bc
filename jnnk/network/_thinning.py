"""Networks without the channels that masks removed, whatever their architecture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jnnk._core.errors import InputError
from jnnk.network._known import MISSING, Known, Part, is_of_numbers, live
from jnnk.network._leaves import (
    ThinLeaf,
    is_broadcastable,
    known_of_leaf,
    matching,
    paths_of,
    rectangle,
)
from jnnk.network._partial import Analysis, analyse, compute
from jnnk.network._patterns import everything, sizes_of
from jnnk.network._placing import taken
from jnnk.network._program import Program
from jnnk.network._retracing import holds_for
from jnnk.network._traced import Traced, seeds_of, shape_of, traced

PyTree = Any


@dataclass(frozen=True, eq=False)
class Thinning:
    """What masks left of a network's variables, and of every function of them.

    Attributes:
        leaves: what is left of each leaf of the variables, in the order of `jax.tree.leaves`.
    """

    leaves: tuple[ThinLeaf, ...]

    def variables(self, tree: PyTree) -> PyTree:
        """Slims a tree shaped like the variables, or a part of one, or one that holds such trees.

        Args:
            tree: such as the variables, their gradients, or the state of an optimiser; of arrays or
                their `jax.ShapeDtypeStruct`. Masks may be such that broadcast to the variables.

        Returns:
            The same tree with smaller arrays, zero where the masks removed weights. What stands
            beside no leaf of the variables, such as a counter, is left as it is.

        Raises:
            InputError: the tree is that of the variables with other shapes, or a leaf may stand
                beside several.
        """
        paths, arrays = paths_of(tree)
        shapes = [tuple(jnp.shape(array)) for array in arrays]
        found = matching(paths, shapes, self.leaves)
        small = []
        for path, array, shape, number in zip(paths, arrays, shapes, found, strict=True):
            if number is None:
                small.append(array)
                continue
            leaf = self.leaves[number]
            if is_broadcastable(shape, leaf.shape) and shape != leaf.shape:
                array = jnp.broadcast_to(array, leaf.shape)
            elif shape != leaf.shape:
                raise InputError(
                    f"tree: expected shape {leaf.shape} at {''.join(path)}, got {shape}"
                )
            small.append(_slimmed(array, leaf))
        return jax.tree.unflatten(jax.tree.structure(tree), small)

    def function(self, fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Slims a function of the variables: one of the small variables, with the same results.

        Results that stand beside variables, such as updated statistics, are slim like them. The
        removed weights are treated as the masks left them. A constant that the thinned network did
        not read, because it was zero there, is not read by this function either.

        Args:
            fn: ``fn(variables, *args, **kwargs)``, of and to pytrees of arrays, such as the network
                in training mode or with another head.

        Returns:
            ``small(variables_small, *args, **kwargs)``. It traces ``fn`` at each call, so that it
            belongs inside of `jax.jit`; what ``jax.checkpoint`` would compute again is kept, and a
            derivative of its own around a convolution is replaced by that of what it computes. It
            raises an `InputError` for variables that are not those of this thinning, or if ``fn``
            reads what was removed.
        """
        analyses: list[tuple[Program, Analysis]] = []

        def small(variables: PyTree, *args: Any, **kwargs: Any) -> PyTree:
            return _run_small(self.leaves, fn, variables, args, kwargs, analyses)

        return small


def _slimmed(array: Any, leaf: ThinLeaf) -> Any:
    """What a thinning keeps of an array that stands beside a leaf, or of its shape and dtype."""
    if isinstance(array, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(sizes_of(leaf.kept, leaf.shape), array.dtype)
    if not isinstance(array, Tracer) and is_of_numbers(jnp.result_type(array)):
        array = np.asarray(array)
        array = np.where(leaf.masked, np.zeros((), array.dtype), array)
        return jnp.asarray(rectangle(array, leaf.kept))
    if leaf.masked.any():
        array = jnp.where(leaf.masked, jnp.zeros((), array.dtype), array)
    for axis, kept in enumerate(leaf.kept):
        if kept is not None:
            array = taken(array, kept, axis)
    return array


def _run_small(
    leaves: Sequence[ThinLeaf],
    fn: Callable[..., PyTree],
    variables: PyTree,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    analyses: list[tuple[Program, Analysis]],
) -> PyTree:
    """Runs what is left of ``fn(variables, *args, **kwargs)``; keeps the analyses that it makes."""
    paths, arrays = paths_of(variables)
    _check_variables(leaves, paths, arrays)
    whole = [
        jax.ShapeDtypeStruct(leaf.shape, like.dtype, weak_type=like.weak_type)
        for leaf, like in zip(leaves, map(shape_of, arrays), strict=True)
    ]
    full = jax.tree.unflatten(jax.tree.structure(variables), whole)
    found = traced(fn, full, args, kwargs, leaves)
    analysis = _analysis_of(found, leaves, analyses)
    program = found.program
    known = [analysis.known[number] for number in program.inputs]
    others = jax.tree.leaves((args, kwargs))
    inputs = [
        *map(_part_of_leaf, leaves, arrays, known[: len(leaves)]),
        *map(_whole_part, others, known[len(leaves) :]),
    ]
    wanted = [
        (number, everything(len(program.shapes[number].shape)) if n is None else leaves[n].kept)
        for number, n in zip(program.outputs, found.beside, strict=True)
    ]
    results = [
        arrays[n] if n is not None and leaves[n].unread else result
        for n, result in zip(found.beside, compute(program, analysis, inputs, wanted), strict=True)
    ]
    return jax.tree.unflatten(found.treedef, results)


def _analysis_of(
    found: Traced, leaves: Sequence[ThinLeaf], analyses: list[tuple[Program, Analysis]]
) -> Analysis:
    """The analysis of a traced function, or an earlier one that holds for it."""
    for program, analysis in analyses:
        if holds_for(program, analysis, found.program):
            return analysis
    analysis = analysed(found, leaves)
    _check_nothing_missing(found, analysis, leaves)
    if not any(isinstance(value, Tracer) for value in found.program.constants.values()):
        analyses.append((found.program, analysis))
    return analysis


def analysed(found: Traced, leaves: Sequence[ThinLeaf]) -> Analysis:
    """The analysis of a traced function, with leaves thinned."""
    shapes = [found.program.shapes[number] for number in found.program.inputs]
    known = [
        *(known_of_leaf(leaf, shape.dtype) for leaf, shape in zip(leaves, shapes, strict=False)),
        *(live(len(shape.shape), shape.dtype) for shape in shapes[len(leaves) :]),
    ]
    return analyse(found.program, known, seeds_of(found, leaves))


def _part_of_leaf(leaf: ThinLeaf, array: Any, known: Known) -> Part:
    array = jnp.asarray(array)
    if leaf.unread:
        return Part(leaf.shape, array.dtype, known, None, None)
    return Part(leaf.shape, array.dtype, known, leaf.kept, array)


def _whole_part(value: Any, known: Known) -> Part:
    value = jnp.asarray(value)
    return Part(value.shape, value.dtype, known, everything(value.ndim), value)


def _check_variables(
    leaves: Sequence[ThinLeaf], paths: Sequence[Any], arrays: Sequence[Any]
) -> None:
    if list(paths) != [leaf.path for leaf in leaves]:
        expected = {"".join(leaf.path) for leaf in leaves} ^ {"".join(path) for path in paths}
        raise InputError(
            "variables: expected the leaves that were thinned; these are missing or superfluous: "
            + ", ".join(sorted(expected)[:4])
        )
    for leaf, array in zip(leaves, arrays, strict=True):
        expected = sizes_of(leaf.kept, leaf.shape)
        if tuple(jnp.shape(array)) != expected:
            raise InputError(
                f"variables: expected the thinned shape {expected} at {''.join(leaf.path)}, got "
                f"{jnp.shape(array)}"
            )


def _check_nothing_missing(found: Traced, analysis: Analysis, leaves: Sequence[ThinLeaf]) -> None:
    outputs = [(analysis.needs[n], analysis.known[n]) for n in found.program.outputs]
    if not any(need and (need.needed & (known.kind == MISSING)).any() for need, known in outputs):
        return
    read = [
        "".join(leaf.path)
        for leaf, number in zip(leaves, found.program.inputs, strict=False)
        if (need := analysis.needs[number])
        and (need.needed & (analysis.known[number].kind == MISSING)).any()
    ]
    raise InputError(
        "fn: expected a function of what the thinning kept, got one that reads removed weights of "
        + ", ".join(read[:6])
        + (", ..." if len(read) > 6 else "")
    )
