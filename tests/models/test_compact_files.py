"""A compacted network is built again from its file, and files that describe none are refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jnnk import models
from jnnk.models.convnet import FIVE, ConvNet
from jnnk.models.resnet import ResNet
from jnnk.pruning import KeepRate, compact, make_masks


def draws(model, images):
    """Variables with shifts of either sign, so that dead filters are not zero."""
    leaves, treedef = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0), images))
    rng = np.random.default_rng(0)
    return treedef.unflatten(
        [jnp.asarray(rng.uniform(0.1, 1, leaf.shape), "f4") for leaf in leaves]
    )


def written(path, *, size=16, model=None, keep_rate=0.1):
    """A compacted network, its variables and images, written to ``path``."""
    model = model or ResNet(5, (1, 1), (8, 16), shortcut="B", bottleneck=True)
    images = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    variables = draws(model, images)
    masks = make_masks(
        variables["params"],
        criterion="weight",
        selection=KeepRate(keep_rate, "layer"),
        pointwise=True,
    )
    small, small_variables = compact(model, variables, masks)
    models.save_compact(small, small_variables, path, image_shape=images.shape[1:])
    return small, small_variables, images


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": ResNet(5, (1, 1), (8, 16), shortcut="A", dtype=jnp.bfloat16)},
        {"model": ResNet(3, (1,), (8,), stem="imagenet"), "keep_rate": 1.0},
        {"model": ConvNet(5, FIVE, 6, dropout=0.25), "size": 28},
    ],
    ids=["bottleneck", "bfloat16", "whole", "ConvNet"],
)
def test_the_same_network_comes_back(tmp_path, options):
    path = tmp_path / "net.safetensors"
    small, variables, images = written(path, **options)
    assert bool(small.thin) == (options.get("keep_rate") != 1.0)
    model, loaded = models.load_compact(path)
    assert model == small and type(model) is type(small)
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)
    logits = jax.jit(small.apply)(variables, images)[0]
    np.testing.assert_array_equal(jax.jit(model.apply)(loaded, images)[0], logits)
    again = models.load_safetensors(small, path, image_shape=images.shape[1:])
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), again, loaded)))


def rewrite(path, change):
    """Changes the description of the network in a file."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    network = json.loads(metadata["network"])
    change(network)
    save_file(load_file(path), path, metadata={**metadata, "network": json.dumps(network)})


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n.update(kind="os.system"),
        lambda n: n.update(kind=["ResNet"]),
        lambda n: n.pop("fields"),
        lambda n: n["fields"].update(num_classes=True),
        lambda n: n["fields"].update(num_classes=10**30),
        lambda n: n["fields"].update(stage_sizes=[10**5]),
        lambda n: n["fields"].update(stage_sizes={"a": 1}),
        lambda n: n["fields"].update(dtype="object"),
        lambda n: n["fields"].update(more=1),
        lambda n: n["fields"].pop("stem"),
        lambda n: n["fields"].update(thin=[]),
        lambda n: n["fields"]["thin"].update(nowhere={"width": 2}),
        lambda n: n["fields"]["thin"].update({"layer1_0/conv1": {"reads": [0, 8]}}),
        lambda n: n["fields"]["thin"].update({"layer1_0/conv3": {"writes": [0, 99]}}),
        lambda n: n["fields"]["thin"].update({"layer1_0/conv1": {"width": 2.0}}),
        lambda n: n["fields"]["thin"].update({"layer1_0/conv1": {"depth": 2}}),
        lambda n: n.update(image_shape=[16, 16]),
        lambda n: n.update(image_shape=[16, 16, -3]),
    ],
)
def test_other_descriptions_are_refused(tmp_path, change):
    path = tmp_path / "net.safetensors"
    written(path)
    rewrite(path, change)
    with pytest.raises(models.WeightsError, match="describes no network that is known here"):
        models.load_compact(path)


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    small, variables, _ = written(path)
    rewrite(path, lambda n: n["fields"].update(num_classes=6))
    with pytest.raises(models.WeightsError, match=r"2 tensors have another shape.*'fc\.bias'"):
        models.load_compact(path)
    models.save_safetensors(small, variables, path)
    with pytest.raises(models.WeightsError, match="no network described"):
        models.load_compact(path)
    for text in ("", "[" * 100_000, "null", "[]", '{"a": NaN}'):
        metadata = {"format": "jnnk network 1", "network": text}
        models.save_safetensors(small, variables, path, metadata=metadata)
        with pytest.raises(models.WeightsError, match="describes no network"):
            models.load_compact(path)
    path.write_bytes(b"x" * 100)
    with pytest.raises(models.WeightsError, match="not readable"):
        models.load_compact(path)
    with pytest.raises(models.WeightsError, match="expected one of ResNet, ConvNet, got Other"):
        models.save_compact(type("Other", (), {})(), variables, path)
