"""A function of variables, traced, with what its results stand beside."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jnnk.network._known import Need, merged
from jnnk.network._leaves import Path, ThinLeaf, matching, paths_of
from jnnk.network._patterns import pattern_of, uniform
from jnnk.network._program import Program
from jnnk.network._shuffles import with_shuffles
from jnnk.network._tracing import trace


class Traced(NamedTuple):
    """A function of variables as a program.

    Attributes:
        program: its first inputs are the leaves of the variables.
        treedef: of its results.
        beside: for each result the leaf of the variables that it stands beside, or None.
    """

    program: Program
    treedef: Any
    beside: list[int | None]


def traced(
    fn: Callable[..., Any],
    variables: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    leaves: Sequence[ThinLeaf],
) -> Traced:
    """Traces ``fn(variables, *args, **kwargs)``.

    Args:
        fn: the function.
        variables: shapes and dtypes of the whole variables.
        args: arrays, or their shapes and dtypes.
        kwargs: the same.
        leaves: what is left of the leaves of the variables.
    """
    seen: list[Any] = []

    def flat(variables: Any, args: Any, kwargs: Any) -> list[Any]:
        seen.append(fn(variables, *args, **kwargs))
        return jax.tree.leaves(seen[-1])

    args, kwargs = jax.tree.map(shape_of, (tuple(args), dict(kwargs)))
    program = with_shuffles(trace(flat, variables, args, kwargs))
    paths, results = paths_of(seen[-1])
    shapes = [tuple(jnp.shape(result)) for result in results]
    beside = matching(paths, shapes, leaves)
    is_again = _are_there_again(leaves, paths)
    fits = [
        n is None or (shape == leaves[n].shape and (len(leaves[n].path) > 1 or is_again))
        for n, shape in zip(beside, shapes, strict=True)
    ]
    beside = [number if fit else None for number, fit in zip(beside, fits, strict=True)]
    return Traced(program, jax.tree.structure(seen[-1]), beside)


def _are_there_again(leaves: Sequence[ThinLeaf], paths: Sequence[Path]) -> bool:
    """Whether all variables of one key are among the results: one of them alone says little.

    Nor do numbers of a list: ``[w1, w2]`` may give ``[features1, features2]``.
    """
    named = {leaf.path for leaf in leaves if leaf.path and not leaf.path[0][1:-1].isdigit()}
    return len(leaves) == len(named) > 1 and named <= {path[-1:] for path in paths}


def shape_of(value: Any) -> Any:
    """Shape and dtype of an array as JAX takes it."""
    if isinstance(value, jax.ShapeDtypeStruct):
        return value
    array = jnp.asarray(value)
    weak = getattr(array, "weak_type", False)  # random keys have none
    return jax.ShapeDtypeStruct(array.shape, array.dtype, weak_type=weak)


def seeds_of(found: Traced, leaves: Sequence[ThinLeaf]) -> dict[int, Need]:
    """What is needed of the results: all, or what is kept of the leaf that they stand beside."""
    seeds: dict[int, Need] = {}
    for number, beside in zip(found.program.outputs, found.beside, strict=True):
        pattern = uniform(len(found.program.shapes[number].shape), True, bool)
        if beside is not None:
            leaf = leaves[beside]
            pattern = pattern_of(None if leaf.unread else leaf.kept, leaf.shape)
        need = merged(seeds.get(number), Need(pattern, pattern))
        assert need is not None
        seeds[number] = need
    return seeds


def read_inputs(program: Program) -> set[int]:
    """Numbers of the inputs that results are computed from."""
    reached = set(program.outputs)
    for operation in reversed(program.operations):
        if reached.intersection(operation.outputs):
            reached.update(operation.inputs)
    return reached & set(program.inputs)
