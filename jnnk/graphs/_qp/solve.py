"""The NNK problem: batched non-negative least squares in kernel form, solved exactly.

``min over theta >= 0 of 1/2 theta' G theta - g' theta`` (arXiv 1910.09383, eq. 5), many small
problems at once.
"""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.precision import contract, working_dtype
from jnnk._core.whole_numbers import whole_number
from jnnk.graphs._qp.active_set import finish
from jnnk.graphs._qp.gradient import find_support
from jnnk.graphs._qp.linear import solve_on_support
from jnnk.parallel._streams import can_stream, map_streams

# Problems from which on two programs at once save more than they cost.
_STREAMED = 4096
# Rows of any dtype that make up whole cache lines.
_ALIGNED = 64


class QPSolution(NamedTuple):
    """The outcome of `solve_nnk` for a batch of problems in K candidates.

    Attributes:
        weights: at least 0, and exactly 0 outside the support and at masked candidates.
        kkt_residual: largest violation of the optimality conditions: ``|g - G theta|`` on
            the support, the positive part of it elsewhere, each over the root of the candidate's
            diagonal entry (so no scaling of candidates changes it; where that entry is 1, in units
            of ``cross``). The rounding of ``g - G theta`` is added: the true one is not larger.
            Infinity where the problem holds NaN or infinity or has no minimum.
        num_steps: products with ``gram`` and exchanges of a candidate, about as dear.
        converged: ``kkt_residual <= tol * max_i |cross_i| / root(gram_ii)``.
        ambiguous: whether the support is not the only one or hangs on rounding. With
            s = 128 units of rounding (1.5e-5 in float32) and eight times the rounding of
            ``g - G theta``, each in units of the root of its diagonal entry times that largest
            cross entry: some candidate off the support has a multiplier ``g - G theta`` of at least
            -s, so that it may enter; or the weight of one on it is at most s times the
            amplification of ``G_SS^-1``, so that it may leave; or that amplification is over
            ``1 / s``, so that the support is as good as dependent. The amplification, at least 1,
            is the largest entry of ``G_SS^-1`` times a fixed right side of numbers between -1 and
            1. True as well where ``max_steps`` ended the work before that was known, False where
            ``kkt_residual`` is infinite for NaN.
    """

    weights: Float[Array, "*batch K"]
    kkt_residual: Float[Array, "*batch"]
    num_steps: Int32[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    ambiguous: Bool[Array, "*batch"]


def solve_nnk(
    gram: Float[ArrayLike, "*batch K K"],
    cross: Float[ArrayLike, "*batch K"],
    *,
    mask: Bool[ArrayLike, "*batch K"] | None = None,
    tol: float | jax.Array = 1e-5,
    max_steps: int = 500,
) -> QPSolution:
    """Solves ``min 1/2 w' G w - g' w`` over ``w >= 0`` for a batch of problems.

    Accelerated projected gradient in the metric "diagonal + constant" guesses the supports,
    conjugate gradients the weights on them. Problems that this leaves unfinished, or whose support
    may be dependent or not the only one, are solved from an empty support by Lawson and Hanson's
    rule, which ends on every positive semi-definite problem, with ``G_SS`` regular on the support
    S: no more candidates than the rank of ``gram``, as far as rounding tells. Of several supports
    it takes the one of the rule: the candidate of the largest pull ``g - G theta`` enters (over the
    root of its diagonal entry; the first of those equal to rounding), until none is pulled. One
    that depends on the support but for rounding takes the place of one that it depends on, if it is
    pulled all the same. A ``gram`` of low rank need not be semi-definite any more once it is
    rounded to float32: of random problems of rank K / 2 up to one in a hundred does not converge,
    of badly conditioned ones more. Weights that are worse than none are replaced by none.

    The tolerance is what ``converged`` judges: work goes on to about rounding. On a CPU, and
    outside of transformations, a large batch is solved as two halves at once.

    Differentiable in ``gram`` and ``cross``, forward and reverse: on the support S the weights are
    ``G_SS^-1 g_S`` (see `solve_on_support` for nearly singular ``G_SS``); the other fields have
    derivative zero.

    Args:
        gram: symmetric positive semi-definite. Half precisions are computed
            in float32. Where it is not symmetric the problem of ``(gram + gram') / 2`` is solved,
            since the objective sees no more of it. A candidate whose diagonal entry is not positive
            has weight 0; where its ``cross`` is positive, or the entry negative, nothing bounds the
            objective, and the problem is not converged.
        cross: of the dtype of ``gram``.
        mask: False for candidates that do not exist; their entries of ``gram`` and
            ``cross`` may hold anything.
        tol: relative tolerance, see `QPSolution.converged`.
        max_steps: bound on the exchanges per problem, beyond the fixed first phase.

    Returns:
        A `QPSolution`. A problem with NaN or infinity has weights 0 and is not converged.

    Raises:
        ValueError: on shapes or dtypes that do not fit, or a ``max_steps`` that is no whole number.

    Examples:
        Two candidates so alike that the second has nothing to add:

        >>> gram = jnp.array([[1.0, 0.9], [0.9, 1.0]])
        >>> solution = solve_nnk(gram, jnp.array([0.9, 0.7]))
        >>> print(solution.weights > 0, bool(solution.converged))
        [ True False] True
    """
    _check(gram, cross, mask)
    max_steps = whole_number("max_steps", max_steps, least=0)
    tol = jnp.asarray(tol, working_dtype(gram.dtype))
    arrays = (gram, cross) if mask is None else (gram, cross, mask)
    if np.prod(cross.shape[:-1]) >= _STREAMED and can_stream(*arrays, tol):
        return _solve_in_halves(arrays, tol, max_steps)
    return _solve_batch(*arrays, tol=tol, max_steps=max_steps)


def _solve_in_halves(arrays: tuple[ArrayLike, ...], tol: jax.Array, max_steps: int) -> QPSolution:
    """`solve_nnk` as two programs at once."""
    batch = arrays[1].shape[:-1]
    # NumPy's views, which no half copies if it begins at an aligned address.
    count = int(np.prod(batch))
    rows = [np.asarray(x).reshape(count, *x.shape[len(batch) :]) for x in arrays]
    half = -(-count // (2 * _ALIGNED)) * _ALIGNED
    # Both of one shape, for one program; they overlap where the count is not a multiple.
    starts = (0, count - half)
    first, second = map_streams(
        _solve_batch,
        [
            tuple(jax.device_put(x[start : start + half], may_alias=True) for x in rows)
            for start in starts
        ],
        static={"max_steps": max_steps},
        shared={"tol": tol},
    )

    def join(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.concatenate([x, y[2 * half - count :]]).reshape(batch + x.shape[1:])

    return QPSolution(*map(join, first, second))


@typed_jax.jit(static_argnames=("max_steps",))
def _solve_batch(
    gram: ArrayLike,
    cross: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    tol: jax.Array,
    max_steps: int,
) -> QPSolution:
    """`solve_nnk` as one program."""
    dtype = working_dtype(gram.dtype)
    gram, cross = jnp.asarray(gram).astype(dtype), jnp.asarray(cross).astype(dtype)
    size, batch = cross.shape[-1], cross.shape[:-1]
    if mask is not None:
        mask = jnp.asarray(mask)
        # A masked candidate becomes a problem of its own whose answer is 0.
        both = mask[..., :, None] & mask[..., None, :]
        gram = jnp.where(both, gram, jnp.eye(size, dtype=dtype))
        cross = jnp.where(mask, cross, 0)
    count = int(np.prod(batch))
    if count == 0 or size == 0:
        return QPSolution(
            cross,
            jnp.zeros(batch, dtype),
            jnp.zeros(batch, jnp.int32),
            jnp.ones(batch, bool),
            jnp.zeros(batch, bool),
        )
    solution = _solve(gram.reshape(count, size, size), cross.reshape(count, size), tol, max_steps)
    solution = QPSolution(*(field.reshape(batch + field.shape[1:]) for field in solution))
    if mask is not None:
        solution = solution._replace(weights=jnp.where(mask, solution.weights, 0))
    return solution


def _in_two_phases(gram: jax.Array, cross: jax.Array, tol: jax.Array, max_steps: int) -> QPSolution:
    """`solve_nnk` on (B, K, K) and (B, K), without its derivative."""
    # Here (B,) meets (K, B) at every step; the switch is for finding such in users' own code.
    with jax.numpy_rank_promotion("allow"):
        found = finish(gram, cross, find_support(gram, cross), max_steps=max_steps)
    finite = jnp.isfinite(found.residual)
    return QPSolution(
        weights=jnp.where(finite[:, None], found.weights, 0),
        kkt_residual=jnp.where(finite, found.residual, jnp.inf),
        num_steps=found.steps,
        converged=finite & (found.relative <= tol),
        ambiguous=found.ambiguous,
    )


_solve = jax.custom_jvp(_in_two_phases, nondiff_argnums=(3,))


@_solve.defjvp
def _solve_jvp(
    max_steps: int,
    primals: tuple[jax.Array, jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[QPSolution, QPSolution]:
    """``G_SS dw_S = dg_S - dG_SS w_S`` on the support, zero elsewhere."""
    gram, cross, tol = primals
    gram_dot, cross_dot, _ = tangents
    solution = _solve(gram, cross, tol, max_steps)
    weights = solution.weights
    gram, gram_dot = (x / 2 + x.mT / 2 for x in (gram, gram_dot))
    change = cross_dot - contract("bij,bj->bi", gram_dot, weights)
    weights_dot = solve_on_support(gram, change, weights > 0)
    zeros = jnp.zeros_like(solution.kkt_residual)
    # What JAX takes as the tangent of integers.
    no_change = cast(jax.Array, np.zeros(solution.num_steps.shape, jax.dtypes.float0))
    return solution, QPSolution(weights_dot, zeros, no_change, no_change, no_change)


def _check(gram: ArrayLike, cross: ArrayLike, mask: ArrayLike | None) -> None:
    """Raises ValueError on misuse."""
    if cross.ndim < 1 or gram.shape != (*cross.shape, cross.shape[-1]):
        raise ValueError(
            f"gram and cross: expected (..., K, K) and (..., K), got {gram.shape} and {cross.shape}"
        )
    if not jnp.issubdtype(gram.dtype, jnp.floating) or gram.dtype != cross.dtype:
        raise ValueError(
            f"gram and cross: expected one floating dtype, got {gram.dtype} and {cross.dtype}"
        )
    if mask is not None and (mask.shape != cross.shape or mask.dtype != jnp.bool_):
        raise ValueError(f"mask: expected {cross.shape} of bool, got {mask.shape} of {mask.dtype}")
