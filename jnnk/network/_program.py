"""A network as JAX sees it: one list of operations, traced, searched and run again.

`trace` makes the list. Functions called on the way (``jit``, ``remat``, ``custom_jvp``, ...) are
written out in place where they hold a convolution or nothing but plain operations; a function with
a derivative of its own and no convolution in it stays one operation, so that its derivative stays.
A ``scan`` stays one operation too, with the list of its body beside it. Of
``jax.lax.platform_dependent`` the function for any platform is taken.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jnnk.network._internals import evaluate

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
CONV = "conv_general_dilated"


class Operation(NamedTuple):
    """One operation of a program; values are numbered in the order in which they are made.

    Attributes:
        equation: the equation of the jaxpr, with its primitive and parameters. Its variables mean
            nothing here.
        inputs: numbers of the values read, literals included.
        outputs: numbers of the values made.
        body: of a ``scan``, the program of one step, from its constants, carry and slices to its
            new carry and slices; else None.
    """

    equation: JaxprEqn
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    body: "Program | None"

    @property
    def name(self) -> str:
        """The name of the primitive, such as ``"add"``."""
        return self.equation.primitive.name

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters of the primitive."""
        return self.equation.params


class Place(NamedTuple):
    """Where a value is found.

    Attributes:
        value: its number.
        scans: places in ``operations`` of the scans that it is made in, the outermost first: a
            value of each step of each.
    """

    value: int
    scans: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """A function of arrays, as a list of operations.

    Attributes:
        operations: in an order in which they can be run.
        shapes: shape and dtype of every value, by its number.
        inputs: numbers of the inputs.
        constants: numbers of the values that are known, literals among them, and these.
        outputs: numbers of the outputs.
    """

    operations: tuple[Operation, ...]
    shapes: tuple[jax.ShapeDtypeStruct, ...]
    inputs: tuple[int, ...]
    constants: Mapping[int, Any]
    outputs: tuple[int, ...]


def trace(function: Callable[..., Any], *args: Any) -> Program:
    """The program of a function; its inputs are the leaves of the arguments.

    Args:
        function: of pytrees of arrays, to anything.
        *args: arrays, or their ``jax.ShapeDtypeStruct``.
    """
    return _flattened(jax.make_jaxpr(function)(*args))


def trace_tree(function: Callable[..., Any], *args: Any) -> tuple[Program, Structure]:
    """The program of a function, as of `trace`, and the structure of the function's result."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    return _flattened(closed), jax.tree.structure(shapes)


def run(program: Program, inputs: Sequence[Any], wanted: Sequence[Place]) -> list[Array]:
    """Computes values of a program, and nothing that they do not need.

    Args:
        program: of `trace`.
        inputs: a value for each of ``program.inputs``.
        wanted: where the values are.

    Returns:
        The values; one made in a scan has an axis of the steps before its own, for each scan.
    """
    needed = _needed(program, {place.scans[0] if place.scans else place for place in wanted})
    values: dict[int, Any] = dict(program.constants)
    values.update(zip(program.inputs, inputs, strict=True))
    inside: dict[Place, Array] = {}
    for number, operation in enumerate(program.operations):
        if number not in needed:
            continue
        found = [values[each] for each in operation.inputs]
        of_steps = [place for place in wanted if place.scans[:1] == (number,)]
        if of_steps:
            outputs, stacked = _run_scan(operation, found, of_steps)
            inside.update(zip(of_steps, stacked, strict=True))
        else:
            outputs = evaluate(operation.equation, found)
        values.update(zip(operation.outputs, outputs, strict=True))
    return [inside[place] if place.scans else values[place.value] for place in wanted]


def without_unneeded(program: Program) -> Program:
    """The program without operations that its outputs do not need, its values numbered anew."""
    needed = _needed(program, {Place(value) for value in program.outputs})
    operations = [each for place, each in enumerate(program.operations) if place in needed]
    used = {*program.inputs, *program.outputs}
    for operation in operations:
        used.update(operation.inputs, operation.outputs)
    number = {value: place for place, value in enumerate(sorted(used))}

    def renumbered(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(number[value] for value in values)

    return Program(
        operations=tuple(
            operation._replace(
                inputs=renumbered(operation.inputs),
                outputs=renumbered(operation.outputs),
                body=None if operation.body is None else without_unneeded(operation.body),
            )
            for operation in operations
        ),
        shapes=tuple(program.shapes[value] for value in sorted(used)),
        inputs=renumbered(program.inputs),
        constants={
            number[each]: value for each, value in program.constants.items() if each in used
        },
        outputs=renumbered(program.outputs),
    )


def _needed(program: Program, wanted: set[Place | int]) -> set[int]:
    """Places of the operations that values need, or that are wanted themselves."""
    values = {place.value for place in wanted if isinstance(place, Place)}
    needed = {place for place in wanted if not isinstance(place, Place)}
    for number in reversed(range(len(program.operations))):
        operation = program.operations[number]
        if number in needed or values.intersection(operation.outputs):
            needed.add(number)
            values.update(operation.inputs)
    return needed


def _run_scan(
    operation: Operation, inputs: list[Any], wanted: list[Place]
) -> tuple[list[Array], list[Array]]:
    """A scan whose body also tells some of its values."""
    assert operation.body is not None
    body, params = operation.body, operation.params
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    constants, start, slices = (
        inputs[:num_consts],
        inputs[num_consts : num_consts + num_carry],
        inputs[num_consts + num_carry :],
    )
    own = [Place(value) for value in body.outputs]
    told = [Place(place.value, place.scans[1:]) for place in wanted]

    def step(carry: list[Array], slices: list[Array]) -> tuple[list[Array], list[Array]]:
        found = run(body, [*constants, *carry, *slices], [*own, *told])
        return found[:num_carry], found[num_carry:]

    carry, stacked = jax.lax.scan(
        step,
        start,
        slices,
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    outputs = [*carry, *stacked]
    return outputs[: len(own)], outputs[len(own) :]


class _Lists:
    """A program while its operations are being written out."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.shapes: list[jax.ShapeDtypeStruct] = []
        self.constants: dict[int, Any] = {}

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
                body = _flattened(equation.params["jaxpr"]) if _is_scan(equation) else None
                self.operations.append(Operation(equation, tuple(read), tuple(made), body))
            else:
                made = self.write_out(called.jaxpr, [*map(self.constant, called.consts)], read)
            numbers.update(zip(equation.outvars, made, strict=True))
        return [number_of(atom) for atom in jaxpr.outvars]


def _flattened(closed: ClosedJaxpr) -> Program:
    lists = _Lists()
    constants = [lists.constant(value) for value in closed.consts]
    inputs = [lists.new(variable.aval) for variable in closed.jaxpr.invars]
    outputs = lists.write_out(closed.jaxpr, constants, inputs)
    return Program(
        tuple(lists.operations),
        tuple(lists.shapes),
        tuple(inputs),
        lists.constants,
        tuple(outputs),
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
    closed = found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())
    if name in CUSTOM and not holds_conv(closed.jaxpr):
        return None, read
    return closed, read


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
