"""Weights by the paths of leaves or under PyTorch's names, in the layout of any network."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import linen as nn

from jnnk import InputError
from jnnk.network import as_model, read
from jnnk.runs.weight_files import read_weights, write_weights

RANDOM = np.random.default_rng(0)


class Net(nn.Module):
    """Written as in PyTorch's tutorials: convs, pooling, a flattened map, dense layers."""

    transposed: bool = False

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(4, (3, 3), name="conv1")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn1")(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=2, name="conv2")(x))
        if self.transposed:
            x = x.transpose(0, 3, 1, 2)
        x = nn.relu(nn.Dense(5, name="fc1")(x.reshape(len(x), -1)))
        return nn.Dense(3, name="fc2")(x)


def made(module):
    """A model, shapes of its variables for images (6, 8, 2), and it as read."""
    model = as_model(module)
    image = jax.ShapeDtypeStruct((1, 6, 8, 2), jnp.float32)
    like = jax.eval_shape(model.init, jax.random.key(0), image)
    return model, like, read(lambda v, x: model.apply(v, x)[0], like, image)


def random(*shape):
    return RANDOM.standard_normal(shape).astype("f4")


def torch_tensors():
    return {
        "conv1.weight": random(4, 2, 3, 3), "conv1.bias": random(4),
        "bn1.weight": random(4), "bn1.bias": random(4), "bn1.running_mean": random(4),
        "bn1.running_var": RANDOM.uniform(0.5, 2, 4).astype("f4"),
        "bn1.num_batches_tracked": np.array(3),
        "conv2.weight": random(6, 2, 3, 3), "conv2.bias": random(6),
        "fc1.weight": random(5, 6 * 3 * 4), "fc1.bias": random(5),
        "fc2.weight": random(3, 5), "fc2.bias": random(3),
    }  # fmt: skip


def torch_logits(tensors, images):
    """What PyTorch's layers make of images (N, C, H, W), by NumPy and one conv of JAX."""

    def conv(x, name, groups=1):
        found = jax.lax.conv_general_dilated(
            x, tensors[f"{name}.weight"], (1, 1), [(1, 1), (1, 1)], feature_group_count=groups
        )
        return np.asarray(found) + tensors[f"{name}.bias"][:, None, None]

    def of_channels(name):
        return tensors[f"bn1.{name}"][:, None, None]

    x = conv(images, "conv1")
    x = (x - of_channels("running_mean")) / np.sqrt(of_channels("running_var") + 1e-5)
    x = np.maximum(x * of_channels("weight") + of_channels("bias"), 0)
    x = x.reshape(*x.shape[:2], 3, 2, 4, 2).max((3, 5))
    x = np.maximum(conv(x, "conv2", groups=2), 0).reshape(len(x), -1)
    x = np.maximum(x @ tensors["fc1.weight"].T + tensors["fc1.bias"], 0)
    return x @ tensors["fc2.weight"].T + tensors["fc2.bias"]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.model."])
def test_a_network_of_pytorch_s_gives_its_logits(transposed, prefix, tmp_path):
    model, like, network = made(Net(transposed))
    tensors = torch_tensors()
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file({f"{prefix}{name}": x for name, x in tensors.items()}, path)
    variables = read_weights(path, like, network=network)
    images = random(3, 6, 8, 2)
    logits, _ = model.apply(variables, images)
    np.testing.assert_allclose(
        logits, torch_logits(tensors, images.transpose(0, 3, 1, 2)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: name.replace("/", "."),
        lambda name: f"backbone.{name.replace('/', '.')}",
        lambda name: f"batch_stats/{name}" if name[-4:] in ("mean", "/var") else f"params/{name}",
    ],
)
def test_what_is_written_is_read(rename, tmp_path):
    _, like, network = made(Net())
    variables = jax.tree.map(lambda leaf: random(*leaf.shape), like)
    path = tmp_path / "net.safetensors"
    write_weights(path, variables)
    tensors = safetensors.numpy.load_file(path)
    assert {"conv1/kernel", "bn1/mean", "fc2/bias"} < set(tensors)
    safetensors.numpy.save_file({rename(name): each for name, each in tensors.items()}, path)
    found = read_weights(path, like, network=network)
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_numbers_without_axes_are_written_and_read(tmp_path):
    _, like, network = made(Net())
    like = {**like, "batch_stats": {**like["batch_stats"], "count": jnp.zeros((), jnp.int32)}}
    variables = jax.tree.map(lambda leaf: np.asarray(random(*leaf.shape), leaf.dtype), like)
    write_weights(tmp_path / "net.safetensors", variables)
    found = read_weights(tmp_path / "net.safetensors", like, network=network)
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_dtypes_that_numpy_lacks_are_refused_by_name(tmp_path):
    _, like, network = made(Net())
    header = json.dumps({"fc1.weight": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}})
    content = len(header).to_bytes(8, "little") + header.encode() + bytes(2)
    (tmp_path / "net.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"fc1.weight is F8_E4M3, a dtype that NumPy lacks"):
        read_weights(tmp_path / "net.safetensors", like, network=network)


def test_names_in_both_collections_keep_them(tmp_path):
    variables = {
        "params": {"conv": jnp.ones((3, 3, 2, 4)), "a": jnp.ones(2)},
        "batch_stats": {"a": jnp.zeros(2)},
    }
    network = read(
        lambda v, x: jax.lax.conv_general_dilated(
            x, v["params"]["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        variables,
        jnp.ones((1, 4, 4, 2)),
    )
    path = tmp_path / "net.safetensors"
    write_weights(path, variables)
    assert set(safetensors.numpy.load_file(path)) == {"conv", "params/a", "batch_stats/a"}
    found = read_weights(path, variables, network=network)
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_equinox_keeps_the_layout_of_pytorch(tmp_path):
    eqx = pytest.importorskip("equinox")

    class Module(eqx.Module):
        conv: eqx.nn.Conv2d
        fc: eqx.nn.Linear

        def __call__(self, x):
            return self.fc(jax.nn.relu(self.conv(x)).ravel())

    keys = jax.random.split(jax.random.key(0))
    module = Module(
        eqx.nn.Conv2d(2, 3, 3, padding=1, key=keys[0]), eqx.nn.Linear(3 * 6 * 8, 4, key=keys[1])
    )
    _, like, network = made(module)
    tensors = {
        "conv.weight": random(3, 2, 3, 3), "conv.bias": random(3),
        "fc.weight": random(4, 144), "fc.bias": random(4),
    }  # fmt: skip
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(tensors, path)
    params = read_weights(path, like, network=network)["params"]
    np.testing.assert_array_equal(params["conv"]["weight"], tensors["conv.weight"])
    np.testing.assert_array_equal(params["conv"]["bias"][:, 0, 0], tensors["conv.bias"])
    np.testing.assert_array_equal(params["fc"]["weight"], tensors["fc.weight"])


class Up(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.ConvTranspose(2, (2, 2), strides=(2, 2), name="up")(x).mean((1, 2))


def test_what_does_not_fit_is_listed(tmp_path):
    _, like, network = made(Net())
    path = tmp_path / "net.safetensors"

    def refused(tensors, like=like, network=network):
        safetensors.numpy.save_file(tensors, path)
        with pytest.raises(InputError) as caught:
            read_weights(path, like, network=network)
        return str(caught.value)

    tensors = torch_tensors()
    tensors.pop("fc2.bias")
    tensors["conv1.weight"] = random(4, 2, 5, 5)
    tensors["head.bias"] = random(3)
    said = refused(tensors)
    assert "params/fc2/bias is missing" in said and "head.bias is not known" in said
    assert "params/conv1/kernel: expected (3, 3, 2, 4), got (5, 5, 2, 4)" in said
    assert "; and 9 more" in refused({"head.bias": random(3)})
    names = {"fc2/bias": np.zeros(3, "i4")}
    variables = jax.tree.map(lambda leaf: random(*leaf.shape), like)
    write_weights(path, variables)
    whole = safetensors.numpy.load_file(path)
    assert "params/fc2/bias: expected float32, got int32" in refused({**whole, **names})
    path.write_bytes(b"no")
    with pytest.raises(InputError, match="not readable as safetensors"):
        read_weights(path, like, network=network)
    _, like, network = made(Up())
    # PyTorch has (inputs, outputs, h, w), and turned by half.
    said = refused({"up.weight": random(2, 2, 2, 2), "up.bias": random(2)}, like, network)
    assert "params/up/kernel: expected by this path" in said
