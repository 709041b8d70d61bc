"""Other functions and trees of thinned variables: training mode, heads, moments, files, exports."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export
from network.thinned import masked, random_like, random_masks, thin

from jnnk.models.resnet import ResNet
from jnnk.network._thinning_files import load_thinning, save_thinning

IMAGES = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))


class Network(nn.Module):
    """Two convs with BatchNorm and dropout, and two heads."""

    @nn.compact
    def __call__(self, x, train=False, head="one"):
        for name in ("first", "second"):
            x = nn.Conv(8, (3, 3), use_bias=False, name=name)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, name=f"{name}_norm")(x))
        x = nn.Dropout(0.5, deterministic=not train)(x).mean((1, 2))
        return nn.Dense(5, name=head)(x)


MODEL = Network()


@pytest.fixture(scope="module")
def variables():
    def both(key, images):
        one = MODEL.init(key, images)
        other = MODEL.init(key, images, head="other")
        return {**one, "params": {**other["params"], **one["params"]}}

    return random_like(jax.eval_shape(both, jax.random.key(1), IMAGES))


@pytest.fixture(scope="module")
def masks(variables):
    """Whole channels: filters, their norms' scales and shifts, and what reads them."""
    masks = jax.tree.map(lambda leaf: np.ones((1,) * leaf.ndim), variables["params"])
    for name, reader, shape in (("first", "second", (8, 1)), ("second", "one", (8, 1))):
        kept = np.array([1, 0, 1, 1, 0, 0, 1, 1.0])
        masks[name]["kernel"] = masks[name]["kernel"] * kept
        masks[f"{name}_norm"] = {"scale": kept, "bias": kept}
        masks[reader]["kernel"] = masks[reader]["kernel"] * kept.reshape(shape)
    return masks


@pytest.fixture(scope="module")
def thinning(variables, masks):
    return thin(MODEL.apply, variables, masks, IMAGES)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def train(variables, images, key):
    options = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": key}}
    return MODEL.apply(variables, images, **options)


def test_training_mode_updates_slim_statistics(variables, masks, thinning):
    small = thinning.variables(variables)
    assert small["params"]["first"]["kernel"].shape[3] < 8
    key = jax.random.key(3)
    logits, updates = jax.jit(thinning.function(train))(small, IMAGES, key)
    expected, of_all = jax.jit(train)(masked(variables, masks), IMAGES, key)
    close(logits, expected)
    slim = thinning.variables({**masked(variables, masks), **of_all})
    assert jax.tree.structure(updates) == jax.tree.structure(of_all)
    for one, other in zip(
        jax.tree.leaves(updates), jax.tree.leaves(slim["batch_stats"]), strict=True
    ):
        close(one, other)


def test_a_key_from_the_function_around_is_an_argument(variables, masks, thinning):
    @jax.jit
    def around(small, key):
        return thinning.function(lambda variables, images: train(variables, images, key)[0])(
            small, IMAGES
        )

    key = jax.random.key(3)
    expected = jax.jit(train)(masked(variables, masks), IMAGES, key)[0]
    close(around(thinning.variables(variables), key), expected)


def test_training_goes_on(variables, masks, thinning):
    small = thinning.variables(variables)
    apply = thinning.function(train)

    def loss(params, statistics, key):
        logits, updates = apply({"params": params, "batch_stats": statistics}, IMAGES, key)
        return (logits**2).mean(), updates

    optimiser = optax.sgd(1e-1, momentum=0.9)

    @jax.jit
    def step(params, statistics, state, key):
        (value, updates), gradients = jax.value_and_grad(loss, has_aux=True)(
            params, statistics, key
        )
        changes, state = optimiser.update(gradients, state)
        return optax.apply_updates(params, changes), updates["batch_stats"], state, value

    params, statistics = small["params"], small["batch_stats"]
    state, values = optimiser.init(params), []
    for number in range(5):
        params, statistics, state, value = step(params, statistics, state, jax.random.key(number))
        values.append(float(value))
    assert values[-1] < values[0]


def other_head(variables, images):
    return MODEL.apply(variables, images, head="other")


def test_another_head_reads_what_is_left(variables, masks, thinning):
    small = thinning.variables(variables)
    assert small["params"]["other"]["kernel"].shape == (8, 5)  # not read before: left whole
    close(
        jax.jit(thinning.function(other_head))(small, IMAGES),
        jax.jit(other_head)(masked(variables, masks), IMAGES),
    )


def test_a_head_that_reads_what_was_removed_is_refused(variables):
    masks = jax.tree.map(lambda leaf: np.ones((1,) * leaf.ndim), variables["params"])
    masks["one"]["kernel"] = np.array([1, 1, 0, 1, 1, 1, 0, 1.0]).reshape(8, 1)
    thinning = thin(MODEL.apply, variables, masks, IMAGES)
    small = thinning.variables(variables)
    assert small["params"]["second"]["kernel"].shape == (3, 3, 8, 6)
    with pytest.raises(ValueError, match=r"fn: expected .* removed weights of .*'second'"):
        jax.jit(thinning.function(other_head))(small, IMAGES)


def test_a_function_of_gradients_gives_slim_gradients():
    def network(variables, images):
        x = jax.lax.conv_general_dilated(
            images, variables["one"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = nn.relu(x + variables["shift"])
        return jax.lax.conv_general_dilated(
            x, variables["two"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def loss(variables, images):
        return (network(variables, images) ** 2).sum()

    variables = random_like(
        {"one": jnp.ones((3, 3, 3, 6)), "shift": jnp.ones(6), "two": jnp.ones((3, 3, 6, 4))}
    )
    kept = np.array([1, 1, 0, 1, 0, 1.0])
    masks = {"one": kept.reshape(1, 1, 1, 6), "shift": kept, "two": kept.reshape(1, 1, 6, 1)}
    thinning = thin(network, variables, masks, IMAGES)
    found = jax.jit(thinning.function(jax.grad(loss)))(thinning.variables(variables), IMAGES)
    expected = thinning.variables(jax.jit(jax.grad(loss))(masked(variables, masks), IMAGES))
    assert found["one"].shape == (3, 3, 3, 4)
    jax.tree.map(close, found, expected)


def test_moments_are_slimmed_like_the_variables(variables, thinning):
    state = optax.adam(1e-2).init(variables["params"])
    state = jax.tree.map(lambda leaf: leaf + 1, state)
    small = thinning.variables(state)
    params = thinning.variables(variables)["params"]
    assert small[0].count == 1
    for moments in (small[0].mu, small[0].nu):
        assert jax.tree.map(jnp.shape, moments) == jax.tree.map(jnp.shape, params)


def test_shapes_are_slimmed_like_arrays(variables, thinning):
    shapes = thinning.variables(jax.eval_shape(lambda: variables))
    small = thinning.variables(variables)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, small)
    traced = jax.eval_shape(thinning.variables, variables)
    assert jax.tree.map(jnp.shape, traced) == jax.tree.map(jnp.shape, small)


def test_trees_of_other_shapes_are_refused(variables, thinning):
    small = thinning.variables(variables)
    with pytest.raises(ValueError, match="tree: expected shape"):
        thinning.variables(small)
    with pytest.raises(ValueError, match="variables: expected the thinned shape"):
        thinning.function(MODEL.apply)(variables, IMAGES)
    with pytest.raises(ValueError, match="variables: expected the leaves that were thinned"):
        thinning.function(MODEL.apply)({"params": small["params"]}, IMAGES)


@pytest.fixture(scope="module")
def residual():
    model = ResNet(5, (1, 1), (8, 16))
    variables = random_like(jax.eval_shape(model.init, jax.random.key(1), IMAGES))
    return lambda v, x: model.apply(v, x)[0], variables, random_masks(variables["params"], 0.2)


def test_a_saved_thinning_is_the_same(residual, tmp_path):
    apply_fn, variables, masks = residual
    thinning = thin(apply_fn, variables, masks, IMAGES)
    save_thinning(thinning, tmp_path / "thinning.safetensors")
    loaded = load_thinning(tmp_path / "thinning.safetensors")
    small = thinning.variables(variables)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables(variables), small)
    np.testing.assert_array_equal(
        jax.jit(loaded.function(apply_fn))(small, IMAGES),
        jax.jit(thinning.function(apply_fn))(small, IMAGES),
    )


def test_an_export_runs_at_any_batch_size_on_all_platforms(residual):
    apply_fn, variables, masks = residual
    thinning = thin(apply_fn, variables, masks, IMAGES)
    small = thinning.variables(variables)
    (batch,) = export.symbolic_shape("batch")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), small)
    images = jax.ShapeDtypeStruct((batch, 8, 8, 3), jnp.float32)
    function = jax.jit(thinning.function(apply_fn))
    exported = export.export(function, platforms=("cpu", "cuda", "tpu"))(shapes, images)
    for size in (1, 3):
        close(
            exported.call(small, IMAGES[:size]),
            jax.jit(apply_fn)(masked(variables, masks), IMAGES[:size]),
        )
