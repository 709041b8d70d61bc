"""Every public numerical function lowers for CPU, CUDA and TPU, forward and gradient.

No device is needed for that. What would not run there or would run slowly is looked for in the
program: calls back to Python, float64, eigenvalues of nonsymmetric matrices.
"""

import inspect
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jnnk
from jnnk import data, graphs, measures, models, network, parallel, penalties, pruning, training
from jnnk.measures import aggregate_consistency
from jnnk.penalties import PENALTIES, SOFT_OVERLAP_KINDS, make_regularizer
from jnnk.penalties import _channel_pairs as channel_pairs
from jnnk.pruning import CHANNEL_CRITERIA, channel_masks
from jnnk.pruning import _kept as kept
from jnnk.pruning._channels import OF_GRAPHS

PLATFORMS = ("cpu", "cuda", "tpu")
#: Left to itself, XLA multiplies float32 in bfloat16 on a TPU: see `jnnk._core.precision.contract`.
LOOSE_PRODUCT = re.compile(r"^.*= stablehlo\.dot_general(?!.*HIGHEST).*f32.*$", re.MULTILINE)
#: Networks, their training and what is derived through them multiply as JAX is told to.
OF_NETWORKS = {"resnet8", "convnet5", "taylor_scores", "taylor_channel_scores"}
# Constants have hexadecimal digits, such as 3F64.
FORBIDDEN = re.compile(r"(?i:callback|lapack_[sd]geev|\beig\b)|f64")


def array(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def graph_of(function, *arguments, **options):
    return jax.eval_shape(partial(function, **options), *arguments)


ACTIVATIONS = array(300, 2, 2, 3)
POINTS = array(300, 12)
CHANNELS = graph_of(jnnk.channelwise_nnk_graph, ACTIVATIONS, num_neighbors=4)
MANY_CHANNELS = graph_of(jnnk.channelwise_nnk_graph, array(40, 2, 2, 256), num_neighbors=4)
GRAPH = graph_of(jnnk.nnk_graph, POINTS, num_neighbors=4)
LABELS = array(300, dtype="int32")
KEY = jax.random.key(0)
KEY_DATA = array(2, dtype="uint32")
OPTIMIZER = training.make_optimizer("sgd", learning_rate=0.1, num_steps=9)
DISTANCES = array(300, 4)
IMAGES = array(8, 8, 8, 3)
KERNELS = [array(*size, 2, 5) for size in ((3, 3), (5, 5), (1, 3))]
MODEL = models.create("resnet8", num_classes=10)
VARIABLES = jax.eval_shape(MODEL.init, KEY, IMAGES)
PARAMS = VARIABLES["params"]
NETWORK = network.read(
    lambda variables, images: MODEL.apply(variables, images)[0], VARIABLES, IMAGES
)
BATCHES = array(2, *IMAGES.shape)
MESH = parallel.parse_mesh("data=1,channel=1")


def all_scores(kernels):
    """Every criterion at 3x3; beyond, the methods for eigenvalues and for singular values."""
    square, *others = kernels
    return [pruning.kernel_scores(square, name, key=KEY) for name in pruning.CRITERIA] + [
        pruning.kernel_scores(kernel, name)
        for kernel in others
        for name in ("spectral_radius", "spectral_norm")
    ]


def channel_choice(params):
    """By the criteria that need no graph; the others go by ``redundancy_curve``."""
    names = [name for name in CHANNEL_CRITERIA if name not in OF_GRAPHS]
    return [channel_masks(params, NETWORK, name, keep_rate=0.5, key=KEY) for name in names]


def kept_above_zero(params):
    kernels = pruning.pruned_kernels(params)
    kept = {f"{path}/kernel": kernel.mean((0, 1)) > 0 for path, kernel in kernels.items()}
    return pruning.masks_from_layers(params, kept)


def total_logits(params, images):
    return MODEL.apply(jax.tree.map(jnp.zeros_like, VARIABLES) | {"params": params}, images)[
        0
    ].sum()


def frozen(params):
    return training.trainable_masks(params, {"conv1": jnp.ones(16, bool)}, network=NETWORK)


def state_of(params):
    return training.start_state(OPTIMIZER, KEY, {"params": params})


def regularized(activations):
    layers = {"conv1": activations}
    return [make_regularizer(name, strength=1.0)(layers, None, KEY) for name in PENALTIES]


# Public function -> (a function of arrays that calls it, their shapes).
SMOOTH = {
    "solve_nnk": (jnnk.solve_nnk, (array(300, 9, 9), array(300, 9))),
    "nnk_graph": (partial(jnnk.nnk_graph, num_neighbors=4), (POINTS,)),
    "nnk_graph cosine": (
        partial(jnnk.nnk_graph, num_neighbors=4, similarity=graphs.cosine()),
        (POINTS,),
    ),
    "channelwise_nnk_graph": (partial(jnnk.channelwise_nnk_graph, num_neighbors=4), (ACTIVATIONS,)),
    "sharded_nnk_graph": (
        partial(graphs.sharded_nnk_graph, mesh=MESH, num_neighbors=4),
        (ACTIVATIONS,),
    ),
    "channel_overlap": (
        lambda graph: [jnnk.channel_overlap(graph, kind=kind) for kind in measures.OVERLAP_KINDS],
        (CHANNELS,),
    ),
    "label_interpolation": (
        lambda graph, labels: measures.label_interpolation(graph, labels, 10),
        (GRAPH, LABELS),
    ),
    "label_vote": (
        lambda graph, labels: measures.label_vote(graph, labels, 10),
        (CHANNELS, LABELS),
    ),
    "channel_vote": (measures.channel_vote, (array(3, 300, 10),)),
    "cross_overlap": (
        lambda graph, other: [
            measures.cross_overlap(graph, other, kind=kind) for kind in measures.OVERLAP_KINDS
        ],
        (CHANNELS, CHANNELS),
    ),
    "soft_channel_overlap": (
        partial(penalties.soft_channel_overlap, num_neighbors=4),
        (array(32, 4, 4, 3),),
    ),
    "two_nn": (measures.two_nn, (DISTANCES,)),
    "gride": (measures.gride, (DISTANCES,)),
    "maximum_likelihood_dimension": (measures.maximum_likelihood_dimension, (DISTANCES,)),
    "linear_cka": (measures.linear_cka, (POINTS, POINTS)),
    "channel_cka": (measures.channel_cka, (ACTIVATIONS,)),
    "kernel_scores": (all_scores, (KERNELS,)),
    "singular_values": (pruning.singular_values, (array(4, 4, 7),)),
    "determinant": (pruning.determinant, (array(3, 3, 7),)),
    "gram_determinant": (pruning.gram_determinant, (array(3, 3, 7),)),
    **{
        f"overlap_penalty {kind}": (
            partial(jnnk.overlap_penalty, num_neighbors=4, kind=kind),
            (array(32, 4, 4, 3),),
        )
        for kind in SOFT_OVERLAP_KINDS
    },
    "decorrelation_penalty": (penalties.decorrelation_penalty, (ACTIVATIONS,)),
    "cka_penalty": (penalties.cka_penalty, (ACTIVATIONS,)),
    "make_regularizer": (regularized, (array(32, 4, 4, 3),)),
    "apply_masks": (jnnk.apply_masks, (PARAMS, PARAMS)),
    "taylor_scores": (partial(pruning.taylor_scores, total_logits), (PARAMS, BATCHES)),
    "taylor_channel_scores": (
        partial(pruning.taylor_channel_scores, total_logits, network=NETWORK),
        (PARAMS, BATCHES),
    ),
    "l1_penalty": (training.l1_penalty, (PARAMS,)),
    "normalize": (data.normalize, (IMAGES, data.Normalization(array(3), array(3)))),
    "pad_crop_flip": (lambda images: training.pad_crop_flip(KEY, images), (IMAGES,)),
    "channel_points": (
        lambda x: channel_pairs.channel_points(x, num_channels=2, key=KEY)[0],
        (ACTIVATIONS,),
    ),
    "knn_graph": (partial(measures.knn_graph, similarity=graphs.gaussian()), (GRAPH,)),
    "resnet8": (MODEL.apply, (VARIABLES, IMAGES)),
    "convnet5": (
        models.create("convnet5", num_classes=2).apply,
        (
            jax.eval_shape(models.create("convnet5", num_classes=2).init, KEY, array(1, 32, 32, 3)),
            array(4, 32, 32, 3),
        ),
    ),
}
DISCRETE = {
    "nearest_neighbors": (partial(jnnk.nearest_neighbors, num_neighbors=4), (POINTS, POINTS)),
    "nearest_neighbors approximate": (
        partial(jnnk.nearest_neighbors, num_neighbors=4, method="approximate"),
        (POINTS, POINTS),
    ),
    "eigenvalues": (pruning.eigenvalues, (array(3, 3, 7),)),
    "overlap_interval": (
        lambda graph: measures.overlap_interval(graph, KEY, num_resamples=3),
        (CHANNELS,),
    ),
    "channel_overlap of many channels": (jnnk.channel_overlap, (MANY_CHANNELS,)),
    "chance_overlap": (partial(measures.chance_overlap, num_candidates=99), (CHANNELS,)),
    "overlap_by_image": (measures.overlap_by_image, (CHANNELS,)),
    "redundancy": (measures.redundancy, (CHANNELS,)),
    "redundancy_by_image": (measures.redundancy_by_image, (CHANNELS,)),
    "redundancy_curve": (measures.redundancy_curve, (CHANNELS,)),
    "channels_to_cover": (
        lambda graph: measures.channels_to_cover(
            measures.redundancy_curve(graph), jnp.float32([0.9])
        ),
        (CHANNELS,),
    ),
    "overlap_resamples": (
        lambda graph: measures.overlap_resamples(graph, KEY, num_resamples=3),
        (CHANNELS,),
    ),
    "aggregate_consistency": (aggregate_consistency, (ACTIVATIONS, CHANNELS, GRAPH)),
    "intrinsic_dimension": (measures.intrinsic_dimension, (GRAPH,)),
    "nnk_degree": (measures.nnk_degree, (GRAPH,)),
    "predicted_label": (measures.predicted_label, (array(300, 10),)),
    "error_rate": (measures.error_rate, (array(300, 10), LABELS)),
    "loo_error": (lambda graph, y: measures.loo_error(graph, y, 10), (GRAPH, LABELS)),
    "label_overlap": (measures.label_overlap, (GRAPH, LABELS)),
    "make_masks": (
        lambda p: jnnk.make_masks(p, criterion="min_eig", keep_rate=0.5),
        (PARAMS,),
    ),
    "channel_masks": (channel_choice, (PARAMS,)),
    "contributes": (partial(kept.contributes, contribution=0.1), (array(3, 5),)),
    "contributes_exactly": (partial(kept.contributes_exactly, contribution=0.1), (array(3, 5),)),
    "above_threshold": (partial(kept.above_threshold, threshold=0.1), (array(3, 5),)),
    "trainable_masks": (frozen, (PARAMS,)),
    "masks_from_layers": (kept_above_zero, (PARAMS,)),
    "init_state": (
        lambda key: (
            training.init_state(
                MODEL, OPTIMIZER, jax.random.wrap_key_data(key), image_shape=(8, 8, 3)
            ).params
        ),
        (KEY_DATA,),
    ),
    "start_state": (
        lambda key, variables: (
            training.start_state(OPTIMIZER, jax.random.wrap_key_data(key), variables).params
        ),
        (KEY_DATA, VARIABLES),
    ),
    "start_freezing": (
        lambda params: training.start_freezing(state_of(params)).trainable,
        (PARAMS,),
    ),
    "freeze": (
        lambda params: training.freeze(state_of(params), frozen(params)).trainable,
        (PARAMS,),
    ),
    "pruned_kernels": (pruning.pruned_kernels, (PARAMS,)),
    "start_patience": (lambda: training.start_patience((3,)), ()),
    "update_patience": (
        lambda x: training.update_patience(training.start_patience((3,)), x, patience=2),
        (array(3),),
    ),
}


def assert_lowers(function, arguments):
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    assert exported.platforms == PLATFORMS
    program = exported.mlir_module()
    assert FORBIDDEN.findall(program) == []
    return program


def assert_multiplies_in_full(name, program):
    found = LOOSE_PRODUCT.findall(program)
    name = name.split()[0]
    assert name in OF_NETWORKS or found == []


@pytest.mark.parametrize("name", [*SMOOTH, *DISCRETE])
def test_forward(name):
    program = assert_lowers(*{**SMOOTH, **DISCRETE}[name])
    assert_multiplies_in_full(name, program)


@pytest.mark.thorough
@pytest.mark.parametrize("name", SMOOTH)
def test_gradient(name):
    function, arguments = SMOOTH[name]

    def total(*inputs):
        return sum(
            leaf.sum()
            for leaf in jax.tree.leaves(function(*inputs))
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        )

    gradient = jax.grad(total, allow_int=True)
    program = assert_lowers(gradient, arguments)
    assert_multiplies_in_full(name, program)
    assert not extremes_compared(jax.make_jaxpr(gradient)(*arguments).jaxpr)


def extremes_compared(jaxpr):
    """Comparisons of numbers with their own largest or smallest, as in the derivative of a maximum.

    A GPU may compute the numbers twice, in two kernels that round differently: then none of them
    is equal to the maximum, and the derivative is 0/0.
    """
    made, found = {}, []

    def source_of(operand):
        return None if hasattr(operand, "val") else made.get(operand)  # literals are not hashable

    for equation in jaxpr.eqns:
        made |= dict.fromkeys(equation.outvars, equation)
        for value in jax.tree.leaves(equation.params):
            inner = getattr(value, "jaxpr", value)
            found += extremes_compared(inner) if hasattr(inner, "eqns") else []
        if equation.primitive.name == "eq":
            for source in map(source_of, equation.invars):
                while source and source.primitive.name in ("broadcast_in_dim", "reshape"):
                    source = source_of(source.invars[0])
                if source and source.primitive.name in ("reduce_max", "reduce_min"):
                    found.append(equation)
    return found


def test_a_comparison_with_the_maximum_is_found():
    for function, is_found in ((jnp.max, True), (jnp.min, True), (jnp.sum, False)):
        gradient = jax.grad(lambda x, function=function: function(x * x))
        assert bool(extremes_compared(jax.make_jaxpr(gradient)(POINTS).jaxpr)) == is_found


def test_a_loose_product_is_found():
    for precision, is_loose in ((None, True), (jax.lax.Precision.HIGHEST, False)):
        program = assert_lowers(partial(jnp.matmul, precision=precision), (POINTS, array(12, 5)))
        assert bool(LOOSE_PRODUCT.findall(program)) == is_loose


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_whole_training_step(optimizer):
    """Augmentation, forward, regulariser, gradient, masked and freezable update."""
    optimizer = training.freezable(
        training.make_optimizer(optimizer, learning_rate=0.1, num_steps=9)
    )
    step = training.make_train_step(
        MODEL, optimizer, l1=1e-4,
        normalization=data.Normalization(np.float32([0.5]), np.float32([0.2])),
        regularizer=make_regularizer("overlap", strength=0.5, layers=("layer3*",)),
    )  # fmt: skip

    def from_variables(key_data, variables, masks, batch):
        key = jax.random.wrap_key_data(key_data)
        state = training.start_state(optimizer, key, variables, masks=masks)
        state, metrics = step(training.start_freezing(state), batch)
        return state.params, optax.tree.norm(state.params), metrics

    batch = training.Batch(array(32, 8, 8, 3, dtype="uint8"), array(32, dtype="int32"))
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam
        masks = jax.eval_shape(
            lambda p: jnnk.make_masks(p, criterion="weight", keep_rate=1.0), PARAMS
        )
        assert_lowers(from_variables, (KEY_DATA, VARIABLES, masks, batch))


def returns_arrays(function):
    """Whether a function's annotation says so: an array, a dict or a NamedTuple of some."""
    returned = inspect.signature(inspect.unwrap(function)).return_annotation
    kinds = returned.__annotations__.values() if hasattr(returned, "_fields") else [returned]
    return "Callable" not in str(returned) and any(
        re.search(r"(?<!nd)Array\b", str(kind)) for kind in kinds
    )


def test_the_table_has_every_public_numerical_function():
    """A function that is added to these packages needs a line above."""
    tested = {name.split()[0] for name in (*SMOOTH, *DISCRETE)}
    public = [
        (name, getattr(package, name))
        for package in (graphs, measures, penalties, pruning, training)
        for name in package.__all__
    ]
    functions = {name: value for name, value in public if inspect.isfunction(inspect.unwrap(value))}
    numerical = {name for name, function in functions.items() if returns_arrays(function)}
    assert len(numerical) > 40 and "solve_nnk" in numerical and "mean_interval" not in numerical
    assert numerical <= tested
