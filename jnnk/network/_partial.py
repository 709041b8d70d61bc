"""Partial evaluation of a program by element: what is known, what is needed, and the rest, smaller.

`find_known` goes through the program forwards, `find_needs` backwards; `compute` runs what is left
of it on elements that are live and needed, with constants where they are read.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jnnk.network._known import LIVE, Known, Need, Part, Rule, merged, of_constant
from jnnk.network._patterns import Layout, layout_of, pattern_of
from jnnk.network._placing import placed
from jnnk.network._program import Operation, Program
from jnnk.network._rules import rule_of


class Analysis(NamedTuple):
    """What is known of a program and needed of it; lists have an entry for each value.

    Attributes:
        known: what is known of the values.
        needs: what is needed of them; None where nothing is.
        layouts: the elements that are computed; None where none are.
        rules: the rule of each operation.
        plans: what each rule has decided of its operation.
    """

    known: Sequence[Known]
    needs: Sequence[Need | None]
    layouts: Sequence[Layout | None]
    rules: Sequence[Rule]
    plans: Sequence[Any]


def analyse(program: Program, inputs: Sequence[Known], seeds: Mapping[int, Need]) -> Analysis:
    """Finds what is known and needed.

    Args:
        program: the program.
        inputs: what is known of its inputs.
        seeds: what is needed of values, by number.
    """
    known, rules = find_known(program, inputs)
    needs, layouts = find_needs(program, known, rules, seeds)
    return Analysis(known, needs, layouts, rules, [*_plans(program, known, layouts, rules)])


def _plans(
    program: Program,
    known: Sequence[Known],
    layouts: Sequence[Layout | None],
    rules: Sequence[Rule],
) -> Iterator[Any]:
    for operation, rule in zip(program.operations, rules, strict=True):
        of_inputs = [known[number] for number in operation.inputs]
        wanted = [layouts[number] for number in operation.outputs]
        with jax.ensure_compile_time_eval():
            yield rule.plan(operation, of_inputs, wanted, shapes_of(program, operation))


def find_known(program: Program, inputs: Sequence[Known]) -> tuple[list[Known], list[Rule]]:
    """What is known of every value, and the rule of every operation."""
    found: dict[int, Known] = dict(zip(program.inputs, inputs, strict=True))
    found.update((number, of_constant(value)) for number, value in program.constants.items())
    rules: list[Rule] = []
    for operation in program.operations:
        of_inputs = [found[number] for number in operation.inputs]
        shapes = shapes_of(program, operation)
        rule = rule_of(operation, of_inputs, shapes)
        rules.append(rule)
        with jax.ensure_compile_time_eval():
            outputs = rule.known(operation, of_inputs, shapes)
        found.update(zip(operation.outputs, outputs, strict=True))
    return [found[number] for number in range(len(program.shapes))], rules


def find_needs(
    program: Program, known: Sequence[Known], rules: Sequence[Rule], seeds: Mapping[int, Need]
) -> tuple[list[Need | None], list[Layout | None]]:
    """What is needed of every value, and which of its elements are computed.

    A computed value is a rectangle: what it has beside the live elements is needed too.
    """
    needs: list[Need | None] = [seeds.get(number) for number in range(len(program.shapes))]
    layouts: list[Layout | None] = [None] * len(program.shapes)
    for operation, rule in zip(reversed(program.operations), reversed(rules), strict=True):
        for number in operation.outputs:
            if (need := needs[number]) is not None:
                layout = layout_of(need.needed & (known[number].kind == LIVE), whole=need.whole)
                more = pattern_of(layout, program.shapes[number].shape)
                needs[number] = need._replace(needed=need.needed | more)
                layouts[number] = layout
        of_outputs = [needs[number] for number in operation.outputs]
        if not any(need is not None and need.needed.any() for need in of_outputs):
            continue
        found = rule.needs(
            operation,
            [known[number] for number in operation.inputs],
            [known[number] for number in operation.outputs],
            of_outputs,
            shapes_of(program, operation),
        )
        for number, need in zip(operation.inputs, found, strict=True):
            needs[number] = merged(needs[number], need)
    return needs, layouts


def compute(
    program: Program,
    analysis: Analysis,
    inputs: Sequence[Part],
    wanted: Sequence[tuple[int, Layout]],
) -> list[jax.Array]:
    """Runs what is left of a program.

    Args:
        program: the program.
        analysis: of it.
        inputs: the computed elements of its inputs.
        wanted: values and the layouts that are asked for.
    """
    parts: dict[int, Part] = dict(zip(program.inputs, inputs, strict=True))

    def part_of(number: int) -> Part:
        if number not in parts:
            shape = program.shapes[number]
            known = analysis.known[number]
            parts[number] = Part(shape.shape, shape.dtype, known, None, None)
            if number in program.constants and (known.kind == LIVE).any():
                whole = (None,) * len(shape.shape)
                parts[number] = parts[number]._replace(
                    layout=whole, array=program.constants[number]
                )
        return parts[number]

    steps = zip(program.operations, analysis.rules, analysis.plans, strict=True)
    for operation, rule, plan in steps:
        layouts = [analysis.layouts[number] for number in operation.outputs]
        if all(layout is None for layout in layouts):
            continue
        arrays = rule.compute(
            operation,
            [part_of(number) for number in operation.inputs],
            layouts,
            shapes_of(program, operation),
            plan,
        )
        for number, layout, array in zip(operation.outputs, layouts, arrays, strict=True):
            if layout is not None:
                parts[number] = part_of(number)._replace(layout=layout, array=array)
    return [placed(part_of(number), layout) for number, layout in wanted]


def shapes_of(program: Program, operation: Operation) -> list[Any]:
    """Shapes of an operation's inputs, then of its results."""
    return [program.shapes[number] for number in (*operation.inputs, *operation.outputs)]
