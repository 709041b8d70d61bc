"""Operations that treat every element alike, as functions of arrays of any shape.

An activation function with a derivative of its own, such as ReLU, is such an operation too: its
derivative is then read from the jaxpr and treated alike.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jnnk.network._internals import evaluate
from jnnk.network._program import Operation, Program
from jnnk.network._tracing import CALLS, CUSTOM, closed, trace, written_out

#: Primitives of one value for each element.
# fmt: off
POINTWISE = frozenset((
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "bessel_i0e", "bessel_i1e", "cbrt", "ceil", "clamp", "clz", "complex", "conj",
    "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "erf",
    "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma", "igammac", "imag",
    "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "name", "ne", "neg", "nextafter", "not", "or", "polygamma", "population_count", "pow",
    "real", "reduce_precision", "regularized_incomplete_beta", "rem", "round", "rsqrt", "select_n",
    "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt",
    "square", "stop_gradient", "sub", "tan", "tanh", "xor", "zeta",
))
# fmt: on

Function = Callable[..., list[jax.Array]]


def pointwise(operation: Operation) -> Function | None:
    """The operation as a function of arrays of one shape, and of scalars; None if it is none."""
    if operation.name in POINTWISE:
        return lambda *inputs: _aligned(operation, inputs)
    if operation.name in CUSTOM:
        return _custom(operation)
    return None


def plain(operation: Operation) -> Function:
    """The same without a derivative of its own, for an operation that is one."""
    if operation.name in POINTWISE:
        return lambda *inputs: _aligned(operation, inputs)
    values = _run_anywhere(written_out(closed(operation.params[CALLS[operation.name]])))
    assert values is not None
    return values


def _aligned(operation: Operation, inputs: Sequence[Any]) -> list[jax.Array]:
    """Evaluates a primitive; those with several arrays of one type want one shape."""
    if operation.name in ("select_n", "clamp"):
        shape = jnp.broadcast_shapes(*map(jnp.shape, inputs))
        inputs = [each if jnp.ndim(each) == 0 else jnp.broadcast_to(each, shape) for each in inputs]
        if operation.name == "select_n":
            predicate, *cases = inputs
            inputs = [predicate, *(jnp.broadcast_to(case, shape) for case in cases)]
    return evaluate(operation.equation, inputs)


def _custom(operation: Operation) -> Function | None:
    """A function with a derivative of its own, if all in it is pointwise."""
    program = written_out(closed(operation.params[CALLS[operation.name]]))
    values = _run_anywhere(program) if _has_one_shape(program) else None
    if values is None:
        return None
    # Read where it is asked for: the derivative may call the function itself.
    if operation.name == "custom_jvp_call":
        return _with_jvp(values, lambda *inputs: _found(_jvp(operation))(*inputs))
    return _with_vjp(values, lambda *inputs: _found(_vjp(operation))(*inputs))


def has_pointwise_derivative(operation: Operation) -> bool:
    """Whether the derivative of a pointwise operation is pointwise too."""
    if operation.name not in CUSTOM:
        return True
    derivative = _jvp if operation.name == "custom_jvp_call" else _vjp
    return derivative(operation) is not None


def _found(derivative: Function | None) -> Function:
    assert derivative is not None  # by the choice of the rule
    return derivative


def _has_one_shape(program: Program) -> bool:
    """Whether all inputs and outputs have one shape, but for scalars among the inputs."""
    shapes = {program.shapes[number].shape for number in program.inputs} - {()}
    return len(shapes | {program.shapes[number].shape for number in program.outputs}) == 1


def _jvp(operation: Operation) -> Function | None:
    """The derivative along tangents, of the inputs and their tangents; None if not pointwise."""
    shapes = _shapes_of(operation)

    def derivative(primals: Any, tangents: Any) -> Any:
        return jax.jvp(lambda *inputs: evaluate(operation.equation, inputs), primals, tangents)

    return _run_anywhere(trace(derivative, shapes, shapes))


def _vjp(operation: Operation) -> Function | None:
    """The derivative of the inputs, of these and of cotangents; None if not pointwise."""

    def derivative(primals: Any, cotangents: Any) -> Any:
        _, back = jax.vjp(lambda *inputs: evaluate(operation.equation, inputs), *primals)
        return back(cotangents)

    outputs = [_like(variable.aval) for variable in operation.equation.outvars]
    program = trace(derivative, _shapes_of(operation), outputs)
    # The cotangent of a scalar is a sum over all elements.
    return _run_anywhere(program) if _has_one_shape(program) else None


def _with_jvp(values: Function, derivative: Function) -> Function:
    function = jax.custom_jvp(lambda *inputs: values(*inputs))

    @function.defjvp
    def _(primals, tangents):
        outputs = derivative(*primals, *tangents)
        half = len(outputs) // 2
        return outputs[:half], outputs[half:]

    return function


def _with_vjp(values: Function, derivative: Function) -> Function:
    function = jax.custom_vjp(lambda *inputs: values(*inputs))
    function.defvjp(
        lambda *inputs: (values(*inputs), inputs),
        lambda inputs, cotangents: tuple(derivative(*inputs, *cotangents)),
    )
    return function


def _shapes_of(operation: Operation) -> tuple[jax.ShapeDtypeStruct, ...]:
    return tuple(_like(variable.aval) for variable in operation.equation.invars)


def _like(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=getattr(aval, "weak_type", False))


def _run_anywhere(program: Program) -> Function | None:
    """Runs a program of pointwise operations at other shapes than it was traced at."""
    steps: list[tuple[Operation, Function]] = []
    scalars = {number for number in program.constants if not program.shapes[number].shape}
    for operation in program.operations:
        spreads = operation.name == "broadcast_in_dim" and operation.inputs[0] in scalars
        function = (lambda value: [value]) if spreads else pointwise(operation)
        if function is None:
            return None
        if spreads or all(number in scalars for number in operation.inputs):
            scalars.update(operation.outputs)
        steps.append((operation, function))
    if any(program.shapes[number].shape for number in program.constants):
        return None

    def run(*inputs: Any) -> list[jax.Array]:
        shape = jnp.broadcast_shapes(*map(jnp.shape, inputs))
        values = dict(program.constants)
        values.update(zip(program.inputs, inputs, strict=True))
        for operation, function in steps:
            outputs = function(*(values[number] for number in operation.inputs))
            values.update(zip(operation.outputs, outputs, strict=True))
        return [
            jnp.broadcast_to(jnp.asarray(values[n], program.shapes[n].dtype), shape)
            for n in program.outputs
        ]

    return run
