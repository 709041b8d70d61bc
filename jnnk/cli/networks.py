"""Networks by name, with their data and weights: here alone jnnk imports :mod:`jnnk.models`."""

import ast
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jnnk import data
from jnnk._core.errors import InputError
from jnnk.cli.own_networks import find_factory, is_own, make_network, require_named
from jnnk.data import Dataset
from jnnk.files.archives import read_folder
from jnnk.jobs.networks import abstract_variables, network_of
from jnnk.models import (
    WeightsError,
    create,
    from_tensorflow,
    load_safetensors,
    names,
    save_masks,
    save_safetensors,
)
from jnnk.network import Network
from jnnk.pruning import save_masks as save_own_masks
from jnnk.runs.json_files import write_bytes
from jnnk.runs.network_record import NetworkRecord, network_record
from jnnk.runs.settings import TrainConfig
from jnnk.runs.weight_files import read_weights, write_weights
from jnnk.training import Model, TrainState


class Loaded(NamedTuple):
    """A network and the data set that it is for.

    Attributes:
        model: not initialised.
        dataset: with the normalisation that the settings ask for.
        variables: weights to start from; None where the settings name none.
        record: of a network of a person's own; None for those of jnnk.
    """

    model: Model
    dataset: Dataset
    variables: dict[str, Any] | None
    record: NetworkRecord | None


def load(config: TrainConfig, *, given: str | None = None) -> Loaded:
    """Data set, network for it, and its weights, as the settings name them.

    Args:
        config: how a run is trained.
        given: the name of the network on the command line; without it none is imported by name.

    Raises:
        InputError: for an unknown name or option, data or weights that cannot be read, weights that
            are not finite, images that the network does not take, or a network of a person's own
            that is not ``given``.
    """
    if is_own(config.model):
        require_named(config.model, given)
    try:
        make = (_own_maker if is_own(config.model) else _maker)(config)
        dataset = data.load(config.dataset, data_dir=config.data_dir, image_size=config.image_size)
        model, record = make(dataset)
    except ValueError as error:
        raise InputError(str(error) + _remedy(error, config)) from error
    own = dataset.normalization
    normalization = own._replace(
        mean=_by_channel("--mean", config.mean, own.mean),
        std=_by_channel("--std", config.std, own.std),
    )
    dataset = dataset._replace(normalization=normalization)
    if config.weights is None:
        return Loaded(model, dataset, None, record)
    if record is None:
        known: Any = model
        image_shape = dataset.train_images.shape[1:]
        variables = load_weights(known, config.weights, image_shape=image_shape)
    else:
        network, like = network_of(model, dataset), abstract_variables(model, dataset)
        variables = read_weights(config.weights, like, network=network)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if not np.isfinite(leaf).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(f"{config.weights}: {name} holds numbers that are not finite")
    return Loaded(model, dataset, variables, record)


#: Makes the network for a data set, and its record if it is a person's own.
_Maker = Callable[[Dataset], tuple[Model, NetworkRecord | None]]


def _maker(config: TrainConfig) -> _Maker:
    """A network of jnnk; a wrong name or option need not wait for the data."""
    if config.model not in names():
        raise InputError(
            f"--model: expected one of {', '.join(names())}, or package.module:factory, got "
            f"{config.model!r}"
        )
    make = functools.partial(create, config.model, shortcut=config.shortcut)
    options = _model_options(config.model_options)
    make(num_classes=2, **options)

    def of_dataset(dataset: Dataset) -> tuple[Model, None]:
        model = make(num_classes=len(dataset.class_names), **options)
        image = np.zeros((1, *dataset.train_images.shape[1:]), np.float32)
        jax.eval_shape(model.init, jax.random.key(0), image)  # does the network fit the images?
        return model, None

    return of_dataset


def _own_maker(config: TrainConfig) -> _Maker:
    """A network of a person's own, imported."""
    if config.shortcut != TrainConfig().shortcut:
        raise InputError("--shortcut is of jnnk's own CIFAR ResNets")
    options = _model_options(config.model_options)
    factory = find_factory(config.model, options)

    def of_dataset(dataset: Dataset) -> tuple[Model, NetworkRecord]:
        image_shape = dataset.train_images.shape[1:]
        num_classes = len(dataset.class_names)
        model = make_network(factory, options, num_classes=num_classes, image_shape=image_shape)
        variables = abstract_variables(model, dataset)
        return model, network_record(factory.name, factory.source, variables)

    return of_dataset


def load_weights(
    model: nn.Module,
    path: str | pathlib.Path,
    *,
    image_shape: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """The weights of a safetensors file with PyTorch names.

    Args:
        model: the network that they are for.
        path: of the file.
        image_shape: (H, W, C) of its images; by default 32 x 32 with the channels of the file.

    Raises:
        InputError: if they cannot be read or are of another network.
    """
    try:
        return dict(load_safetensors(model, path, image_shape=image_shape))
    except WeightsError as error:
        raise InputError(str(error)) from None


def load_epoch(model: nn.Module, archive: pathlib.Path, epoch: int) -> dict[str, Any]:
    """The weights that a public ConvNet had at one epoch of its archive.

    Args:
        model: the network.
        archive: an .npz with a folder for each epoch.
        epoch: from 0.

    Raises:
        InputError: if they cannot be read or are of another network.
    """
    arrays = read_folder(archive, f"epoch{epoch:02d}/")
    try:
        return dict(from_tensorflow(model, arrays))
    except WeightsError as error:
        raise InputError(f"{archive}: {error}") from None


def save_networks(
    folder: pathlib.Path,
    model: Model,
    states: Mapping[str, TrainState],
    *,
    own: Network | None,
) -> list[pathlib.Path]:
    """Writes states as safetensors files, pruned ones with their masks.

    Args:
        folder: made where there is none.
        model: the network.
        states: by the names of their files; all but ``"trained"`` are pruned.
        own: a network of a person's own as read: its names are the paths of the leaves. None for
            those of jnnk, which get PyTorch's names.

    Returns:
        The files.

    Raises:
        InputError: if they cannot be written.
    """
    files: list[pathlib.Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, state in states.items():
            files.append(folder / f"{name}.safetensors")
            known: Any = model
            if own is None:
                save_safetensors(known, state.variables, files[-1])
            else:
                write_weights(files[-1], state.variables)
            if name != "trained":
                files.append(folder / f"{name}_masks.safetensors")
                if own is None:
                    save_masks(known, state.variables, state.masks, files[-1])
                else:
                    save_own_masks(files[-1], state.masks, network=own)
    except (OSError, WeightsError) as error:
        raise InputError(f"--out: {error}") from None
    return files


def save_artifact(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """Writes a StableHLO artifact.

    Args:
        path: of the file.
        content: the artifact.

    Returns:
        The path.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        write_bytes(path, content)
    except OSError as error:
        raise InputError(f"--out: {error}") from None
    return path


def _remedy(error: ValueError, config: TrainConfig) -> str:
    """What to give on the command line where the data's error names an argument or function."""
    by_name = {
        "image_size": "--image-size N",
        "prepare": f"jnnk prepare {config.dataset} --data-dir {config.data_dir}",
    }
    remedy = by_name.get(getattr(error, "remedy", None) or "")
    return "" if remedy is None else f"; on the command line: {remedy}"


# Of a model option; Python's parser takes expressions of any depth for as long as memory lasts.
_LONGEST_VALUE = 100


def _model_options(texts: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` texts as keywords, numbers as numbers."""
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--model-options: expected NAME=VALUE, got {text!r}")
        if name in ("name", "num_classes", "shortcut"):
            raise InputError(
                f"--model-options: {name} is none of them: --model and --shortcut are options of "
                "their own, and the data set tells the number of classes"
            )
        if name in options:
            raise InputError(f"--model-options: {name} comes twice")
        if len(value) > _LONGEST_VALUE:
            raise InputError(
                f"--model-options: {name}: expected a number or a word, got {len(value):,} "
                "characters"
            )
        try:
            options[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[name] = value
    return options


def _by_channel(option: str, given: tuple[float, ...] | None, default: np.ndarray) -> np.ndarray:
    """A normalisation given as one number for all channels or as one each."""
    if given is None:
        return default
    if len(given) not in (1, len(default)):
        wanted = "one number" if len(default) == 1 else f"1 or {len(default)} numbers"
        raise InputError(f"{option}: expected {wanted}, got {len(given)}")
    return np.broadcast_to(np.asarray(given, np.float32), default.shape)
