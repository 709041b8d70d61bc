"""Convolutions with feature groups, thinned."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jnnk.network._known import Part
from jnnk.network._patterns import Layout
from jnnk.network._placing import placed, rest_taken, taken
from jnnk.network._program import Operation
from jnnk.network._small_convs import small_conv


def grouped_conv(
    operation: Operation, inputs: Sequence[Part], layout: Layout, shapes: Sequence[Any]
) -> jax.Array:
    """A convolution with groups: those with an output that is wanted, whole.

    Groups of one input channel and several outputs, of which some are not wanted, become one group
    for each output.
    """
    left, right = inputs
    numbers, groups = (
        operation.params["dimension_numbers"],
        operation.params["feature_group_count"],
    )
    wanted = layout[numbers.out_spec[1]]
    inside = tuple(wanted if a == numbers.out_spec[1] else None for a in range(len(layout)))
    filters = shapes[2].shape[numbers.out_spec[1]]
    if wanted is None:
        wanted = np.arange(filters)
    per_group = shapes[1].shape[numbers.rhs_spec[1]]
    outputs = filters // groups
    kept = np.unique(wanted // outputs)
    if per_group == 1 and len(wanted) < len(kept) * outputs:
        computed, channels, count = wanted, wanted // outputs, len(wanted)
    else:
        computed = (kept[:, None] * outputs + np.arange(outputs)).ravel()
        channels = (kept[:, None] * per_group + np.arange(per_group)).ravel()
        count = len(kept)
    of_left: list[np.ndarray | None] = [None] * len(left.shape)
    of_right: list[np.ndarray | None] = [None] * len(right.shape)
    of_left[numbers.lhs_spec[1]], of_right[numbers.rhs_spec[0]] = channels, computed
    result = small_conv(
        operation, placed(left, tuple(of_left)), placed(right, tuple(of_right)), groups=count
    )
    result = taken(result, np.searchsorted(computed, wanted), numbers.out_spec[1])
    return rest_taken(result, inside, layout)
