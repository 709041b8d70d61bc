"""The compacted network gives the masked network's logits."""

import jax
import jax.numpy as jnp
import numpy as np

from jnnk import models
from jnnk.network import compact, read
from jnnk.pruning import (
    KeepRate,
    apply_masks,
    channel_masks,
    make_masks,
)

IMAGES = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))


def random_variables(model):
    """Variables with shifts and statistics of either sign, so that dead filters are not zero."""
    shapes = jax.eval_shape(model.init, jax.random.key(1), IMAGES)
    leaves, treedef = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    variables = treedef.unflatten([rng.normal(size=s.shape).astype(np.float32) for s in leaves])
    scaled = jax.tree.map(
        lambda v: jnp.asarray(v / max(1, np.prod(v.shape[:-1])) ** 0.5), variables
    )
    if "batch_stats" in scaled:
        scaled["batch_stats"] = jax.tree.map(jnp.abs, scaled["batch_stats"])
    return scaled


def check_same_logits(model, variables, masks, images=IMAGES):
    def logits(variables, images):
        return model.apply(variables, images)[0]

    small, small_variables = compact(logits, variables, masks, images)
    masked = {**variables, "params": apply_masks(variables["params"], masks)}
    with jax.default_matmul_precision("highest"):  # a GPU's own is good to three digits
        expected = np.asarray(jax.jit(logits)(masked, images))
        found = np.asarray(jax.jit(small)(small_variables, images))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    return small, small_variables


def widths(variables, path):
    """Input channels and filters of a conv."""
    for name in path.split("/"):
        variables = variables[name]
    return variables["kernel"].shape[2:]


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_resnet20_with_half_its_inner_filters(shared):
    model = models.create("resnet20", num_classes=10)
    variables = models.load_safetensors(model, shared / "weights/resnet20_cifar10.safetensors")
    masks = make_masks(
        variables["params"],
        criterion="weight",
        selection=KeepRate(0.5, "layer", whole_filters=True),
        include="layer*_*/conv1/kernel",
    )
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    small, small_variables = check_same_logits(model, variables, masks, images)

    whole = read(lambda v, x: model.apply(v, x)[0], variables, images)
    left = read(small, small_variables, images)
    # The mask kills conv1's filters; conv2 no longer reads them.
    inner = sum(conv.macs for conv in whole.convs if conv.name.startswith("layer"))
    assert sum(conv.macs for conv in left.convs) == (
        sum(conv.macs for conv in whole.convs) - inner // 2
    )
    assert count(small_variables) < 0.55 * count(variables)


def test_half_of_every_stream(shared):
    """Half the channels of all streams and of all inner convs: a quarter of the weights is left."""
    model = models.create("resnet20", num_classes=10, shortcut="B")
    variables = random_variables(model)
    network = read(lambda v, x: model.apply(v, x)[0], variables, IMAGES)
    masks = channel_masks(variables["params"], network, "l1_norm", keep_rate=0.5, streams=True)
    _, small = check_same_logits(model, variables, masks)
    for stage, width in ((1, 8), (2, 16), (3, 32)):
        for block in range(3):
            for conv in ("conv1", "conv2"):
                before = width // 2 if stage > 1 and block == 0 and conv == "conv1" else width
                assert widths(small["params"], f"layer{stage}_{block}/{conv}") == (before, width)
    assert count(small) < 0.27 * count(variables)
