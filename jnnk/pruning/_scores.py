"""How much a convolution kernel matters: one score per (input channel, filter) pair.

A conv layer's weights ``(h, w, Cin, Cout)`` hold ``Cin * Cout`` matrices of shape ``(h, w)``, and
every criterion maps each matrix to one number. Criteria and their names are those of Cugu & Akbas,
"A Deeper Look into Convolutions via Pruning" (arXiv 2102.02804). A criterion is homogeneous:
scaling a kernel by ``c`` scales its score by ``c ** degree``, with degree 1 except for the
determinants.

Grouped and depthwise convolutions store ``(h, w, Cin / groups, Cout)``: their scores have that
shape, the first axis counting the input channels of the filter's own group.

A matrix that is not square has no eigenvalues. There the singular values take their place (the
eigenvalues of ``sqrt(K'K)``, or of ``sqrt(KK')`` where that is smaller): ``det`` is their product,
the two smallest-eigenvalue scores the smallest of them, and the two spectral radii equal
``spectral_norm``.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Real

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk.pruning._linalg.eigenvalues import determinant, eigenvalues, gram_determinant
from jnnk.pruning._linalg.singular_values import singular_values


def _entries(kernel: jax.Array) -> list[jax.Array]:
    """One array ``(...)`` for each entry: XLA on CPU is slow to reduce over leading axes."""
    return [kernel[i, j] for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]


def _is_square(kernel: jax.Array) -> bool:
    return kernel.shape[0] == kernel.shape[1]


def _moduli(kernel: jax.Array) -> Sequence[jax.Array]:
    if not _is_square(kernel):
        return singular_values(kernel)
    values = eigenvalues(kernel)
    return [_modulus(x, y) for x, y in zip(values.real, values.imag, strict=True)]


def _modulus(x: jax.Array, y: jax.Array) -> jax.Array:
    """Of numbers whose squares may leave the range; 0 with derivative 0 at 0."""
    x, y = jnp.abs(x), jnp.abs(y)
    larger = jnp.maximum(x, y)
    ratio = jnp.minimum(x, y) / jnp.where(larger > 0, larger, 1)
    return larger * jnp.sqrt(1 + ratio * ratio)


def _absolute_real_parts(kernel: jax.Array) -> Sequence[jax.Array]:
    if not _is_square(kernel):
        return singular_values(kernel)
    return [jnp.abs(x) for x in eigenvalues(kernel).real]


def det(kernel: jax.Array) -> jax.Array:
    """Absolute determinant of each matrix of ``kernel`` ``(h, w, ...)``; shape ``(...)``."""
    if not _is_square(kernel):
        return functools.reduce(operator.mul, singular_values(kernel))
    return jnp.abs(determinant(kernel))


def det_gram(kernel: jax.Array) -> jax.Array:
    """Determinant of ``K'K``, of ``KK'`` if smaller; the authors' ``det_corr``. Shape ``(...)``.

    ``K'K`` is rounded to float32 first, as theirs is: equal to ``det ** 2`` but for noise of about
    1e-7 of the product of its diagonal, and with it their masks come out.
    """
    is_wide = kernel.shape[0] < kernel.shape[1]
    return gram_determinant(kernel.swapaxes(0, 1) if is_wide else kernel)


def min_eig(kernel: jax.Array) -> jax.Array:
    """Smallest modulus among the eigenvalues; shape ``(...)``."""
    return functools.reduce(jnp.minimum, _moduli(kernel))


def min_eig_real(kernel: jax.Array) -> jax.Array:
    """Smallest absolute real part among the eigenvalues; shape ``(...)``."""
    return functools.reduce(jnp.minimum, _absolute_real_parts(kernel))


def spectral_radius(kernel: jax.Array) -> jax.Array:
    """Largest modulus among the eigenvalues; shape ``(...)``."""
    return functools.reduce(jnp.maximum, _moduli(kernel))


def spectral_radius_real(kernel: jax.Array) -> jax.Array:
    """Largest absolute real part among the eigenvalues; shape ``(...)``."""
    return functools.reduce(jnp.maximum, _absolute_real_parts(kernel))


def spectral_norm(kernel: jax.Array) -> jax.Array:
    """Largest singular value; shape ``(...)``."""
    return functools.reduce(jnp.maximum, singular_values(kernel))


def weight(kernel: jax.Array) -> jax.Array:
    """Mean absolute weight; shape ``(...)``."""
    total = functools.reduce(operator.add, _entries(jnp.abs(kernel)))
    return total / (kernel.shape[0] * kernel.shape[1])


def random(kernel: jax.Array, key: jax.Array) -> jax.Array:
    """A number uniform in [0, 1) for each matrix, whatever it holds; shape ``(...)``."""
    return jax.random.uniform(key, kernel.shape[2:], kernel.dtype)


CRITERIA: dict[str, Callable[..., jax.Array]] = {
    "det": det,
    "det_gram": det_gram,
    "min_eig": min_eig,
    "min_eig_real": min_eig_real,
    "spectral_radius": spectral_radius,
    "spectral_radius_real": spectral_radius_real,
    "spectral_norm": spectral_norm,
    "weight": weight,
    "random": random,
}
"""Every criterion: name -> function of matrices ``(h, w, ...)`` (``random`` also takes a key)."""

_OF_EIGENVALUES = ("min_eig", "min_eig_real", "spectral_radius", "spectral_radius_real")


def score_degree(criterion: str, shape: tuple[int, ...]) -> int:
    """Degree of a criterion's homogeneity for kernels of ``shape`` ``(h, w)``.

    ``score ** (1 / degree)`` is in the unit of the weights, so it is what a significance threshold
    is compared with: ``|det| >= t ** n`` and ``det(K'K) >= t ** 2n``. ``random`` has degree 0.
    """
    size = min(shape)
    return {"det": size, "det_gram": 2 * size, "random": 0}.get(criterion, 1)


def kernel_scores(
    kernel: Real[ArrayLike, "h w Cin Cout"], criterion: str, *, key: Array | None = None
) -> Float[Array, "Cin Cout"]:
    """Scores of every kernel of a conv layer by one criterion.

    Args:
        kernel: weights ``(h, w, Cin, Cout)``, computed in float32.
        criterion: a key of ``CRITERIA``.
        key: a PRNG key, for ``random`` only.

    Returns:
        float32 ``(Cin, Cout)``: raw scores (``|det|``, not its root). A kernel with a weight that
        is not finite scores NaN. A determinant too small for float32 is 0; ``kernel_magnitudes``
        keeps it apart from 0.

    Raises:
        ValueError: if ``kernel`` has not four axes, the criterion is unknown, or ``random`` has no
            key.

    Examples:
        Two kernels that read one channel, twice the identity and nothing:

        >>> kernel = jnp.stack([2 * jnp.eye(3), jnp.zeros((3, 3))], -1)[:, :, None]
        >>> print(kernel_scores(kernel, "spectral_radius"))
        [[2. 0.]]
    """
    scale, score = _scaled_scores(kernel, criterion, key)
    return score * scale ** score_degree(criterion, kernel.shape[:2])


def kernel_magnitudes(kernel: ArrayLike, criterion: str, *, key: Array | None = None) -> Array:
    """Scores of every kernel in the unit of the weights: ``score ** (1 / degree)``.

    Ranks kernels of one size as ``kernel_scores`` does, makes kernels of different sizes
    comparable, and does not underflow: the power ``t ** 2n`` of a threshold leaves the range of
    float32 for kernels of 5x5.

    Args:
        kernel: as in ``kernel_scores``.
        criterion: as in ``kernel_scores``.
        key: as in ``kernel_scores``.

    Returns:
        float32 ``(Cin, Cout)``.
    """
    scale, score = _scaled_scores(kernel, criterion, key)
    degree = score_degree(criterion, kernel.shape[:2])
    if degree <= 1:
        return score * scale**degree
    root = jnp.where(score == 0, 1, score) ** (1 / degree)
    return scale * jnp.where(score == 0, 0, root)


def _scaled_scores(kernel: ArrayLike, criterion: str, key: Array | None) -> tuple[Array, Array]:
    """A power of two for each kernel, and the scores of the kernels divided by it."""
    if criterion not in CRITERIA:
        raise ValueError(f"criterion: expected one of {', '.join(CRITERIA)}, got {criterion!r}")
    kernel = jnp.asarray(kernel)
    if kernel.ndim != 4:
        raise ValueError(f"kernel: expected shape (h, w, Cin, Cout), got {kernel.shape}")
    if criterion == "random" and key is None:
        raise ValueError("key: expected a PRNG key for the criterion 'random', got None")
    return _score(kernel, criterion, key)


@typed_jax.jit(static_argnames="name")
def _score(kernel: jax.Array, name: str, key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    # A power of two near the largest weight: dividing by it is exact, and keeps products of many
    # weights within the range of float32.
    kernel = kernel.astype(jnp.float32)
    largest = jax.lax.stop_gradient(functools.reduce(jnp.maximum, _entries(jnp.abs(kernel))))
    bits = jax.lax.bitcast_convert_type(largest, jnp.uint32) & jnp.uint32(0x7F800000)
    scale = jax.lax.bitcast_convert_type(bits, jnp.float32)
    is_finite = jnp.isfinite(largest)
    of_eigenvalues = name in _OF_EIGENVALUES and _is_square(kernel)  # which scales by itself
    scale = jnp.where((scale > 0) & is_finite & (not of_eigenvalues), scale, 1)
    scaled = jnp.where(is_finite[None, None], kernel, 0) / scale[None, None]
    score = CRITERIA[name](scaled, key) if name == "random" else CRITERIA[name](scaled)
    return scale, jnp.where(is_finite, score, jnp.nan)


def layer_scores(
    kernels: Mapping[str, jax.Array],
    criterion: str,
    *,
    score: Callable[..., jax.Array] = kernel_magnitudes,
    key: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Scores of every kernel of a network, computed in one batch for each size of kernel.

    Args:
        kernels: layer -> weights ``(h, w, Cin, Cout)``.
        criterion: as in ``kernel_scores``.
        score: ``kernel_magnitudes`` or ``kernel_scores``.
        key: a PRNG key, for ``random`` only.

    Returns:
        Layer -> float32 ``(Cin, Cout)``.
    """
    sizes: dict[tuple[int, ...], list[str]] = {}
    for path, kernel in kernels.items():
        sizes.setdefault(kernel.shape[:2], []).append(path)
    scores: dict[str, Array] = {}
    for i, (size, paths) in enumerate(sizes.items()):
        flat = [kernels[path].astype(jnp.float32).reshape(*size, 1, -1) for path in paths]
        size_key = None if key is None else jax.random.fold_in(key, i)
        batch = score(jnp.concatenate(flat, axis=3), criterion, key=size_key)[0]
        for path, part in zip(paths, split_axis(batch, [f.shape[3] for f in flat]), strict=True):
            scores[path] = part.reshape(kernels[path].shape[2:])
    return {path: scores[path] for path in kernels}


def split_axis(x: jax.Array, sizes: Sequence[int], *, axis: int = 0) -> list[jax.Array]:
    """Cut an array into pieces of the given sizes."""
    return jnp.split(x, list(itertools.accumulate(sizes))[:-1], axis=axis)
