"""Which operations act on each element by itself, and which of those are linear."""

from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn

from jnnk.network._pointwise import POINTWISE
from jnnk.network._tracing import CALLS, jaxprs_of

#: They leave each element as it is and tell something of the whole value.
_MARKS = frozenset((
    "layout_constraint", "mesh_cast", "optimization_barrier", "pvary", "sharding_constraint",
))  # fmt: skip
#: Linear in all of their operands together.
_SUMS = _MARKS | {
    "add", "add_any", "convert_element_type", "copy", "copy_p", "name", "neg", "reduce_precision",
    "stop_gradient", "sub",
}  # fmt: skip


def is_elementwise(equation: JaxprEqn) -> bool:
    """Whether each element of the outputs comes of the elements at its place in the inputs.

    A function with a derivative of its own counts if all in it does. Inputs without axes count as
    one number for all places.
    """
    name = equation.primitive.name
    if name in CALLS:
        return all(map(_is_all_elementwise, jaxprs_of(equation)))
    return name in POINTWISE or name in _MARKS


def _is_all_elementwise(jaxpr: Jaxpr) -> bool:
    # A constant is spread over the places, in a function such as `jax.nn.relu6`.
    shapes = {_shape(atom) for atom in (*jaxpr.invars, *jaxpr.outvars)} - {()}
    return len(shapes) <= 1 and all(
        is_elementwise(equation)
        or (equation.primitive.name == "broadcast_in_dim" and not _shape(equation.invars[0]))
        for equation in jaxpr.eqns
    )


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


def is_linear(name: str, is_variable: list[bool]) -> bool:
    """Whether an elementwise operation is linear in some of its inputs, the others held.

    Args:
        name: of the primitive.
        is_variable: of each input, whether it is one of those.
    """
    if name in _SUMS:
        return True
    if name == "mul":
        return sum(is_variable) < 2
    if name == "div":
        return not is_variable[1]
    if name == "select_n":
        return not is_variable[0] and sum(is_variable) < 2
    return False
