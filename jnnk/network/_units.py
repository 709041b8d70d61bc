"""Which elements of a network's values belong to one channel, and which channels are coupled.

Each filter of a convolution and each output of a dense layer starts a unit. Operations that move
elements carry the units along; those that join values element by element make units one: what is
added to a residual stream, scaled by BatchNorm or gated by squeeze-and-excitation comes and goes
together. A unit that something reads which has no rule, or that reaches an output, is fixed.
"""

from collections.abc import Mapping, Sequence

from jnnk.network._kernels import Origin
from jnnk.network._known import Known, Rule
from jnnk.network._program import Program
from jnnk.network._unit_finder import Finder, Units
from jnnk.network._unit_rules import follow


def find_units(
    program: Program,
    known: Sequence[Known],
    rules: Sequence[Rule],
    leaves: Mapping[int, Origin],
    count: int,
) -> Units:
    """Finds the units of a network.

    Args:
        program: the network, without operations that its outputs do not need.
        known: what is known of its values.
        rules: of its operations.
        leaves: the leaf that values are made of, by their numbers.
        count: number of leaves, which are the first inputs.
    """
    finder = Finder(program, known, leaves, count)
    for operation, rule in zip(program.operations, rules, strict=True):
        follow(finder, operation, rule)
    for number in program.outputs:
        finder.fix(finder.units_of(number), "it reaches an output")
    return finder.finished()
