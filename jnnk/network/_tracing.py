"""Tracing a function to a `Program`.

Functions called on the way (``jit``, ``remat``, ``custom_jvp``, ...) are written out in place, but
a function with a derivative of its own and no convolution in it stays one operation, so that its
derivative stays. A ``scan`` stays one
operation too, with the program of its body beside it. Of ``jax.lax.platform_dependent`` the
function for any platform is taken.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jnnk.network._program import CONV, Operation, Program

#: Operations that call a function once, and the parameter that holds its jaxpr.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
#: Those of them with a derivative of their own.
CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
#: Of a pytree, as ``jax.tree.structure`` gives it.
Structure = Any


def trace(function: Callable[..., Any], *args: Any) -> Program:
    """The program of a function; its inputs are the leaves of the arguments.

    Args:
        function: of pytrees of arrays, to anything.
        *args: arrays, or their ``jax.ShapeDtypeStruct``.
    """
    return written_out(jax.make_jaxpr(function)(*args))


def trace_tree(function: Callable[..., Any], *args: Any) -> tuple[Program, Structure]:
    """The program of a function, as of `trace`, and the structure of the function's result."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    return written_out(jaxpr), jax.tree.structure(shapes)


class _Lists:
    """A program while its operations are being written out."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.shapes: list[jax.ShapeDtypeStruct] = []
        self.constants: dict[int, Any] = {}
        self.keeps_derivatives = True

    def new(self, like: Any) -> int:
        self.shapes.append(jax.ShapeDtypeStruct(like.shape, like.dtype))
        return len(self.shapes) - 1

    def constant(self, value: Any) -> int:
        number = self.new(value if hasattr(value, "shape") else jnp.asarray(value))
        self.constants[number] = value
        return number

    def write_out(self, jaxpr: Jaxpr, constants: Sequence[int], inputs: Sequence[int]) -> list[int]:
        """Appends the operations of a jaxpr; the numbers of its outputs."""
        numbers: dict[Any, int] = dict(zip(jaxpr.constvars, constants, strict=True))
        numbers.update(zip(jaxpr.invars, inputs, strict=True))

        def number_of(atom: Any) -> int:
            if not isinstance(atom, Literal):
                return numbers[atom]
            number = self.new(atom.aval)
            self.constants[number] = atom.val
            return number

        for equation in jaxpr.eqns:
            read = [number_of(atom) for atom in equation.invars]
            called, read = _called(equation, read)
            if called is None:
                made = [self.new(variable.aval) for variable in equation.outvars]
                body = written_out(equation.params["jaxpr"]) if _is_scan(equation) else None
                self.keeps_derivatives &= body is None or body.keeps_derivatives
                self.operations.append(Operation(equation, tuple(read), tuple(made), body))
            else:
                if equation.primitive.name in CUSTOM:
                    self.keeps_derivatives = False
                made = self.write_out(called.jaxpr, [*map(self.constant, called.consts)], read)
            numbers.update(zip(equation.outvars, made, strict=True))
        return [number_of(atom) for atom in jaxpr.outvars]


def written_out(jaxpr: ClosedJaxpr) -> Program:
    """The program of a jaxpr."""
    lists = _Lists()
    constants = [lists.constant(value) for value in jaxpr.consts]
    inputs = [lists.new(variable.aval) for variable in jaxpr.jaxpr.invars]
    outputs = lists.write_out(jaxpr.jaxpr, constants, inputs)
    return Program(
        tuple(lists.operations),
        tuple(lists.shapes),
        tuple(inputs),
        lists.constants,
        tuple(outputs),
        lists.keeps_derivatives,
    )


def _called(equation: JaxprEqn, read: list[int]) -> tuple[ClosedJaxpr | None, list[int]]:
    """The function that an equation calls, if it is to be written out, and what it is given."""
    name = equation.primitive.name
    if platforms := equation.params.get("branches_platforms"):
        # Of functions for several platforms, the one for any.
        default = platforms.index(None) if None in platforms else -1
        return equation.params["branches"][default], read[1:]
    if name == "reshape" and equation.params.get("dimensions") is not None:
        return _in_two_steps(equation), read
    found = equation.params.get(CALLS[name]) if name in CALLS else None
    if found is None:
        return None, read
    if name in CUSTOM and not holds_conv(closed(found).jaxpr):
        return None, read
    return closed(found), read


def closed(jaxpr: Jaxpr | ClosedJaxpr) -> ClosedJaxpr:
    """The jaxpr with its constants, if it has none of its own."""
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def _in_two_steps(equation: JaxprEqn) -> ClosedJaxpr:
    """A reshape that takes axes in another order, as a transpose and a reshape."""
    params, aval = equation.params, cast(Any, equation.invars[0].aval)

    def reshape(value: Array) -> Array:
        moved = jax.lax.transpose(value, params["dimensions"])
        return jax.lax.reshape(moved, params["new_sizes"])

    return jax.make_jaxpr(reshape)(jax.ShapeDtypeStruct(aval.shape, aval.dtype))


def _is_scan(equation: JaxprEqn) -> bool:
    return equation.primitive.name == "scan"


def holds_conv(jaxpr: Jaxpr) -> bool:
    """Whether a jaxpr has a convolution, or calls what has one."""
    return any(
        equation.primitive.name == CONV or any(map(holds_conv, jaxprs_of(equation)))
        for equation in jaxpr.eqns
    )


def jaxprs_of(equation: JaxprEqn) -> Iterator[Jaxpr]:
    """The jaxprs among the parameters of an equation."""
    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
        if _is_jaxpr(value):
            yield getattr(value, "jaxpr", value)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, Jaxpr | ClosedJaxpr)
