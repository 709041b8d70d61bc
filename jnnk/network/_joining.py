"""The rule of ``concatenate``."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.network._known import Known, Need, Part, Rule, pushed
from jnnk.network._patterns import Layout, Pattern, collapsed
from jnnk.network._placing import placed
from jnnk.network._program import Operation


def _known(operation: Operation, inputs: Sequence[Known], shapes: Sequence[Any]) -> list[Known]:
    axis = operation.params["dimension"]

    def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
        sizes = [
            shape.shape[axis] if isinstance(shape.shape[axis], int) else 1
            for shape in shapes[: len(inputs)]
        ]
        others = [(*each.shape[:axis], 1, *each.shape[axis + 1 :]) for each in arrays]
        common = np.broadcast_shapes(*others)
        return collapsed(
            np.concatenate(
                [
                    np.broadcast_to(each, [*common[:axis], size, *common[axis + 1 :]])
                    for each, size in zip(arrays, sizes, strict=True)
                ],
                axis=axis,
            )
        )

    return [
        Known(
            joined([known.kind for known in inputs]),
            joined([known.value for known in inputs]),
            any(known.of_images for known in inputs),
        )
    ]


def _ranges(operation: Operation, shapes: Sequence[Any], count: int) -> list[np.ndarray]:
    axis = operation.params["dimension"]
    ends = list(accumulate(shape.shape[axis] for shape in shapes[:count]))
    return [np.arange(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _needs(
    operation: Operation,
    inputs: Sequence[Known],
    outputs: Sequence[Known],
    needs: Sequence[Need | None],
    shapes: Sequence[Any],
) -> list[Need | None]:
    axis = operation.params["dimension"]
    (need,) = needs
    assert need is not None
    live = pushed(need, outputs[0])

    def piece(pattern: Pattern, indices: np.ndarray) -> Pattern:
        return pattern if pattern.shape[axis] == 1 else pattern.take(indices, axis=axis)

    return [
        Need(piece(need.needed, indices), piece(live, indices), need.whole)
        for indices in _ranges(operation, shapes, len(inputs))
    ]


def _compute(
    operation: Operation,
    inputs: Sequence[Part],
    layouts: Sequence[Layout | None],
    shapes: Sequence[Any],
    _: Any,
) -> list[Any]:
    axis = operation.params["dimension"]
    (layout,) = layouts
    assert layout is not None
    pieces: list[jax.Array] = []
    for part, indices in zip(inputs, _ranges(operation, shapes, len(inputs)), strict=True):
        kept = layout[axis]
        if kept is not None:
            kept = kept[np.isin(kept, indices)] - indices[:1].sum()
        if kept is None or len(kept):
            pieces.append(placed(part, (*layout[:axis], kept, *layout[axis + 1 :])))
    return [jnp.concatenate(pieces, axis=axis) if len(pieces) > 1 else pieces[0]]


JOIN = Rule(_known, _needs, _compute)
