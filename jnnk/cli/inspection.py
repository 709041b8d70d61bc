"""The command that shows a network as jnnk reads it, ``inspect``."""

import argparse
from typing import Any

from jnnk._core.errors import InputError
from jnnk.cli import configs
from jnnk.cli.answers import Answer
from jnnk.cli.networks import load
from jnnk.cli.own_networks import require_named
from jnnk.cli.run_folders import tell
from jnnk.files.schema import TableRow
from jnnk.network import Conv, Network
from jnnk.runs.folder import open_run
from jnnk.runs.network_record import check_network
from jnnk.runs.progress import Progress


def inspect(args: argparse.Namespace, progress: Progress) -> Answer:
    """Shows the convolutions of a run's network, or of one that is named; runs nothing."""
    from jnnk.jobs.networks import network_of
    from jnnk.runs.contents import train_config

    if args.run is None:
        config = configs.named_config(args)
        loaded = load(config, given=args.model)
    else:
        run = open_run(args.run)
        config = configs.of_run(train_config(run), args)
        require_named(config.model, args.model)
        loaded = load(config, given=args.model)
        if loaded.record is not None:
            tell(check_network(run.path, loaded.record), progress)
    network = network_of(loaded.model, loaded.dataset)
    if not network.convs and not network.left_out:
        raise InputError(f"--model {config.model}: it has no convolution that reads the images")
    image = loaded.dataset.train_images.shape[1:]
    values = {
        "model": config.model,
        "image": list(image),
        "convs": [_record(conv) for conv in network.convs],
        "not_followed": [each._asdict() for each in network.left_out],
    }
    shape = " x ".join(map(str, image))
    facts = [("network", config.model), ("images", f"{shape}, {loaded.dataset.name}")]
    facts += [(f"not followed: {each.what}", each.reason) for each in network.left_out]
    return Answer(values, facts, _table(network))


def _record(conv: Conv) -> dict[str, Any]:
    """A convolution in JSON's terms."""
    return {
        "name": conv.name,
        "kernel_shape": conv.kernel_shape,
        "axes": conv.axes,
        "groups": conv.groups,
        "strides": conv.strides,
        "kernel_dilation": conv.kernel_dilation,
        "input_dilation": conv.input_dilation,
        "output_shape": conv.output_shape,
        "steps": conv.steps,
        "macs": conv.macs,
        "params": conv.params,
    }


def _table(network: Network) -> list[TableRow]:
    """What ``print(network)`` shows, a row a convolution and one for all."""
    header, *rows = network.table()
    names = [name or "notes" for name in header]
    return [dict(zip(names, row, strict=True)) for row in rows]
