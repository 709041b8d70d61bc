"""What a selection keeps of the scores of a network.

Every function takes scores of which more is better and returns booleans, True where kept. A score
of NaN is below every threshold and ranks below every other score.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk.pruning._scores import split_axis
from jnnk.pruning._selection import Contribution, KeepRate, Selection, Threshold

Layers = Mapping[str, jax.Array]
Scores = TypeVar("Scores", jax.Array, np.ndarray)


def kept_kernels(
    selection: Selection, scores: Mapping[str, ArrayLike], alive: Layers
) -> dict[str, jax.Array]:
    """Which kernels of a network a selection keeps.

    Args:
        selection: a `Threshold`, a `Contribution` or a `KeepRate`.
        scores: layer -> scores ``(Cin, Cout)``, not negative; ``(Cout,)`` of whole filters.
        alive: layer -> bool ``(Cin, Cout)``, false where an earlier mask pruned a kernel. Such a
            kernel scores 0 and ranks lowest.

    Returns:
        Layer -> bool ``(Cin, Cout)``.
    """
    match selection:
        case Threshold(threshold):
            return _keep_by_value(scores, alive, threshold, above_threshold)
        case Contribution(contribution, exact):
            keep = contributes_exactly if exact else contributes
            return _keep_by_value(scores, alive, contribution, keep)
        case KeepRate():
            num_pruned = _num_pruned(selection, alive)
            return _keep_by_rank(
                scores, alive, num_pruned, selection.scope, selection.whole_filters
            )


def above_threshold(magnitudes: Scores, threshold: float | Scores) -> Scores:
    """Keep what reaches an absolute threshold.

    Args:
        magnitudes: scores in the unit of the weights, any shape.
        threshold: in the same unit, a scalar or what broadcasts.

    Returns:
        bool, the shape of ``magnitudes``.
    """
    return magnitudes >= threshold


def contributes(scores: jax.Array, contribution: float | jax.Array) -> jax.Array:
    """Keep the kernels that hold at least a share of their filter's summed score, but for rounding.

    Args:
        scores: raw scores ``(Cin, Cout)``.
        contribution: the share, a scalar in [0, 1]. What the sum, the quotient and the share itself
            may round is allowed for: of ten equal kernels each holds a tenth.

    Returns:
        bool ``(Cin, Cout)``; all False for a filter whose scores are all zero.
    """
    total, num_additions = _sum_in_halves(jnp.where(jnp.isnan(scores), 0, scores))
    rounding = (2 + num_additions) * float(typed_jax.finfo(scores.dtype).eps)
    shares = scores / jnp.where(total > 0, total, 1) * (1 + rounding)
    return (total > 0) & (shares >= contribution)


def contributes_exactly(scores: jax.Array, contribution: float | jax.Array) -> jax.Array:
    """As `contributes`, by the rounded quotient as it is, as the authors decide."""
    total = jnp.nansum(scores, axis=0, keepdims=True)
    return (total > 0) & (scores / jnp.where(total > 0, total, 1) >= contribution)


def _sum_in_halves(scores: jax.Array) -> tuple[jax.Array, int]:
    """The sum over the first axis, which is kept, and how many additions a score goes through."""
    depth = max(0, len(scores) - 1).bit_length()
    padding = [(0, 2**depth - len(scores)), *[(0, 0)] * (scores.ndim - 1)]
    halves = jnp.pad(scores, padding)
    for _ in range(depth):
        halves = halves[: len(halves) // 2] + halves[len(halves) // 2 :]
    return halves, depth


@typed_jax.jit
def keep_largest(scores: jax.Array, num_pruned: int | jax.Array) -> jax.Array:
    """Prune the ``num_pruned`` smallest scores along the first axis.

    Args:
        scores: ``(n, ...)``, not negative.
        num_pruned: scalar; of equal scores the earlier one is pruned first.

    Returns:
        bool ``(n, ...)``.
    """
    keys = _ordered_bits(scores)
    places = jnp.arange(len(keys), dtype=jnp.uint32).reshape(-1, *[1] * (keys.ndim - 1))
    num_pruned = jnp.asarray(num_pruned, jnp.int32)

    def is_below(bound: _Bound) -> jax.Array:
        return (keys < bound.key) | ((keys == bound.key) & (places < bound.place))

    def with_bit(bound: _Bound, bit: _Bound) -> tuple[_Bound, None]:
        higher = _Bound(bound.key | bit.key, bound.place | bit.place)
        fits = jnp.sum(is_below(higher), axis=0, keepdims=True, dtype=jnp.int32) <= num_pruned
        key = jnp.where(fits, higher.key, bound.key)
        return _Bound(key, jnp.where(fits, higher.place, bound.place)), None

    # The largest bound that not too many lie below, bit by bit: the more significant bits are the
    # keys'. That takes as many passes as there are bits, and less time than sorting.
    key_bits, place_bits = 8 * keys.dtype.itemsize, len(keys).bit_length()
    bits = _Bound(
        jnp.asarray([1 << n for n in reversed(range(key_bits))] + [0] * place_bits, keys.dtype),
        jnp.asarray([0] * key_bits + [1 << n for n in reversed(range(place_bits))], places.dtype),
    )
    shape = (1, *keys.shape[1:])
    lowest = _Bound(jnp.zeros(shape, keys.dtype), jnp.zeros(shape, places.dtype))
    bound, _ = jax.lax.scan(with_bit, lowest, bits)
    return ~is_below(bound)


class _Bound(NamedTuple):
    """A point in the order of scores: by their key, then by their place along the first axis."""

    key: jax.Array
    place: jax.Array


def _ordered_bits(scores: jax.Array) -> jax.Array:
    """Unsigned numbers in the order of scores: NaN below every score, -inf (pruned) below NaN."""
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        whole = scores.astype(jnp.int32) if scores.dtype.itemsize < 4 else scores
        if jnp.issubdtype(whole.dtype, jnp.unsignedinteger):
            return whole
        return jax.lax.bitcast_convert_type(whole, f"uint{8 * whole.dtype.itemsize}") ^ _sign(whole)
    # Zeros of either sign are equal.
    scores = jnp.where(jnp.isnan(scores), -1, jnp.where(scores == 0, 0, scores))
    numbers = jax.lax.bitcast_convert_type(scores, f"uint{8 * scores.dtype.itemsize}")
    sign = _sign(numbers)
    return numbers ^ jnp.where(numbers >= sign, ~jnp.zeros((), numbers.dtype), sign)


def _sign(numbers: jax.Array) -> jax.Array:
    """The highest bit, as an unsigned number of the same size."""
    bits = 8 * numbers.dtype.itemsize
    return jnp.asarray(1 << bits - 1, f"uint{bits}")


def _num_pruned(selection: KeepRate, alive: Layers) -> dict[str, int]:
    """Numbers to prune: by layer (in each filter, if that is the scope), or under "network"."""
    if selection.whole_filters:
        sizes = {path: num_filters for path, (_, num_filters) in _shapes(alive)}
    elif selection.scope == "filter":
        sizes = {path: num_inputs for path, (num_inputs, _) in _shapes(alive)}
    else:
        sizes = {path: math.prod(shape) for path, shape in _shapes(alive)}
    if selection.scope == "network":
        sizes = {"network": sum(sizes.values())}
    return {name: selection.num_pruned(size) for name, size in sizes.items()}


def _shapes(alive: Layers) -> list[tuple[str, tuple[int, ...]]]:
    return [(path, layer.shape) for path, layer in alive.items()]


@typed_jax.jit(static_argnames="keep")
def _keep_by_value(
    scores: Mapping[str, ArrayLike],
    alive: Layers,
    value: float | jax.Array,
    keep: Callable[[jax.Array, float | jax.Array], jax.Array],
) -> dict[str, jax.Array]:
    return {path: keep(jnp.where(alive[path], scores[path], 0), value) for path in scores}


@typed_jax.jit(static_argnames=("scope", "whole_filters"))
def _keep_by_rank(
    scores: Mapping[str, ArrayLike],
    alive: Layers,
    num_pruned: Mapping[str, int],
    scope: str,
    whole_filters: bool,
) -> dict[str, jax.Array]:
    rank = _scores_of_filters if whole_filters else _scores_of_kernels
    ranked = {path: rank(scores[path], alive[path]) for path in scores}
    # A scope is a column of scores: a filter is one of its layer's, a layer or the network is one.
    columns = {
        path: layer if scope == "filter" else layer.reshape(-1, 1) for path, layer in ranked.items()
    }
    if scope == "network":
        kept = _split_rows(
            keep_largest(jnp.concatenate(list(columns.values())), num_pruned["network"]), columns
        )
    else:
        kept = _keep_in_columns(columns, num_pruned)
    return {
        path: jnp.broadcast_to(kept[path].reshape(layer.shape), alive[path].shape)
        for path, layer in ranked.items()
    }


def _scores_of_kernels(scores: ArrayLike, alive: jax.Array) -> jax.Array:
    """Scores to rank kernels by ``(Cin, Cout)``."""
    return jnp.where(alive, scores, -jnp.inf)


def _scores_of_filters(scores: ArrayLike, alive: jax.Array) -> jax.Array:
    """Scores to rank filters by ``(Cout,)``: the sums of their kernels', unless given."""
    if scores.ndim == 1:
        return jnp.where(alive.any(axis=0), scores, 0)
    return jnp.nansum(jnp.where(alive, scores, 0), axis=0)


def _split_rows(column: jax.Array, parts: Layers) -> dict[str, jax.Array]:
    """Cut a column into pieces as long as the parts that it was put together from."""
    pieces = split_axis(column, [len(part) for part in parts.values()])
    return dict(zip(parts, pieces, strict=True))


def _keep_in_columns(columns: Layers, num_pruned: Mapping[str, int]) -> dict[str, jax.Array]:
    """Keep the largest of each column ``(n, columns)`` of each layer."""
    kept: dict[str, jax.Array] = {}
    # Columns of one length are ranked together: a loop for each layer is slow to compile.
    for length in sorted({len(column) for column in columns.values()}):
        paths = [path for path, column in columns.items() if len(column) == length]
        together = jnp.concatenate([columns[path] for path in paths], axis=1)
        keep = keep_largest(together, num_pruned[paths[0]])
        widths = [columns[path].shape[1] for path in paths]
        kept |= dict(zip(paths, split_axis(keep, widths, axis=1), strict=True))
    return kept
