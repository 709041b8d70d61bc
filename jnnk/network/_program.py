"""A network as JAX sees it: one list of operations, searched and run again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.extend.core import JaxprEqn

from jnnk.network._internals import evaluate

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

    @property
    def scanned(self) -> tuple[int, int]:
        """Of a scan, how many of its inputs are constants, and how many after them are carried."""
        if "num_consts" in self.params:
            return self.params["num_consts"], self.params["num_carry"]
        # From JAX 0.12 on, a tree of the constants, of what is carried and of the slices.
        constants, carried, _ = self.params["ft_in"].unpack()
        return len(constants), len(carried)


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
        keeps_derivatives: whether no function with a derivative of its own was written out.
    """

    operations: tuple[Operation, ...]
    shapes: tuple[jax.ShapeDtypeStruct, ...]
    inputs: tuple[int, ...]
    constants: Mapping[int, Any]
    outputs: tuple[int, ...]
    keeps_derivatives: bool = True


def run(program: Program, inputs: Sequence[Any], wanted: Sequence[Place]) -> list[Array]:
    """Computes values of a program, and nothing that they do not need.

    Args:
        program: as traced.
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
        keeps_derivatives=program.keeps_derivatives,
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
    num_consts, num_carry = operation.scanned
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
