"""The library's results on this device beside float64, whatever precision the user's default is.

Every check runs with the lowest default precision of products, which is TensorFloat-32 on a GPU and
bfloat16 on a TPU, and in full size with the highest as well (on a CPU both are one). Only the
networks' own convs and dense layers may differ then; those limits are apart.
"""

import concurrent.futures
import functools
import time
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from nnk_solvers import residual

from accelerator import data
from jnnk import (
    apply_masks,
    channel_overlap,
    channelwise_nnk_graph,
    kernel_scores,
    make_masks,
    models,
    nearest_neighbors,
    nnk_graph,
    solve_nnk,
)
from jnnk.data import Normalization
from jnnk.graphs import cosine, gaussian
from jnnk.network import compact
from jnnk.penalties import SOFT_OVERLAP_KINDS, overlap_penalty
from jnnk.pruning import CRITERIA, KeepRate
from jnnk.pruning._conv_leaves import conv_kernels
from jnnk.pruning._scores import kernel_magnitudes, score_degree
from jnnk.training import Batch, make_optimizer, make_train_step, start_state

PRECISIONS = ("bfloat16", "highest")
EPS = np.finfo(np.float32).eps


def run(report):
    """Checks run side by side on a card, where compiling them takes most of the time."""
    checks = {
        "solver": solver,
        "neighbours": neighbors,
        "graph": graph,
        "criteria": criteria,
        "masks": masks,
        "overlap": overlap,
        "gradients": gradient,
        "training step": training,
        "compaction": compaction,
    }

    def judged(check, precision):
        start = time.perf_counter()
        with jax.default_matmul_precision(precision):
            return list(check(report.small, precision)), time.perf_counter() - start

    workers = 1 if jax.default_backend() == "cpu" else 8
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        results = {
            (name, precision): pool.submit(judged, check, precision)
            for name, check in checks.items()
            for precision in (PRECISIONS[:1] if report.small else PRECISIONS)
        }
        for (name, precision), future in results.items():
            try:
                results, seconds = future.result()
                case = f"{name}, default precision {precision}"
                report.checks(case, results, seconds=seconds)
            except Exception:
                report.failure(traceback.format_exc())


def reference(gram, cross):
    """Weights (B, K) by scipy's NNLS on factors of float64 Gram matrices, one after another."""
    weights = np.zeros(cross.shape)
    for i, (matrix, vector) in enumerate(zip(gram, cross, strict=True)):
        values, vectors = np.linalg.eigh(matrix)
        root = np.sqrt(np.maximum(values, 0))
        right = np.divide(vectors.T @ vector, root, out=0 * root, where=root > 1e-9)
        weights[i] = scipy.optimize.nnls(root[:, None] * vectors.T, right, maxiter=1000)[0]
    return weights


def _compared(gram, cross, weights, ambiguous):
    """What float64 says of weights: only where the reference itself is exact, and not ambiguous."""
    gram, cross, weights = (np.asarray(x, np.float64) for x in (gram, cross, weights))
    right = reference(gram, cross)
    clear = (residual(gram, cross, right) < 1e-9) & ~np.asarray(ambiguous)
    yield "share that is not clear", 1 - clear.mean(), 0.5
    differ = ((weights > 0) != (right > 0)).any(1)
    yield "supports that differ, of clear ones", (differ & clear).sum(), 0
    yield "largest error of a weight, of clear ones", np.abs(weights - right)[clear].max(), 2e-3
    yield "KKT residual in float64", residual(gram, cross, weights).max(), 2e-5


def solver(small, precision):
    del precision
    count = 200 if small else 2_000
    found = data.searched(jax.random.key(5), num_points=2_000, num_queries=count, num_neighbors=50)
    for size in (25,) if small else (25, 50):
        gram, cross = data.problems(found, jax.random.key(6), count=count, size=size)
        solution = jax.jit(solve_nnk)(gram, cross)
        for what, *values in _compared(gram, cross, solution.weights, solution.ambiguous):
            yield f"K = {size}: {what}", *values
        yield f"K = {size}: not converged", int(jnp.sum(~solution.converged)), 0


def neighbors(small, precision):
    del precision
    count, size = (400, 10) if small else (2_000, 25)
    rng = np.random.default_rng(7)
    centers = np.repeat(rng.normal(size=(count // 20, data.DIM)), 20, axis=0)
    sets = {
        "clusters": np.asarray(data.features(jax.random.key(8), count=count)),
        "clusters of width 1e-4": centers + 1e-4 * rng.normal(size=centers.shape),
    }
    for name, points in sets.items():
        points = points.astype(np.float32)
        indices, squares = nearest_neighbors(
            points, points, num_neighbors=size, exclude=jnp.arange(count)
        )
        indices, exact = np.asarray(indices), _squares(points)
        last = np.sort(exact, axis=1)[:, size - 1, None]
        mine = np.take_along_axis(exact, indices, axis=1)
        rounding = 2 * (data.DIM + 2) * EPS
        repeated = sum(len(set(row)) < size for row in indices.tolist())
        yield f"{name}: neighbours missed", (mine > last * (1 + rounding)).sum() + repeated, 0
        yield f"{name}: error of squares", np.abs(np.asarray(squares) / mine - 1).max(), rounding


def _squares(points):
    """Squared distances (N, N) in float64 by differences, infinite to a point itself."""
    points = np.asarray(points, np.float64)
    squares = np.array([((points - point) ** 2).sum(1) for point in points])
    np.fill_diagonal(squares, np.inf)
    return squares


def graph(small, precision):
    del precision
    points = data.features(jax.random.key(9), count=200 if small else 1_000)
    for name, similarity in (("gaussian", gaussian()), ("cosine", cosine())):
        found = nnk_graph(points, num_neighbors=15, similarity=similarity)
        wide = np.asarray(points, np.float64)
        if name == "cosine":
            wide /= np.linalg.norm(wide, axis=1, keepdims=True)
        near = wide[np.asarray(found.indices)] - wide[:, None]
        norms = (near**2).sum(2)
        between = ((near[:, :, None] - near[:, None]) ** 2).sum(3)
        if name == "cosine":
            gram, cross = 1 - between / 4, 1 - norms / 4
        else:
            rate = 4.5 / norms.max(1)
            gram = np.exp(-rate[:, None, None] * between)
            cross = np.exp(-rate[:, None] * norms)
        for what, *values in _compared(gram, cross, found.weights, found.ambiguous):
            yield f"{name}: {what}", *values


def _numpy_scores(matrices):
    """Every criterion but ``random`` of float64 matrices (N, n, n)."""
    values = np.linalg.eigvals(matrices)
    moduli, real = np.abs(values), np.abs(values.real)
    determinant = np.abs(np.linalg.det(matrices))
    return {
        "det": determinant,
        "det_gram": determinant**2,
        "min_eig": moduli.min(1),
        "min_eig_real": real.min(1),
        "spectral_radius": moduli.max(1),
        "spectral_radius_real": real.max(1),
        "spectral_norm": np.linalg.norm(matrices, 2, axis=(1, 2)),
        "weight": np.abs(matrices).mean((1, 2)),
    }


def criteria(small, precision):
    del precision
    count = 500 if small else 5_000
    for side in (3,) if small else (3, 5):
        matrices = np.random.default_rng(10).normal(size=(count, side, side)).astype(np.float32)
        kernel = jnp.asarray(matrices.transpose(1, 2, 0)[:, :, None])
        wide = matrices.astype(np.float64)
        norm = np.linalg.norm(wide, 2, axis=(1, 2))
        expected = _numpy_scores(wide)
        yield "criteria without a reference", len(CRITERIA.keys() - expected.keys()), 1
        for name, values in expected.items():
            scores = np.asarray(kernel_scores(kernel, name))[0]
            error = np.abs(scores - values) / norm ** score_degree(name, (side, side))
            yield f"{side}x{side} {name}, over the norm", error.max(), 2e-5


def masks(small, precision):
    del precision
    model = models.create("resnet8" if small else "resnet20", num_classes=10)
    params = data.variables_of(model)["params"]
    wide = {
        path: np.asarray(kernel, np.float64).transpose(2, 3, 0, 1).reshape(-1, 3, 3)
        for path, kernel in conv_kernels(params).items()
    }
    matrices = np.concatenate(list(wide.values()))
    everything = _numpy_scores(matrices)
    for name in (
        ("det", "weight") if small else ("det", "spectral_radius", "min_eig_real", "weight")
    ):
        made = conv_kernels(make_masks(params, criterion=name, keep_rate=0.6))
        keep = np.concatenate([np.asarray(made[path])[0, 0].ravel() != 0 for path in wide])
        scores = everything[name] ** (1 / score_degree(name, (3, 3)))
        pruned = len(scores) - keep.sum()
        yield f"{name}: number pruned, off by", abs(int(pruned) - int(0.4 * len(scores))), 0
        threshold = np.sort(scores)[int(pruned)]
        is_apart = np.abs(scores / threshold - 1) > 1e-4
        wrong = (keep != (scores >= threshold)) & is_apart
        yield f"{name}: kernels on the wrong side", wrong.sum(), 0
        by_path = kernel_magnitudes(params["conv1"]["kernel"], name)
        error = np.asarray(by_path).ravel() / scores[: by_path.size] - 1
        yield f"{name}: error of magnitudes", np.abs(error).max(), 1e-3


def overlap(small, precision):
    del precision
    activations = jax.random.normal(jax.random.key(11), (150, 3, 6))
    found = channelwise_nnk_graph(activations, num_neighbors=8)
    indices, weights = (np.asarray(x) for x in (found.indices, found.weights))
    channels, images, _ = weights.shape
    dense = np.zeros((channels, images, images))
    for c, n in np.ndindex(channels, images):
        dense[c, n, indices[c, n]] = weights[c, n]
    sets = dense > 0
    both = np.einsum("cni,dni->cdn", sets, sets, dtype=np.float64)
    sizes = sets.sum(2)
    first, second = sizes[:, None], sizes[None]
    shares = dense / np.maximum(dense.sum(2, keepdims=True), 1e-30)
    norms = np.linalg.norm(dense, axis=2)
    expected = {
        "jaccard": both / (first + second - both),
        "overlap": both / np.minimum(first, second),
        "dice": 2 * both / (first + second),
        "weighted": np.minimum(shares[:, None], shares[None]).sum(3),
        "cosine": np.einsum("cni,dni->cdn", dense, dense) / (norms[:, None] * norms[None]),
    }
    yield "images without neighbours", (sizes == 0).sum(), 0
    for kind in ("jaccard", "cosine") if small else expected:
        error = np.abs(np.asarray(channel_overlap(found, kind=kind)) - expected[kind].mean(2))
        yield kind, error.max(), 1e-6


def gradient(small, precision):
    del precision
    activations = np.random.default_rng(12).normal(size=(32, 4, 8)).astype(np.float32)
    kinds = ("ruzicka",) if small else SOFT_OVERLAP_KINDS
    functions = {kind: functools.partial(overlap_penalty, kind=kind) for kind in kinds}
    functions["errors of graphs"] = _errors
    for name, function in functions.items():
        slope = jax.grad(function)
        mine = np.asarray(slope(jnp.asarray(activations)), np.float64)
        with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
            right = np.asarray(slope(jnp.asarray(activations, jnp.float64)))
        error = np.linalg.norm(mine - right) / np.linalg.norm(right)
        yield f"{name}: relative error beside float64 on the processor", error, 1e-3


def _errors(activations):
    """Of the default bandwidth, whose derivative was NaN on a GPU once."""
    return channelwise_nnk_graph(activations, num_neighbors=6).errors.sum()


def training(small, precision):
    name, size = ("resnet8", 16) if small else ("resnet20", 64)
    model = models.create(name, num_classes=10)
    optimizer = make_optimizer("sgd", learning_rate=0.02, num_steps=1_000)
    images, labels = data.images_of(size, 32, num_classes=10)
    figures = Normalization(np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    variables = data.variables_of(model)

    def after(steps, device):
        put = functools.partial(jax.device_put, device=device)
        step = make_train_step(model, optimizer, normalization=figures)
        state = put(start_state(optimizer, jax.random.key(13), put(variables)))
        batch, losses = put(Batch(images, labels)), []
        for _ in range(steps):
            state, metrics = step(state, batch)
            losses.append(float(metrics.loss))
        return jax.tree.map(np.asarray, state.params), losses

    here = jax.devices()[0]
    losses = after(12, here)[1]
    yield "loss of the last steps over that of the first", np.mean(losses[-3:]) / losses[0], 0.95
    with jax.default_matmul_precision("highest"):
        right, right_losses = after(1, jax.devices("cpu")[0])
    params, losses = after(1, here)
    limit = 1e-3 if precision == "highest" else 0.3  # TF32 in the convs is the user's choice
    yield "loss beside the processor's", abs(losses[0] / right_losses[0] - 1), limit / 10
    pairs = zip(*map(jax.tree.leaves, (params, right, variables["params"])), strict=True)
    error, moved = 0.0, 0.0
    for mine, other, start in pairs:
        error += np.sum((mine - other) ** 2)
        moved += np.sum((other - np.asarray(start)) ** 2)
    yield "error of the first step beside the processor's", np.sqrt(error / moved), limit


def compaction(small, precision):
    model = models.create("resnet8" if small else "resnet20", num_classes=10)
    variables = data.variables_of(model)
    made = make_masks(
        variables["params"],
        criterion="weight",
        selection=KeepRate(0.5, "layer", whole_filters=True),
        include="layer*_*/conv1/kernel",
    )
    masked = {**variables, "params": apply_masks(variables["params"], made)}
    images = jax.random.normal(jax.random.key(14), (16, 32, 32, 3))

    def whole(variables, images):
        return model.apply(variables, images)[0]

    thinned, thin_variables = compact(whole, variables, made, images)
    logits = jax.jit(whole)(masked, images)
    error = jnp.abs(jax.jit(thinned)(thin_variables, images) - logits)
    limit = 1e-5 if precision == "highest" else 2e-2  # TF32 in the convs is the user's choice
    yield "largest difference of logits", float(jnp.max(error) / jnp.max(jnp.abs(logits))), limit
