"""Masks on disk, as safetensors."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jnnk.errors import InputError
from jnnk.masks import PyTree, conv_kernels, masks_from_layers
from jnnk.runs import write_bytes


def save_masks(path: str | os.PathLike[str], masks: PyTree) -> None:
    """Write a mask, the whole file or nothing.

    Args:
        path: file to write; one boolean tensor ``(Cin, Cout)`` for each conv kernel, named by its
            path in the tree.
        masks: a mask.
    """
    layers = {name: np.asarray(leaf[0, 0]) != 0 for name, leaf in conv_kernels(masks).items()}
    content = safetensors.numpy.save(layers, metadata={"format": "jnnk masks"})
    write_bytes(pathlib.Path(path), content)


def load_masks(path: str | os.PathLike[str], params: PyTree) -> PyTree:
    """Read a mask of the given parameters.

    Args:
        path: file written by ``save_masks``.
        params: the parameters that it masks.

    Returns:
        A mask with the treedef of ``params``.

    Raises:
        InputError: if the file cannot be read as safetensors or is the mask of another network.
    """
    try:
        layers = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: expected a safetensors file of masks: {error}") from error
    expected = {name: kernel.shape[2:] for name, kernel in conv_kernels(params).items()}
    found = {name: layer.shape for name, layer in layers.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{path}: mask of another network: at {name!r} the parameters have (Cin, Cout) "
                f"{expected.get(name)}, the file {found.get(name)}"
            )
    not_bool = [name for name, layer in layers.items() if layer.dtype != np.bool_]
    if not_bool:
        raise InputError(
            f"{path}: expected booleans at {not_bool[0]!r}, got {layers[not_bool[0]].dtype}"
        )
    return masks_from_layers(params, jax.tree.map(jnp.asarray, layers))
