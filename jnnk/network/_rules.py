"""Which rule an operation is thinned by."""

from collections.abc import Sequence
from typing import Any

from jnnk.network._axiswise import ALONG_AXES, AXISWISE
from jnnk.network._contraction import CONTRACTION
from jnnk.network._elementwise import ELEMENTWISE
from jnnk.network._joining import JOIN
from jnnk.network._known import Known, Rule
from jnnk.network._opaque import OPAQUE
from jnnk.network._pointwise import has_pointwise_derivative, pointwise
from jnnk.network._products import product_of, size_of
from jnnk.network._program import CONV, Operation
from jnnk.network._reshaping import BROADCAST, RESHAPE, TRANSPOSE
from jnnk.network._shifting import SHIFT, shifts_of

_RULES = {
    "transpose": TRANSPOSE,
    "reshape": RESHAPE,
    "squeeze": RESHAPE,
    "expand_dims": RESHAPE,
    "broadcast_in_dim": BROADCAST,
}
#: Products whose patterns are larger are not thinned.
_LARGEST = 2**28


def rule_of(operation: Operation, inputs: Sequence[Known], shapes: Sequence[Any]) -> Rule:
    """The rule of an operation.

    Args:
        operation: the operation.
        inputs: what is known of its inputs.
        shapes: of its inputs, then of its results.
    """
    name = operation.name
    if name in _RULES:
        return _RULES[name]
    if name in (CONV, "dot_general"):
        return CONTRACTION if _is_plain_product(operation, inputs, shapes) else OPAQUE
    if name == "concatenate":
        axis = operation.params["dimension"]
        return JOIN if all(isinstance(each.shape[axis], int) for each in shapes) else OPAQUE
    if name in AXISWISE and len(operation.outputs) == 1:
        dilation = operation.params.get("base_dilation") or ()
        return OPAQUE if any(step != 1 for step in dilation) else ALONG_AXES
    if shifts_of(operation, inputs, shapes):
        return SHIFT
    is_elementwise = pointwise(operation) is not None and has_pointwise_derivative(operation)
    return ELEMENTWISE if is_elementwise else OPAQUE


def _is_plain_product(operation: Operation, inputs: Sequence[Known], shapes: Sequence[Any]) -> bool:
    if operation.name == CONV and operation.params["batch_group_count"] != 1:
        return False
    product = product_of(operation, shapes)
    if not all(isinstance(shapes[0].shape[axis], int) for axis in product.left_summed):
        return False
    left, right = inputs
    return size_of(product.left(left.kind), product.right(right.kind)) <= _LARGEST
