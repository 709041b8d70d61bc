import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jnnk import training
from jnnk.data import Normalization, epoch_order
from jnnk.penalties import make_regularizer
from jnnk.pruning import apply_masks, make_masks
from jnnk.training import Batch, update_patience

NORMALIZATION = Normalization(np.float32([0.5]), np.float32([0.25]))
#: Options of a step under a mask, compiled once for all tests that need one.
MASKED = {"weight_decay": 0.1, "masks_for": "weight", "l1": 1e-3}


class Net(nn.Module):
    """Two convs, BatchNorm and dropout: small, but with everything the step has to carry."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(images))
        x = nn.BatchNorm(use_running_average=not train, name="bn1")(x)
        first = x
        x = nn.Dropout(0.1, deterministic=not train)(x)
        x = nn.relu(nn.Conv(6, (3, 3), name="conv2")(x))
        return nn.Dense(3, name="fc")(x.mean((1, 2))), {"conv1": first, "conv2": x}


def make_batch(size=16, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, 8, 8, 1), dtype=np.uint8)
    return Batch(images, rng.integers(0, 3, size, dtype=np.int32))


def make(*args, **options):
    """Model, a state of its own and the step, which is compiled once for all tests."""
    model, state, step = made(*args, **options)
    return model, jax.tree.map(jnp.copy, state), step


@functools.cache
def initial():
    """A fresh state: its draws take longer to compile than all the rest."""
    transform = training.make_optimizer("sgd", learning_rate=0.1, num_steps=50)
    return training.init_state(Net(), transform, jax.random.key(0), image_shape=(8, 8, 1))


@functools.cache
def made(optimizer="sgd", *, weight_decay=5e-4, masks_for=None, **options):
    model = Net()
    transform = training.make_optimizer(
        optimizer, learning_rate=0.1, num_steps=50, weight_decay=weight_decay
    )
    masks = None
    if masks_for is not None:
        masks = make_masks(initial().params, criterion=masks_for, keep_rate=0.5)
    state = training.start_state(transform, initial().key, initial().variables, masks=masks)
    step = training.make_train_step(model, transform, normalization=NORMALIZATION, **options)
    return model, state, step


@pytest.fixture
def optax_promotion():
    """For Adam: Optax raises a float to the integer step count, which strict promotion bars."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def run(state, step, count, batch=None):
    batch = make_batch() if batch is None else batch
    for _ in range(count):
        state, metrics = step(state, batch)
    return state, metrics


def test_loss_falls_on_one_batch():
    _, state, step = make(augment=False)
    state, first = step(state, make_batch())
    state, last = run(state, step, 40)
    assert last.loss < 0.7 * first.loss
    assert int(state.step) == 41


def test_step_is_a_function_of_state_and_batch():
    _, state, step = make()
    twin = jax.tree.map(jnp.copy, state)
    once, _ = run(state, step, 3)
    again, _ = run(twin, step, 3)
    jax.tree.map(np.testing.assert_array_equal, once.params, again.params)


def test_state_is_donated():
    _, state, step = make()
    kernel = state.params["conv1"]["kernel"]
    step(state, make_batch())
    assert kernel.is_deleted()


def test_start_state_leaves_the_variables_to_the_caller():
    model, state, step = make()
    variables = jax.tree.map(jnp.copy, state.variables)
    transform = training.make_optimizer("sgd", learning_rate=0.1, num_steps=5)
    run(training.start_state(transform, jax.random.key(1), variables), step, 1)
    model.apply(variables, jnp.zeros((1, 8, 8, 1)))


def test_batch_statistics_move():
    _, state, step = make()
    before = np.asarray(state.batch_stats["bn1"]["mean"])
    state, _ = run(state, step, 1)
    assert not np.array_equal(before, state.batch_stats["bn1"]["mean"])


@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
def test_pruned_weights_stay_exactly_zero(optimizer, optax_promotion):
    _, state, step = make(optimizer, **MASKED)
    state, _ = run(state, step, 30)
    zeros = jax.tree.map(lambda p, m: p * (1 - m), state.params, state.masks)
    assert sum(int((m == 0).sum()) for m in jax.tree.leaves(state.masks)) == 14
    for leaf in jax.tree.leaves(zeros):
        np.testing.assert_array_equal(leaf, 0)
    jax.tree.map(
        np.testing.assert_array_equal, state.params, apply_masks(state.params, state.masks)
    )
    assert np.abs(state.params["conv2"]["kernel"]).max() > 0


@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
def test_weight_decay_spares_batchnorm_and_biases(optimizer, optax_promotion):
    params = {"conv1": {"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)}}
    transform = training.make_optimizer(
        optimizer, learning_rate=0.1, num_steps=10, weight_decay=0.5
    )
    masks = jax.tree.map(lambda _: jnp.ones(()), params)
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transform.update(grads, transform.init(params), params, masks=masks)
    assert (updates["conv1"]["kernel"] < 0).all()
    np.testing.assert_array_equal(updates["conv1"]["bias"], 0)


def test_l1_is_the_sum_over_conv_kernels_alone():
    _, state, step = make(**MASKED)
    expected = sum(
        np.abs(np.asarray(state.params[name]["kernel"], np.float64)).sum()
        for name in ("conv1", "conv2")
    )
    _, metrics = step(state, make_batch())
    np.testing.assert_allclose(metrics.penalty, MASKED["l1"] * expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.loss, metrics.cross_entropy + metrics.penalty, rtol=1e-6)


def test_regularizer_sees_activations_and_labels_and_is_differentiated():
    def regularizer(activations, labels, key):
        assert set(activations) == {"conv1", "conv2"} and labels.shape == (16,)
        return 3.0 * jnp.square(activations["conv2"]).mean()

    model, state, step = make(augment=False)
    _, regularised, with_penalty = make(augment=False, regularizer=regularizer)
    free, _ = run(state, step, 20)
    bound, metrics = run(regularised, with_penalty, 20)
    assert metrics.penalty > 0

    def energy(state):
        images = jnp.zeros((1, 8, 8, 1)) + 1.0
        return float(jnp.square(model.apply(state.variables, images)[1]["conv2"]).mean())

    assert energy(bound) < 0.5 * energy(free)


def test_evaluate_counts_the_last_partial_batch_once():
    model, state, _ = make()
    batch = make_batch(size=23)
    evaluate = training.make_evaluate(model, normalization=NORMALIZATION, batch_size=10)
    predict = training.make_predict(model, normalization=NORMALIZATION)
    logits, _ = predict(state.variables, batch.images)
    expected = np.mean(np.argmax(np.asarray(logits), axis=-1) == batch.labels)
    accuracy = evaluate(state.variables, batch.images, batch.labels)
    assert accuracy == pytest.approx(expected, abs=1e-6)


def test_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="expected one of sgd, adam, got 'lion'"):
        training.make_optimizer("lion", learning_rate=0.1, num_steps=1)


def test_cosine_schedule_ends_at_zero():
    transform = training.make_optimizer("sgd", learning_rate=0.1, num_steps=5)
    params = {"fc": {"kernel": jnp.ones((2, 2))}}
    masks = {"fc": {"kernel": jnp.ones(())}}
    state = transform.init(params)
    for _ in range(5):
        updates, state = transform.update(params, state, params, masks=masks)
    updates, _ = transform.update(params, state, params, masks=masks)
    np.testing.assert_allclose(updates["fc"]["kernel"], 0, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        *[
            (
                training.make_optimizer,
                {"name": "sgd", "learning_rate": 0.1, "num_steps": 5} | wrong,
                said,
            )
            for wrong, said in (
                ({"learning_rate": -0.1}, "learning_rate: expected a finite number of 0 or more"),
                ({"learning_rate": np.nan}, "learning_rate: .* got nan"),
                ({"learning_rate": np.inf}, "learning_rate: .* got inf"),
                ({"weight_decay": -1.0}, "weight_decay: .* got -1.0"),
                ({"weight_decay": np.nan}, "weight_decay: .* got nan"),
                ({"num_steps": -1}, "num_steps: .* got -1"),
                ({"momentum": 1.0}, "momentum: expected a number of 0 or more and below 1, got 1"),
                ({"momentum": np.nan}, "momentum: .* got nan"),
            )
        ],
        *[
            (
                functools.partial(make, Net(), *first),
                {"normalization": NORMALIZATION._replace(**wrong)},
                said,
            )
            for make, first in (
                (training.make_train_step, [None]),
                (training.make_predict, []),
                (training.make_evaluate, []),
            )
            for wrong, said in (
                ({"std": np.zeros(1)}, "std: expected numbers that are finite and above 0"),
                ({"std": np.array([0.1, -0.1])}, "std: "),
                ({"std": np.array([np.inf])}, "std: "),
                ({"mean": np.array([np.nan])}, "mean: expected numbers that are finite"),
            )
        ],
        (
            functools.partial(training.make_train_step, Net(), None),
            {"normalization": NORMALIZATION, "l1": -1},
            "l1: ",
        ),
        (
            functools.partial(training.make_evaluate, Net()),
            {"normalization": NORMALIZATION, "batch_size": 0},
            "batch_size: expected a whole number",
        ),
        (
            make_regularizer,
            {"name": "cka", "strength": np.nan},
            "strength: expected a finite number",
        ),
        (
            epoch_order,
            {"num_examples": 3, "seed": -1, "epoch": 0},
            "seed: expected a whole number of at least 0, got -1",
        ),
        (
            epoch_order,
            {"num_examples": -3, "seed": 0, "epoch": 0},
            "num_examples: expected a whole number of at least 0",
        ),
        (
            epoch_order,
            {"num_examples": 3, "seed": 0, "epoch": -1},
            "epoch: expected a whole number of at least 0",
        ),
        (
            update_patience,
            {"state": None, "errors": None, "patience": 0},
            "patience: expected a whole number",
        ),
    ],
)
def test_numbers_without_meaning(make, options, said):
    with pytest.raises(ValueError, match=said):
        make(**options)
