"""Every public numerical function gives the same values under each of JAX's switches.

What is wrong while a program is traced (dtypes under x64, implicit ranks, leaked tracers) is found
by tracing alone, for the table of ``test_lowering`` and all its gradients.
"""

import contextlib
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_lowering as table

import jnnk
from jnnk import graphs, measures, pruning
from jnnk.measures import aggregate_consistency
from jnnk.penalties import PENALTIES

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(24, 6)).astype(np.float32)
LAYER = RNG.normal(size=(24, 2, 2, 3)).astype(np.float32)
#: In which every share of `aggregate_consistency` has something to be a share of.
UNEVEN = LAYER * np.float32([5, 1, 1])
LABELS = np.arange(24, dtype=np.int32) % 3
KERNELS = {n: RNG.normal(size=(n, n, 2, 3)).astype(np.float32) for n in (3, 5)}
CROSS = np.abs(RNG.normal(size=(8, 5))).astype(np.float32)
ROOTS = RNG.normal(size=(8, 5, 7)).astype(np.float32)

GRAPH_OF = partial(jnnk.nnk_graph, num_neighbors=4)
CHANNELS_OF = partial(jnnk.channelwise_nnk_graph, num_neighbors=4)


def of_graph(function):
    return lambda: function(GRAPH_OF(POINTS))


def of_channels(function):
    return lambda: function(CHANNELS_OF(LAYER))


def slope(function, argument):
    return lambda: jax.grad(lambda x: jnp.sum(function(x)))(jnp.asarray(argument))


def scores(name, size):
    return lambda kernel: pruning.kernel_scores(kernel, name, key=KEY)


CASES = {
    "nearest_neighbors": lambda: jnnk.nearest_neighbors(POINTS, POINTS, num_neighbors=4),
    "solve_nnk": lambda: jnnk.solve_nnk(ROOTS @ ROOTS.swapaxes(1, 2), CROSS),
    "solve_nnk slope": slope(
        lambda cross: jnnk.solve_nnk(ROOTS @ ROOTS.swapaxes(1, 2), cross).weights, CROSS
    ),
    "nnk_graph": lambda: GRAPH_OF(POINTS),
    "nnk_graph cosine": lambda: GRAPH_OF(POINTS, similarity=graphs.cosine()),
    "nnk_graph slope": slope(lambda x: GRAPH_OF(x).errors, POINTS),
    "channelwise_nnk_graph": lambda: CHANNELS_OF(LAYER),
    "channel_overlap": of_channels(
        lambda graph: [jnnk.channel_overlap(graph, kind=kind) for kind in measures.OVERLAP_KINDS]
    ),
    "chance_overlap": of_channels(partial(measures.chance_overlap, num_candidates=9)),
    "overlap_interval": of_channels(
        lambda graph: measures.overlap_interval(graph, KEY, num_resamples=3)
    ),
    "redundancy": of_channels(measures.redundancy),
    "redundancy_curve": of_channels(measures.redundancy_curve),
    "loo_error": of_graph(lambda graph: measures.loo_error(graph, LABELS, 3)),
    "label_interpolation": of_graph(lambda graph: measures.label_interpolation(graph, LABELS, 3)),
    "label_overlap": of_graph(lambda graph: measures.label_overlap(graph, LABELS)),
    "knn_graph": of_graph(partial(measures.knn_graph, similarity=graphs.gaussian())),
    "intrinsic_dimension": of_graph(measures.intrinsic_dimension),
    "aggregate_consistency": lambda: aggregate_consistency(
        UNEVEN, CHANNELS_OF(UNEVEN), GRAPH_OF(UNEVEN.reshape(24, -1))
    ),
    "linear_cka": lambda: measures.linear_cka(POINTS, LAYER),
    "channel_cka": lambda: measures.channel_cka(LAYER),
    **{f"penalty {name}": partial(PENALTIES[name], LAYER) for name in ("decorrelation", "cka")},
    **{f"penalty {name} slope": slope(PENALTIES[name], LAYER) for name in ("decorrelation", "cka")},
    "penalty overlap slope": slope(partial(jnnk.overlap_penalty, num_neighbors=4), LAYER),
    **{
        f"{name} at {size}x{size}{' slope' if is_slope else ''}": (
            slope(scores(name, size), KERNELS[size])
            if is_slope
            else partial(scores(name, size), KERNELS[size])
        )
        for name in pruning.CRITERIA
        for size in KERNELS
        for is_slope in (False, True)
        if size == 3 or name in ("det", "det_gram", "min_eig", "spectral_norm")
    },
    "make_masks": lambda: jnnk.make_masks(
        {"conv": {"kernel": KERNELS[3]}}, criterion="min_eig", keep_rate=0.5
    ),
}

SWITCHES = {
    "x64": lambda: jax.enable_x64(True),
    "disable_jit": jax.disable_jit,
    "debug_nans": lambda: jax.debug_nans(True),
    "rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
    "tracer_leaks": jax.checking_leaks,
    "bfloat16": lambda: jax.default_matmul_precision("bfloat16"),
}


@functools.cache
def expected(name):
    return jax.device_get(CASES[name]())


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("switch", SWITCHES)
def test_values(switch, name):
    without = expected(name)
    with SWITCHES[switch]():
        found = jax.device_get(CASES[name]())
    pairs = zip(jax.tree.leaves_with_path(found), jax.tree.leaves(without), strict=True)
    for (path, ours), theirs in pairs:
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        if theirs.dtype == np.float32:
            assert ours.dtype == np.float32
            scale = max(np.abs(theirs[np.isfinite(theirs)]).max(initial=0), 1e-6)
            # The certificate of a solved problem is made of rounding, in units of 1.
            is_certificate = "kkt_residual" in jax.tree_util.keystr(path)
            atol = 1e-6 if is_certificate else 1e-5 * scale
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=atol)
        else:
            np.testing.assert_array_equal(ours, theirs)


def total_of(function):
    def total(*inputs):
        return sum(
            leaf.sum()
            for leaf in jax.tree.leaves(function(*inputs))
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        )

    return jax.grad(total, allow_int=True)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", [n for n in (*table.SMOOTH, *table.DISCRETE) if n not in table.OF_NETWORKS]
)
def test_traces(name):
    function, arguments = {**table.SMOOTH, **table.DISCRETE}[name]
    with contextlib.ExitStack() as stack:
        for switch in ("x64", "rank_promotion", "tracer_leaks"):
            stack.enter_context(SWITCHES[switch]())
        jax.eval_shape(function, *arguments)
        if name in table.SMOOTH:
            jax.eval_shape(total_of(function), *arguments)
