"""Which operations act on each element by itself, and which of those are linear."""

from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn

from jnnk.network._tracing import CALLS, jaxprs_of

#: Linear in all of their operands together.
_SUMS = frozenset((
    "add", "add_any", "convert_element_type", "copy", "copy_p", "mesh_cast", "name", "neg",
    "optimization_barrier", "pvary", "reduce_precision", "sharding_constraint", "sub",
    "layout_constraint", "stop_gradient",
))  # fmt: skip
#: Linear in each operand alone.
_PRODUCTS = frozenset(("mul", "div"))
_OTHERS = frozenset((
    "abs", "acos", "acosh", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e",
    "bessel_i1e", "cbrt", "ceil", "clamp", "clz", "complex", "conj", "cos", "cosh", "digamma", "eq",
    "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma", "igammac",
    "imag", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max",
    "min", "ne", "nextafter", "not", "or", "polygamma", "population_count", "pow", "real",
    "regularized_incomplete_beta", "rem", "round", "rsqrt", "select_n", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "tan",
    "tanh", "xor", "zeta",
))  # fmt: skip
_ALL = _SUMS | _PRODUCTS | _OTHERS


def is_elementwise(equation: JaxprEqn) -> bool:
    """Whether each element of the outputs comes of the elements at its place in the inputs.

    A function with a derivative of its own counts if all in it does. Inputs without axes count as
    one number for all places.
    """
    name = equation.primitive.name
    if name in CALLS:
        return all(map(_is_all_elementwise, jaxprs_of(equation)))
    return name in _ALL


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
