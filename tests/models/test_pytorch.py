"""A pruned network goes back to PyTorch: networks written for PyTorch read the exported files.

Nothing here knows jnnk's models: the forward passes see tensors by PyTorch's names and in its
layout (OIHW, channels first) and nothing else. The one in JAX's primitives always runs; the one in
PyTorch where it is installed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from safetensors.numpy import load_file

import jnnk
from jnnk import models

CASES = [("resnet8", "A"), ("resnet8", "B"), ("convnet6", "A")]


def random_variables(model, side):
    """No zero biases or unit variances that could be lost unnoticed."""
    images = jnp.zeros((1, side, side, 3))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape).astype(np.float32) / 4
        return abs(values) + np.float32(0.5) if path[-1] in ("var", "scale") else values

    flat = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), images))
    return unflatten_dict({path: draw(path, leaf) for path, leaf in flat.items()})


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def exported(request, tmp_path_factory):
    """Files of a network, pruned and not, its masks, and what jnnk says of a few images."""
    name, shortcut = request.param
    model = models.create(name, num_classes=10, shortcut=shortcut)
    folder = tmp_path_factory.mktemp("exported")
    images = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype(np.float32)
    return export(model, random_variables(model, 16), images, folder)


def export(model, variables, images, folder):
    masks = jnnk.make_masks(variables["params"], criterion="weight", keep_rate=0.6)
    pruned = {**variables, "params": jnnk.apply_masks(variables["params"], masks)}
    models.save_safetensors(model, variables, folder / "whole.safetensors")
    models.save_safetensors(model, pruned, folder / "pruned.safetensors")
    models.save_masks(model, variables, masks, folder / "masks.safetensors")
    apply = jax.jit(model.apply)
    logits, whole_logits = apply(pruned, images)[0], apply(variables, images)[0]
    assert np.abs(logits - whole_logits).max() > 0.01 * np.abs(whole_logits).max()
    return folder, images.transpose(0, 3, 1, 2), np.asarray(logits)


def lax_forward(tensors, x):
    """Logits from PyTorch's tensors and images (N, C, H, W)."""

    def conv(x, name, stride=1):
        weight = tensors[f"{name}.weight"]
        pad = weight.shape[2] // 2
        y = lax.conv_general_dilated(x, weight, (stride, stride), [(pad, pad)] * 2)  # NCHW, OIHW
        return y + tensors[f"{name}.bias"][:, None, None] if f"{name}.bias" in tensors else y

    def norm(x, name):
        mean, var, weight, bias = (
            tensors[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / jnp.sqrt(var + 1e-5) * weight + bias

    def dense(x, name):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    if "conv0.weight" in tensors:
        for number in range(6):
            x = jnp.maximum(conv(x, f"conv{number}"), 0)
            if number % 2:
                x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max((3, 5))
        return dense(x.reshape(len(x), -1), "fc")
    x = jnp.maximum(norm(conv(x, "conv1"), "bn1"), 0)
    blocks = sorted({name.rsplit(".conv1", 1)[0] for name in tensors if ".conv1." in name})
    for block in blocks:
        stride = 2 if block[5] in "23" and block.endswith(".0") else 1
        y = jnp.maximum(norm(conv(x, f"{block}.conv1", stride), f"{block}.bn1"), 0)
        y = norm(conv(y, f"{block}.conv2"), f"{block}.bn2")
        if f"{block}.downsample.0.weight" in tensors:
            x = norm(conv(x, f"{block}.downsample.0", stride), f"{block}.downsample.1")
        elif y.shape != x.shape:
            side = (y.shape[1] - x.shape[1]) // 2
            x = jnp.pad(x[:, :, ::2, ::2], [(0, 0), (side, side), (0, 0), (0, 0)])
        x = jnp.maximum(x + y, 0)
    return dense(x.mean((2, 3)), "linear" if "linear.weight" in tensors else "fc")


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_files_alone_give_the_same_logits(exported):
    folder, images, logits = exported
    close(jax.jit(lax_forward)(load_file(folder / "pruned.safetensors"), images), logits)
    # The masks say the same as the zeros.
    whole, masks = (load_file(folder / f"{name}.safetensors") for name in ("whole", "masks"))
    assert masks.keys() == {f"{name}_mask" for name, tensor in whole.items() if tensor.ndim == 4}
    for name, mask in masks.items():
        weight = name.removesuffix("_mask")
        is_pointwise = mask.shape[2:] == (1, 1)  # not pruned unless asked for
        assert mask.dtype == bool and mask.mean() > 0 and (mask.mean() < 1) != is_pointwise
        whole[weight] = whole[weight] * mask
    pruned = load_file(folder / "pruned.safetensors")
    assert all(np.array_equal(tensor, pruned[name]) for name, tensor in whole.items())


def torch_network(tensors):
    """An ordinary PyTorch module with the names of the file, its weights not loaded."""
    import torch
    from torch import nn

    def conv(name, stride=1):
        out, into, size, _ = tensors[f"{name}.weight"].shape
        bias = f"{name}.bias" in tensors
        return nn.Conv2d(into, out, size, stride, size // 2, bias=bias)

    class Block(nn.Module):
        def __init__(self, name, stride):
            super().__init__()
            self.conv1, self.conv2 = conv(f"{name}.conv1", stride), conv(f"{name}.conv2")
            self.bn1, self.bn2 = (nn.BatchNorm2d(self.conv1.out_channels) for _ in range(2))
            if f"{name}.downsample.0.weight" in tensors:
                projection = conv(f"{name}.downsample.0", stride)
                self.downsample = nn.Sequential(projection, nn.BatchNorm2d(projection.out_channels))

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            if hasattr(self, "downsample"):
                x = self.downsample(x)
            elif x.shape != y.shape:
                side = (y.shape[1] - x.shape[1]) // 2
                x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
            return torch.relu(x + y)

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = conv("conv1"), nn.BatchNorm2d(len(tensors["conv1.weight"]))
            for stage in (1, 2, 3):
                names = {name.split(".")[1] for name in tensors if name.startswith(f"layer{stage}")}
                blocks = [
                    Block(f"layer{stage}.{k}", 2 if stage > 1 and k == 0 else 1)
                    for k in range(len(names))
                ]
                setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            self.head = "linear" if "linear.weight" in tensors else "fc"
            setattr(self, self.head, nn.Linear(*tensors[f"{self.head}.weight"].shape[::-1]))

        def forward(self, x):
            x = torch.relu(self.bn1(self.conv1(x)))
            x = self.layer3(self.layer2(self.layer1(x)))
            return getattr(self, self.head)(x.mean((2, 3)))

    class ConvNet(nn.Module):
        def __init__(self):
            super().__init__()
            for number in range(6):
                setattr(self, f"conv{number}", conv(f"conv{number}"))
            self.fc = nn.Linear(*tensors["fc.weight"].shape[::-1])

        def forward(self, x):
            for number in range(6):
                x = torch.relu(getattr(self, f"conv{number}")(x))
                if number % 2:
                    x = nn.functional.max_pool2d(x, 2)
            return self.fc(x.flatten(1))

    return (ConvNet() if "conv0.weight" in tensors else ResNet()).eval()


def torch_logits(network, images):
    import torch

    with torch.no_grad():
        return network(torch.from_numpy(np.array(images))).numpy()


def check_in_torch(folder, images, logits):
    from safetensors.torch import load_file as load_torch
    from torch.nn.utils import prune

    pruned, whole, masks = (
        load_torch(folder / f"{name}.safetensors") for name in ("pruned", "whole", "masks")
    )
    network = torch_network(pruned)
    network.load_state_dict(pruned)  # strict: every name is there and none is left over
    close(torch_logits(network, images), logits)
    # The whole network, pruned in PyTorch by our masks, is ready to be fine-tuned there.
    network = torch_network(whole)
    network.load_state_dict(whole)
    for name, mask in masks.items():
        module = network.get_submodule(name.removesuffix(".weight_mask"))
        prune.custom_from_mask(module, "weight", mask)
    close(torch_logits(network, images), logits)


def test_pytorch_gives_the_same_logits(exported):
    pytest.importorskip("torch", reason="PyTorch is not installed; the test above stands for it")
    check_in_torch(*exported)


def test_a_public_network_comes_from_pytorch_and_goes_back_pruned(shared, tmp_path):
    model = models.create("resnet20", num_classes=10)
    variables = models.load_safetensors(model, shared / "weights/resnet20_cifar10.safetensors")
    images = np.random.default_rng(1).normal(size=(4, 32, 32, 3)).astype(np.float32)
    folder, images, logits = export(model, variables, images, tmp_path)
    published = load_file(shared / "weights/resnet20_cifar10.safetensors")
    ours = load_file(folder / "whole.safetensors")
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, published[name])
    close(jax.jit(lax_forward)(load_file(folder / "pruned.safetensors"), images), logits)
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        return
    check_in_torch(folder, images, logits)
