"""Capture: the same numbers as one big forward pass, for a model that is not ours."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk import InputError
from jnnk.network import capture, layer_shapes


class Net(nn.Module):
    """Names in reverse alphabetical order, an odd map, a dense layer in front of the logits."""

    @nn.compact
    def __call__(self, images):
        activations = {}
        x = images.astype(jnp.float32) / 255
        for name, features, stride in (("stem", 4, 1), ("middle", 6, 2), ("last", 8, 2)):
            x = nn.relu(nn.Conv(features, (3, 3), strides=stride, name=name)(x))
            activations[name] = x
        return nn.Dense(5)(x.mean((1, 2))), activations


@pytest.fixture(scope="module")
def network():
    images = np.random.default_rng(0).integers(0, 256, (37, 13, 13, 3)).astype(np.uint8)
    net = Net()
    variables = jax.jit(net.init)(jax.random.key(0), images[:1])
    return net.apply, variables, images, jax.jit(net.apply)(variables, images)[1]


def test_layers_in_the_networks_order(network):
    apply_fn, variables, images, _ = network
    shapes = layer_shapes(apply_fn, variables, images)
    assert list(shapes.items()) == [
        ("stem", (13, 13, 4)),
        ("middle", (7, 7, 6)),
        ("last", (4, 4, 8)),
    ]


@pytest.mark.parametrize("memory_limit", [2**30, 60_000, 1])
def test_values_whatever_the_passes(network, memory_limit, tmp_path):
    apply_fn, variables, images, expected = network
    limits = {"batch_size": 16, "memory_limit": memory_limit, "directory": tmp_path}
    captured = list(capture(apply_fn, variables, images, **limits))
    assert [layer.name for layer in captured] == ["stem", "middle", "last"]
    for layer in captured:
        np.testing.assert_allclose(layer.values, expected[layer.name], atol=1e-5)
        assert layer.pooling == "none" and layer.window == 1
        mapped = isinstance(layer.values, np.memmap)
        assert mapped == (layer.values.nbytes > memory_limit)
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_layers_that_the_network_reports_itself(network):
    apply_fn, variables, images, expected = network
    captured = list(capture(apply_fn, variables, images, site="reported", batch_size=16))
    assert [layer.name for layer in captured] == ["stem", "middle", "last"]
    for layer in captured:
        np.testing.assert_allclose(layer.values, expected[layer.name], atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max", "subsample"])
def test_pooling_is_stated_and_done(network, pooling):
    apply_fn, variables, images, expected = network
    reduce = {"mean": np.mean, "max": np.max, "subsample": lambda x, axis: x[:, 0, 0]}[pooling]
    for layer in capture(apply_fn, variables, images, pooling=pooling, size=4):
        values = np.asarray(expected[layer.name])
        window = {"stem": 4, "middle": 2, "last": 1}[layer.name]
        assert (layer.pooling, layer.window) == (pooling, window)
        assert layer.values.shape == (37, 4, 4, values.shape[-1])
        for row, column in np.ndindex(4, 4):
            rows, columns = (slice(i * window, (i + 1) * window) for i in (row, column))
            expected_value = reduce(values[:, rows, columns], axis=(1, 2))
            np.testing.assert_allclose(layer.values[:, row, column], expected_value, atol=1e-5)


def test_subsets_and_storage(network):
    apply_fn, variables, images, expected = network
    captured = list(
        capture(
            apply_fn,
            variables,
            images,
            layers=["last", "stem"],
            channels={"last": [5, 1]},
            dtype="bfloat16",
        )
    )
    assert [layer.name for layer in captured] == ["last", "stem"]
    np.testing.assert_array_equal(captured[0].channels, [5, 1])
    np.testing.assert_array_equal(captured[1].channels, range(4))
    assert all(layer.values.dtype == jnp.bfloat16 for layer in captured)
    values = captured[0].values.astype(np.float32)
    np.testing.assert_allclose(values, expected["last"][..., [5, 1]], rtol=2**-7)


def test_unused_layers_are_not_computed():
    """A later layer that reports its calls stays silent unless it is asked for."""
    calls = []

    def report(x):
        calls.append(len(x))
        return np.asarray(x)

    def apply_fn(variables, images):
        early = images * variables
        late = jax.pure_callback(report, jax.ShapeDtypeStruct(early.shape, early.dtype), early)
        return late.sum((1, 2, 3)), {"early": early, "late": late}

    images = np.ones((6, 2, 2, 1), np.float32)
    (early,) = capture(
        apply_fn, jnp.float32(3), images, layers=["early"], site="reported", batch_size=4
    )
    np.testing.assert_array_equal(early.values, 3)
    assert not calls
    list(capture(apply_fn, jnp.float32(3), images, layers=["late"], site="reported", batch_size=4))
    assert calls == [4, 4]  # the last batch is filled up


def test_layers_behind_those_chosen_are_not_computed():
    calls = []

    def report(x):
        calls.append(len(x))
        return np.asarray(x)

    def apply_fn(variables, images):
        early = jax.nn.relu(jax.lax.conv(images, variables["early"], (1, 1), "SAME"))
        same = jax.ShapeDtypeStruct(early.shape, early.dtype)
        late = jax.lax.conv(
            jax.pure_callback(report, same, early), variables["late"], (1, 1), "SAME"
        )
        return late.sum((1, 2, 3))

    variables = {"early": jnp.ones((2, 1, 3, 3)), "late": jnp.ones((2, 2, 3, 3))}
    images = np.ones((4, 1, 5, 5), np.float32)
    (early,) = capture(apply_fn, variables, images, layers=["early"], batch_size=4)
    assert early.values.shape == (4, 5, 5, 2) and not calls
    list(capture(apply_fn, variables, images, layers=["late"], batch_size=4))
    assert calls == [4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ["first"]}, "no layer 'first'; the network has stem, middle, last"),
        ({"channels": {"first": [0]}}, "no layer 'first'"),
        ({"channels": {"stem": [4]}}, r"numbers in \[0, 4\), got \[4\]"),
        ({"pooling": "median", "size": 4}, "pooling: expected one of"),
        ({"pooling": "mean"}, "size: expected None without pooling"),
        ({"size": 4}, "size: expected None without pooling"),
        ({"pooling": "mean", "size": 0}, "size: expected a whole number of at least 1"),
        ({"dtype": "int8"}, "dtype: expected float32, bfloat16 or float16"),
        ({"dtype": np.float64}, "dtype: expected float32, bfloat16 or float16"),
        ({"dtype": "floaty"}, "dtype: expected float32, bfloat16 or float16, got 'floaty'"),
        ({"dtype": None}, "dtype: expected float32, bfloat16 or float16, got None"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"batch_size": True}, "batch_size: expected a whole number of at least 1, got True"),
        ({"batch_size": -3}, "batch_size: expected a whole number of at least 1, got -3"),
        ({"batch_size": 2.5}, "batch_size: expected a whole number of at least 1, got 2.5"),
        ({"batch_size": True}, "batch_size: expected a whole number of at least 1, got True"),
        ({"pooling": "mean", "size": 2.0}, "size: expected a whole number of at least 1, got 2.0"),
        ({"channels": {"stem": [0.7]}}, r"channels of layer 'stem': expected numbers in"),
        ({"site": "input"}, "site: expected one of activation, conv, reported, got 'input'"),
        ({"layers": "stem"}, r"layers: expected a list of names, such as \['stem'\]"),
    ],
)
def test_bad_input_is_named_before_any_work(network, arguments, message):
    apply_fn, variables, images, _ = network
    with pytest.raises(InputError, match=message):
        capture(apply_fn, variables, images, **arguments)


def test_no_images_and_dense_layers(network):
    apply_fn, variables, images, _ = network
    with pytest.raises(InputError, match="at least one image"):
        capture(apply_fn, variables, images[:0])
    with pytest.raises(InputError, match="'flat': expected activations"):
        capture(lambda v, x: (x, {"flat": x.reshape(len(x), -1)}), {}, images, site="reported")


def test_a_network_without_convolutions():
    def dense(variables, images):
        return images.reshape(len(images), -1) @ variables

    with pytest.raises(InputError, match="no convolution of it can be captured"):
        capture(dense, jnp.ones((12, 5)), np.ones((3, 2, 2, 3), np.float32))


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.bfloat16, np.dtype("bfloat16")])
def test_a_dtype_is_what_numpy_takes_for_one(network, dtype):
    apply_fn, variables, images, _ = network
    (layer,) = capture(apply_fn, variables, images[:2], layers=["stem"], dtype=dtype)
    assert layer.values.dtype == jnp.bfloat16


def test_float16_by_its_class(network):
    apply_fn, variables, images, _ = network
    (layer,) = capture(apply_fn, variables, images[:2], layers=["stem"], dtype=np.float16)
    assert layer.values.dtype == np.float16


def test_a_list_of_images_is_stacked(network):
    apply_fn, variables, images, expected = network
    (layer,) = capture(apply_fn, variables, list(images), layers=["last"], batch_size=np.int64(10))
    np.testing.assert_allclose(layer.values, expected["last"], atol=1e-5)
    for given, said in (
        ([images[0], images[0, :4]], "got some of other shapes"),
        ([], "at least one image"),
        (3, r"at least one image \(N, ...\), got shape \(\)"),
        (["a.png", "b.png"], "array of numbers, got dtype <U5"),
    ):
        with pytest.raises(InputError, match=said):
            capture(apply_fn, variables, given)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, images):
        return nn.Conv(2, (3, 3), name="conv")(images.astype(jnp.float32))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x, r"got an array float32\[1, 13, 13, 2\]"),
        (lambda x: (x, [x]), r"got \(an array .*, \[an array .*\]\)"),
        (lambda x: (x, x), r"got \(an array .*, an array .*\)"),
        (lambda x: (x, {"a": [x]}), r"got .*\{'a': \[an array float32.*\]\}"),
        (lambda x: (x, {3: x}), r"got .*\{3: an array"),
        (lambda x: (x, {"a": x}, x), r"got \(an array .*, \{'a': an array .*\}, an array"),
        (lambda x: {"a": x}, r"got \{'a': an array"),
        (lambda x: None, "got NoneType"),
        (lambda x: (x, None), r"got \(an array .*, NoneType\)"),
    ],
)
def test_a_network_that_returns_something_else(network, change, said):
    images = network[2]
    model = Plain()
    variables = model.init(jax.random.key(0), images[:1])
    message = rf"apply_fn: expected \(logits, \{{layer name: activations\}}\).*, {said}"
    for function in (capture, layer_shapes):
        with pytest.raises(InputError, match=message):
            function(lambda v, x: change(model.apply(v, x)), variables, images, site="reported")


def test_what_flax_captures_is_said_to_lie_deeper(network):
    images = network[2]
    model = Plain()
    variables = model.init(jax.random.key(0), images[:1])

    def flax(variables, images):
        return model.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])

    with pytest.raises(InputError, match=r"take the arrays out of state\['intermediates'\]"):
        capture(flax, variables, images, site="reported")

    def as_said(variables, images):
        output, state = flax(variables, images)
        return output, {"conv": state["intermediates"]["conv"]["__call__"][0]}

    (layer,) = capture(as_said, variables, images, site="reported")
    np.testing.assert_allclose(layer.values, model.apply(variables, images), atol=1e-5)
