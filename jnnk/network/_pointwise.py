"""Operations that treat every element alike, as functions of arrays of any shape.

An activation function with a derivative of its own, such as ReLU, is such an operation too: its
derivative is then read from the jaxpr and treated alike.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from jnnk.network._internals import evaluate
from jnnk.network._program import Operation, Program
from jnnk.network._tracing import CALLS, CUSTOM, trace, written_out

#: Primitives of one value for each element.
# fmt: off
POINTWISE = frozenset((
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "cbrt", "ceil", "clamp", "clz", "convert_element_type", "copy", "copy_p", "cos", "cosh",
    "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt",
    "igamma", "igammac", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic",
    "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not", "or", "polygamma",
    "population_count", "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n",
    "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt",
    "square", "stop_gradient", "sub", "tan", "tanh", "xor",
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
    found = operation.params[CALLS[operation.name]]
    found = found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())
    values = _run_anywhere(written_out(found))
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
    """A function with a derivative of its own, all of whose operations are pointwise."""
    found = operation.params[CALLS[operation.name]]
    found = found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())
    avals = [variable.aval for variable in operation.equation.invars]
    program = written_out(found)
    values = _run_anywhere(program)
    if values is None:
        return None

    def whole(*inputs: Any) -> list[jax.Array]:
        return evaluate(operation.equation, inputs)

    shapes = [_like(aval) for aval in avals]
    if operation.name == "custom_jvp_call":
        function = jax.custom_jvp(lambda *inputs: values(*inputs))

        @function.defjvp
        def _(primals, tangents):
            derivative = _run_anywhere(
                trace(lambda p, t: jax.jvp(whole, p, t), tuple(shapes), tuple(shapes))
            )
            assert derivative is not None
            outputs = derivative(*primals, *tangents)
            half = len(outputs) // 2
            return outputs[:half], outputs[half:]

        return function
    function = jax.custom_vjp(lambda *inputs: values(*inputs))

    def backward(inputs, cotangents):
        derivative = _run_anywhere(
            trace(lambda p, t: jax.vjp(whole, *p)[1](t), tuple(shapes), list(program_outputs))
        )
        assert derivative is not None
        return tuple(derivative(*inputs, *cotangents))

    program_outputs = [program.shapes[number] for number in program.outputs]
    function.defvjp(lambda *inputs: (values(*inputs), inputs), backward)
    return function


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
