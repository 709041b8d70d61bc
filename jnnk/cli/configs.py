"""The settings that a command works with, made of the options given and of what a folder holds."""

import argparse
import pathlib
from collections.abc import Collection
from typing import TypeVar

from jnnk._core.errors import InputError
from jnnk._core.option_types import check_numbers
from jnnk.data import from_anywhere
from jnnk.files.schema import JsonObject
from jnnk.pruning import CRITERIA
from jnnk.runs.part_settings import read_settings
from jnnk.runs.protocols import PROTOCOLS, ProtocolConfig
from jnnk.runs.settings import (
    ChannelConfig,
    OverlapConfig,
    PruneConfig,
    TrainConfig,
    spread_epochs,
)

Config = TypeVar("Config", TrainConfig, OverlapConfig, PruneConfig, ChannelConfig, ProtocolConfig)
# A name or seed given twice is one.
_ONCE = ("criteria", "seeds", "layers", "regularizer_layers", "measure_epochs", "at_epochs")
# The option that another one belongs to, and without which it has no effect.
_BESIDE = {
    "layer_shares": "channels",
    "streams": "channels",
    "round_to": "channels",
    "seeds": "protocol",
    "regularizer_layers": "regularizer",
    "regularizer_strength": "regularizer",
}


def check_beside(args: argparse.Namespace, *, chosen: Collection[str] = ()) -> None:
    """Refuses options given without the one that they belong to.

    Args:
        args: the options given.
        chosen: names of options that a folder's record has settled.

    Raises:
        InputError: naming both.
    """
    given = {*typed(args), *chosen}
    for name, other in _BESIDE.items():
        if getattr(args, name, None) is not None and other not in given:
            raise InputError(
                f"--{name.replace('_', '-')}: expected --{other} beside it, got no --{other}"
            )


def train_config(args: argparse.Namespace) -> TrainConfig:
    """The options given, over what a run to be resumed was made with, over the defaults."""
    found = read_settings(args.out / "config.json", TrainConfig) if args.resume else {}
    if args.dataset is not None:
        name, data_dir = from_anywhere(args.dataset, data_dir=args.data_dir)
        args = argparse.Namespace(**{**vars(args), "dataset": name, "data_dir": data_dir})
    config = _merged(TrainConfig(), found, args)
    check_numbers(config, args.out / "config.json")
    check_beside(args, chosen=["regularizer"] if config.regularizer is not None else [])
    if args.measure_epochs is None and "measure_epochs" not in found:
        config = config._replace(measure_epochs=spread_epochs(config.epochs))
    beyond = [epoch for epoch in config.measure_epochs if not 0 <= epoch <= config.epochs]
    if beyond:
        raise InputError(f"--measure-epochs {beyond}: training has epochs 0 to {config.epochs}")
    return config


def named_config(args: argparse.Namespace) -> TrainConfig:
    """The options given that name a network and data, over the defaults."""
    if args.dataset is not None:
        name, data_dir = from_anywhere(args.dataset, data_dir=args.data_dir)
        args = argparse.Namespace(**{**vars(args), "dataset": name, "data_dir": data_dir})
    return _merged(TrainConfig(), {}, args)


def of_run(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """A run's settings for a command that looks at its network alone.

    Raises:
        InputError: for an option that the run has settled.
    """
    settled = ("dataset", "image_size", "shortcut", "model_options")
    for name in settled:
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')}: the run tells; leave it out, or the run")
    if args.data_dir is not None:
        config = config._replace(data_dir=args.data_dir)
    return config._replace(weights=None)


def overlap_config(args: argparse.Namespace, folder: pathlib.Path) -> OverlapConfig:
    """The options given, over those a run folder was measured with, over the defaults."""
    path = folder / "overlap" / "settings.json"
    config = _merged(OverlapConfig(), read_settings(path, OverlapConfig), args)
    check_numbers(config, path)
    return config


def chosen_channels(args: argparse.Namespace) -> dict[str, tuple[int, ...]] | None:
    """The channels given as ``LAYER:INDEX,...``, layer by layer; None where none are given."""
    if args.channels is None:
        return None
    chosen: dict[str, tuple[int, ...]] = {}
    for text in args.channels.split(","):
        layer, _, index = text.strip().rpartition(":")
        if not layer or not index.isdecimal():
            raise InputError(f"--channels: expected LAYER:INDEX,..., got {text!r}")
        chosen[layer] = tuple(dict.fromkeys((*chosen.get(layer, ()), int(index))))
    return chosen


def prune_config(args: argparse.Namespace, folder: pathlib.Path) -> PruneConfig:
    """The options given, over those a run folder was pruned with, over the defaults."""
    path = folder / "prune" / "settings.json"
    found = read_settings(path, PruneConfig)
    config = _merged(PruneConfig(criteria=tuple(CRITERIA)), found, args)
    check_numbers(config, path)
    known = (*CRITERIA, "taylor")
    unknown = sorted({*config.criteria, config.criterion}.difference(known))
    if unknown:
        raise InputError(
            f"--criteria: expected some of {', '.join(known)}, got {', '.join(unknown)}"
        )
    if config.criterion not in config.criteria:
        config = config._replace(criteria=(*config.criteria, config.criterion))
    return config


def channel_config(args: argparse.Namespace, folder: pathlib.Path) -> ChannelConfig:
    """The options given, over those a run folder was pruned with, over the defaults."""
    path = folder / "channels" / args.channels / "settings.json"
    found = read_settings(path, ChannelConfig)
    config = _merged(ChannelConfig(channels=args.channels), found, args)
    check_numbers(config, path)
    for text in config.layer_shares:
        _, _, share = text.rpartition("=")
        try:
            is_share = "=" in text and 0 <= float(share) < 1
        except ValueError:
            is_share = False
        if not is_share:
            raise InputError(f"--layer-shares: expected PATTERN=SHARE below 1, got {text!r}")
    return config


def protocol_config(args: argparse.Namespace) -> ProtocolConfig:
    """The named protocol, with the seeds and criteria given."""
    if args.protocol not in PROTOCOLS:
        raise InputError(
            f"--protocol: expected one of {', '.join(PROTOCOLS)}, got {args.protocol!r}"
        )
    return _merged(PROTOCOLS[args.protocol], {}, args)


def typed(args: argparse.Namespace) -> frozenset[str]:
    """Names of the options that were given."""
    return frozenset(name for name, value in vars(args).items() if value is not None)


def recorded(path: pathlib.Path, kind: type, args: argparse.Namespace) -> frozenset[str]:
    """Names of the settings that a folder's record holds and that no option overrides."""
    return frozenset(read_settings(path, kind)) - typed(args)


def _merged(defaults: Config, found: JsonObject, args: argparse.Namespace) -> Config:
    """A config whose fields come from the options given, else a folder's record, else defaults."""
    fields = {}
    for name in defaults._fields:
        given = getattr(args, name, None)
        if given is not None and name in _ONCE:
            given = list(dict.fromkeys(given))
        value = given if given is not None else found.get(name, getattr(defaults, name))
        fields[name] = tuple(value) if isinstance(value, list) else value
    return type(defaults)(**fields)
