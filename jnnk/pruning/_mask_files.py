"""Masks on disk, as safetensors."""

import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jnnk._core.errors import InputError
from jnnk.files.safe_files import open_file, replace_file, resolved
from jnnk.network import Network
from jnnk.network._names import PyTree, named_leaves
from jnnk.parallel import on_first
from jnnk.pruning._conv_leaves import conv_leaves
from jnnk.pruning._masks import masks_from_layers


def save_masks(
    path: str | os.PathLike[str], masks: PyTree, *, network: Network | None = None
) -> None:
    """Writes a mask, the whole file or nothing.

    Of several processes all must call it, and the first one writes.

    Args:
        path: file to write; one boolean tensor ``(Cin, Cout)`` for each conv kernel, named by its
            path in the tree.
        masks: a mask.
        network: the one that it was made with, if it was made with one.

    Raises:
        InputError: if a folder on the way is a link.
        OSError: naming the file, if it cannot be written.
    """
    leaves, convs = named_leaves(masks), conv_leaves(masks, network=network)
    layers = {name: np.asarray(conv.keep(leaves[name])) for name, conv in convs.items()}
    content = safetensors.numpy.save(layers, metadata={"format": "jnnk masks"})
    path = resolved(pathlib.Path(path).parent) / pathlib.Path(path).name
    on_first(lambda: replace_file(path, content), name=f"writing {path}")


def load_masks(
    path: str | os.PathLike[str], params: PyTree, *, network: Network | None = None
) -> PyTree:
    """Reads a mask of the given parameters.

    Args:
        path: file written by ``save_masks``.
        params: the parameters that it masks.
        network: as `jnnk.network.read` reads it; without it kernels are told as by
            `jnnk.make_masks`.

    Returns:
        A mask with the treedef of ``params``.

    Raises:
        InputError: if the file cannot be read as safetensors or is the mask of another network.
    """
    convs = conv_leaves(params, network=network)
    expected = {name: conv.kernel_shape[2:] for name, conv in convs.items()}
    try:
        open_file(path).close()  # of a FIFO or device, safetensors would wait
        opened: Any = safetensors.safe_open(path, framework="numpy")  # has no annotations
        with opened as file:
            slices: dict[str, Any] = {name: file.get_slice(name) for name in sorted(file.keys())}
            _check_shapes(path, expected, {k: tuple(v.get_shape()) for k, v in slices.items()})
            dtypes = {name: found.get_dtype() for name, found in slices.items()}
            if not_bool := [name for name, dtype in dtypes.items() if dtype != "BOOL"]:
                raise InputError(
                    f"{path}: expected booleans at {not_bool[0]!r}, got {dtypes[not_bool[0]]}"
                )
            layers = {name: jnp.asarray(found[:]) for name, found in slices.items()}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: expected a safetensors file of masks: {error}") from error
    return masks_from_layers(params, layers, network=network)


def _check_shapes(
    path: str | os.PathLike[str],
    expected: dict[str, tuple[int, ...]],
    found: dict[str, tuple[int, ...]],
) -> None:
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{path}: mask of another network: at {name!r} the parameters have (Cin, Cout) "
                f"{expected.get(name)}, the file {found.get(name)}"
            )
