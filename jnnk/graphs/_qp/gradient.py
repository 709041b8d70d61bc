"""First phase: projected gradients guess the supports, conjugate gradients the weights.

Problems lie along the last axis: vectors are (K, B), and every operation runs over problems.
"""

import functools

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk._core.blocks import map_blocks
from jnnk.graphs._qp.certificate import MARGIN, WIDE, certify, is_ambiguous, scales_of
from jnnk.graphs._qp.chunks import chunk_size
from jnnk.graphs._qp.conjugate import Trial, conjugate_gradient
from jnnk.graphs._qp.descent import Metric, is_crowded, metric_of, projected_gradient
from jnnk.graphs._qp.scaling import Posed, pose
from jnnk.graphs._qp.solved import Solved, solved
from jnnk.graphs._qp.sums import is_nontrivial, product, total_of

# Problems larger than _LARGE are cut down to the _SCREENED most promising candidates, once nearly
# all have no more positive weights than that.
_LARGE, _SCREENED = 30, 24
# What the metric and the certificate take, in products with gram.
_OF_METRIC, _OF_CERTIFICATE = 2, 2


def find_support(gram: jax.Array, cross: jax.Array) -> Solved:
    """First phase: projected gradients find supports, conjugate gradients solve on them.

    What that does not solve for certain is left undone, for `active_set.finish`.

    Args:
        gram: (B, K, K).
        cross: (B, K).

    Returns:
        `Solved`, done where the optimality conditions hold to rounding on a support that is surely
        regular and no candidate is near to changing sides: so it is the only solution.
    """

    def block(inputs: tuple[jax.Array, jax.Array]) -> Solved:
        posed = pose(*inputs)
        gram, cross = posed.gram, posed.cross.T
        screen_size = _SCREENED if len(cross) > _LARGE else None
        metric = metric_of(gram)
        weights, spent = projected_gradient(
            gram, cross, metric, jnp.zeros_like(cross), screen_size=screen_size
        )
        trial = _on_supports(gram, cross, metric, weights, screen_size=screen_size)
        return _judged(
            posed, metric.constant, trial._replace(spent=_OF_METRIC + spent + trial.spent)
        )

    return map_blocks(block, (gram, cross), block_size=chunk_size(cross.shape[1]))


def _judged(posed: Posed, constant: jax.Array, trial: Trial) -> Solved:
    """What is known of problems with trial weights."""
    gram, cross = posed.gram, posed.cross.T
    eps = typed_jax.finfo(cross.dtype).eps
    weights, scales = jnp.maximum(trial.weights, 0), scales_of(gram, cross)
    # |G - b|, which the metric is made of, and b bound |G|.
    absolute = product(jnp.abs(gram - constant[:, None, None]), weights)
    absolute += constant * total_of(weights)
    certificate = certify(gram, cross, weights, absolute, scales)
    known = cross, weights, certificate, scales, trial.amplified
    done = ~is_ambiguous(*known, units=MARGIN, roundings=1) & posed.bounded
    done &= certificate.residual <= MARGIN * eps * scales.size
    # The second phase makes anew what the bound is too wide for.
    done &= certificate.bound <= WIDE * eps * scales.size
    steps = jnp.full(cross.shape[1], trial.spent + _OF_CERTIFICATE, jnp.int32)
    ambiguous = is_ambiguous(*known) | ~done
    return solved(posed, weights, certificate, ambiguous=ambiguous, steps=steps, done=done)


def _on_supports(
    gram: jax.Array,
    cross: jax.Array,
    metric: Metric,
    weights: jax.Array,
    *,
    screen_size: int | None,
) -> Trial:
    """Problems solved on the supports of weights (K, B), by screening where that is of use.

    Args:
        gram: (B, K, K).
        cross: (K, B).
        metric: of the problems.
        weights: (K, B), of `projected_gradient`.
        screen_size: candidates that screening keeps; None never screens.
    """
    if screen_size is None:
        return _conjugate(gram, cross, metric, weights)
    return typed_jax.cond(
        is_crowded(weights, screen_size, is_nontrivial(cross)),
        _conjugate,
        functools.partial(_screened, screen_size=screen_size),
        *(gram, cross, metric, weights),
    )


def _conjugate(gram: jax.Array, cross: jax.Array, metric: Metric, weights: jax.Array) -> Trial:
    """By conjugate gradients on the support of weights (K, B)."""
    return conjugate_gradient(gram, cross, metric.constant, weights, weights > 0)


def _screened(
    gram: jax.Array, cross: jax.Array, metric: Metric, weights: jax.Array, *, screen_size: int
) -> Trial:
    """As `_conjugate`, on the candidates of the largest pull alone, with supports corrected twice.

    What it leaves out wrongly, the second phase lets in.
    """
    pull = metric.diagonal * weights + cross - product(gram, weights)
    kept = jax.lax.top_k(pull.T, screen_size)[1]

    def rows_of(rows: jax.Array, indices: jax.Array) -> jax.Array:
        return rows[indices]

    take = jax.vmap(rows_of)
    gram = take(take(gram, kept).mT, kept)
    cross, start = take(cross.T, kept).T, take(weights.T, kept).T
    metric = metric_of(gram)
    inner, spent = projected_gradient(gram, cross, metric, start, screen_size=None)
    margin = MARGIN * typed_jax.finfo(cross.dtype).eps * jnp.max(jnp.abs(cross), axis=0)

    def correct(_: jax.Array, trial: Trial) -> Trial:
        start = jnp.maximum(trial.weights, 0)
        enters = (trial.weights == 0) & (cross - product(gram, start) > margin)
        new = conjugate_gradient(gram, cross, metric.constant, start, (start > 0) | enters)
        return new._replace(spent=trial.spent + 1 + new.spent)

    # Those products are with smaller matrices, but count.
    first = Trial(inner, jnp.ones_like(margin), spent + 3)
    trial = typed_jax.fori_loop(0, 2, correct, first)

    def put(row: jax.Array, indices: jax.Array, values: jax.Array) -> jax.Array:
        return row.at[indices].set(values)

    return trial._replace(weights=jax.vmap(put)(jnp.zeros_like(weights.T), kept, trial.weights.T).T)
