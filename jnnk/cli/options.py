"""The command line's options, and the configs they make. Prints nothing."""

import argparse
import contextlib
import pathlib
from typing import Any, NoReturn

from jnnk._core.errors import InputError
from jnnk._core.option_types import NUMBERS, check_numbers
from jnnk.data import from_anywhere
from jnnk.pruning import CRITERIA
from jnnk.runs.folder import read_settings
from jnnk.runs.protocols import PROTOCOLS, ProtocolConfig
from jnnk.runs.settings import (
    CHANNEL_CRITERIA,
    REGULARIZERS,
    STOPPING_RULES,
    ChannelConfig,
    OverlapConfig,
    PruneConfig,
    TrainConfig,
    spread_epochs,
)

EXIT_CODES = {
    0: "done",
    1: "a defect of jnnk, with its traceback",
    2: "bad input, a training that diverged, no memory; one line says it",
    129: "stopped, as the terminal is gone (SIGHUP)",
    130: "stopped by Ctrl-C; the same command goes on from there",
    143: "stopped by SIGTERM, as Slurm and Kubernetes send it",
}
EXAMPLES = {
    "study": "--out runs/a",
    "train": "--model resnet20 --epochs 5 --out runs/b",
    "import-weights": "net.safetensors --out runs/c",
    "overlap": "runs/a --layers 'layer3*' --neighbors 15",
    "prune": "runs/a --criterion weight --tolerance 0.5",
    "export": "runs/a --out runs/a/torch",
    "report": "runs/a runs/b",
    "reproduce": "pruning --shared ../shared --out runs/d",
    "prepare": "cifar10 --data-dir data",
}

REPRODUCTIONS = {
    "overlap": "what channel overlap tells of generalisation",
    "pruning": "kernels each criterion can spare",
    "regularizer": "what a penalty on channel overlap does",
    "early-stopping": "channel-wise early stopping against validation",
    "channel-pruning": "inner channels removed by redundancy and by what others use",
}


def train_config(args: argparse.Namespace) -> TrainConfig:
    """The options given, over what a run to be resumed was made with, over the defaults."""
    found = read_settings(args.out / "config.json", TrainConfig) if args.resume else {}
    if args.dataset is not None:
        name, data_dir = from_anywhere(args.dataset, data_dir=args.data_dir)
        args = argparse.Namespace(**{**vars(args), "dataset": name, "data_dir": data_dir})
    config = _merged(TrainConfig(), found, args)
    check_numbers(config, args.out / "config.json")
    if args.measure_epochs is None and "measure_epochs" not in found:
        config = config._replace(measure_epochs=spread_epochs(config.epochs))
    beyond = [epoch for epoch in config.measure_epochs if not 0 <= epoch <= config.epochs]
    if beyond:
        raise InputError(f"--measure-epochs {beyond}: training has epochs 0 to {config.epochs}")
    return config


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
        raise InputError(f"unknown criterion {', '.join(unknown)}; known: {', '.join(known)}")
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
        raise InputError(f"unknown protocol {args.protocol!r}; known: {', '.join(PROTOCOLS)}")
    return _merged(PROTOCOLS[args.protocol], {}, args)


def typed(args: argparse.Namespace) -> frozenset[str]:
    """Names of the options that were given."""
    return frozenset(name for name, value in vars(args).items() if value is not None)


def recorded(path: pathlib.Path, kind: type, args: argparse.Namespace) -> frozenset[str]:
    """Names of the settings that a folder's record holds and that no option overrides."""
    return frozenset(read_settings(path, kind)) - typed(args)


# A name or seed given twice is one.
_ONCE = ("criteria", "seeds", "layers", "regularizer_layers", "measure_epochs", "at_epochs")


def _merged(defaults: Any, found: dict[str, Any], args: argparse.Namespace) -> Any:
    """A config whose fields come from the options given, else a folder's record, else defaults."""
    fields = {}
    for name in defaults._fields:
        given = getattr(args, name, None)
        if given is not None and name in _ONCE:
            given = list(dict.fromkeys(given))
        value = given if given is not None else found.get(name, getattr(defaults, name))
        fields[name] = tuple(value) if isinstance(value, list) else value
    return type(defaults)(**fields)


def parser() -> argparse.ArgumentParser:
    """The parser; ``command`` in what it parses is the name of the command."""
    parser = _Parser(
        prog="jnnk",
        description="Channel overlap by NNK graphs and eigenvalue-based pruning of CNNs.",
        epilog="exit codes:\n"
        + "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())
        + "\n\n'jnnk COMMAND --help' lists the options of a command.",
        formatter_class=_Whole,
    )
    with contextlib.suppress(ModuleNotFoundError):  # --help comes without the extra
        import shtab

        shtab.add_argument_to(
            parser, "--print-completion", help="script that completes jnnk's words in this shell"
        )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, *groups, help: str) -> argparse.ArgumentParser:
        example = f"jnnk {name} {EXAMPLES[name]}"
        sub = commands.add_parser(
            name, help=f"{help}\n  {example}", description=help, epilog=f"example: {example}"
        )
        for group in (*groups, _output_options):
            group(sub)
        return sub

    add(
        "study", _train_options, _resume_options, _overlap_options, _prune_options,
        help="train, measure overlap, prune, write the report",
    )  # fmt: skip
    add(
        "train",
        _train_options,
        _resume_options,
        _device_options,
        help="train a network into a run folder",
    )
    add("import-weights", _weights_options, help="put weights into a run folder")
    sub = add(
        "overlap", _run_options, _overlap_options, _device_options,
        help="measure the channels of a run",
    )  # fmt: skip
    sub.add_argument(
        "--at-epochs", type=NUMBERS["at_epochs"], nargs="+", metavar="E",
        help="default: all checkpoints kept; random weights are measured besides",
    )  # fmt: skip
    sub.add_argument(
        "--channels", metavar="LAYER:INDEX,...",
        help="channels shown by pictures (default: of the last layer, the pairs that overlap most "
        "and least)",
    )  # fmt: skip
    sub.add_argument(
        "--plan", action="store_true",
        help="say what it would take, in bytes a device and seconds, and do nothing",
    )  # fmt: skip
    sub = add("prune", _run_options, _prune_options, help="score and prune the kernels of a run")
    _channel_options(sub)
    _protocol_options(sub)
    sub = add("export", _run_options, help="write a run's networks for PyTorch, pruned ones too")
    sub.add_argument("--out", type=pathlib.Path, required=True, help="folder of the safetensors")
    sub = add("report", help="write the report of a run, or compare several on one page")
    sub.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN", help="run folder")
    sub.add_argument(
        "--out", type=pathlib.Path, metavar="PAGE",
        help="of a comparison (default: comparison.html)",
    )  # fmt: skip
    sub = add("reproduce", help="measure a published claim anew on the shared data")
    sub.add_argument(
        "claim",
        choices=tuple(REPRODUCTIONS),
        help="; ".join(f"{name}: {what}" for name, what in REPRODUCTIONS.items()),
    )
    sub.add_argument(
        "--shared",
        type=pathlib.Path,
        required=True,
        help="folder that holds weights/, reference/ and tfds/",
    )
    sub.add_argument(
        "--out",
        type=pathlib.Path,
        required=True,
        help="folder of the results, goes on from any there",
    )
    sub = add("prepare", help="download and prepare a TFDS set (extra: tfds-prepare)")
    sub.add_argument("dataset", help="TFDS name, such as cifar10")
    sub.add_argument("--data-dir", required=True, help="folder to put it in")
    return parser


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, like every other error of a command."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; '{self.prog} --help' lists the options")


class _Whole(argparse.RawTextHelpFormatter):
    """Keeps line breaks, and has room for the names of the commands beside what they do."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=20)


def _output_options(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="the answer as one JSON object")
    group.add_argument("--quiet", action="store_true", help="no progress, and no answer but JSON")


def _network_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--dataset", metavar="NAME|FILE.npz|FOLDER/",
        help="digits (default), tiny_imagenet, a TFDS name, or your own images: arrays in an .npz "
        "or a folder with a folder for each class",
    )  # fmt: skip
    sub.add_argument("--data-dir", help="folder of the prepared data sets")
    sub.add_argument(
        "--image-size", type=NUMBERS["image_size"], metavar="N",
        help="resize images to N pixels on the shorter side and cut the square in the middle",
    )  # fmt: skip
    sub.add_argument("--model", help="resnet8 (default), resnet20, resnet50, convnet6, ...")
    sub.add_argument("--shortcut", choices=("A", "B"), help="of CIFAR ResNets (default: A)")
    sub.add_argument(
        "--model-options", nargs="+", metavar="NAME=VALUE",
        help="stem=small of resnet18 and resnet50, channels=8 and dropout=0.1 of ConvNets",
    )  # fmt: skip
    for name in ("mean", "std"):
        sub.add_argument(
            f"--{name}", type=NUMBERS[name], nargs="+", metavar="X",
            help="of images / 255, by channel or one for all (default: the data set's)",
        )  # fmt: skip
    sub.add_argument("--out", type=pathlib.Path, required=True, help="run folder to make")


def _weights_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("weights", help="safetensors file with PyTorch names")
    _network_options(sub)


def _resume_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--resume", action="store_true", help="go on with the run in --out")


def _device_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--mesh", metavar="data=D,channel=C",
        help="devices that share the work: batches and queries over data, channels over channel",
    )  # fmt: skip
    sub.add_argument(
        "--distributed", action="store_true",
        help="one of several processes that run this command together; they find each other as "
        "jax.distributed.initialize does (default mesh: all their devices along data)",
    )  # fmt: skip


def _train_options(sub: argparse.ArgumentParser) -> None:
    defaults = TrainConfig()
    _network_options(sub)
    sub.add_argument("--weights", help="safetensors file to start from")
    sub.add_argument("--epochs", type=NUMBERS["epochs"], help=f"default: {defaults.epochs}")
    sub.add_argument(
        "--batch-size", type=NUMBERS["batch_size"], help=f"default: {defaults.batch_size}"
    )
    sub.add_argument("--optimizer", choices=("sgd", "adam"), help=f"default: {defaults.optimizer}")
    sub.add_argument(
        "--learning-rate", type=NUMBERS["learning_rate"], help=f"default: {defaults.learning_rate}"
    )
    sub.add_argument(
        "--weight-decay", type=NUMBERS["weight_decay"], help=f"default: {defaults.weight_decay}"
    )
    sub.add_argument("--l1", type=NUMBERS["l1"], help="L1 penalty on conv kernels (default: 0)")
    sub.add_argument(
        "--regularizer", choices=REGULARIZERS, help="on pairs of channels (default: none)"
    )
    sub.add_argument(
        "--regularizer-strength", type=NUMBERS["regularizer_strength"], metavar="X",
        help=f"negative rewards what is penalised (default: {defaults.regularizer_strength})",
    )  # fmt: skip
    sub.add_argument(
        "--regularizer-layers", nargs="+", metavar="PATTERN", help="default: all layers"
    )
    sub.add_argument(
        "--stop", choices=STOPPING_RULES, help="end early: by the leave-one-out error of each "
        "channel or of the last layer, or on a fifth of the images held out (default: never)",
    )  # fmt: skip
    sub.add_argument(
        "--patience", type=NUMBERS["patience"], metavar="EPOCHS",
        help=f"without a smaller error before it stops (default: {defaults.patience})",
    )  # fmt: skip
    sub.add_argument("--augment", action=argparse.BooleanOptionalAction, help="default: on")
    sub.add_argument("--seed", type=NUMBERS["seed"], help="default: 0")
    sub.add_argument(
        "--measure-epochs", type=NUMBERS["measure_epochs"], nargs="+", metavar="E",
        help="epochs kept for measuring; 0 is the start (default: four, denser early)",
    )  # fmt: skip


def _run_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", type=pathlib.Path, help="run folder")
    sub.add_argument("--data-dir", help="where its data set lies now, if it has moved")


def _overlap_options(sub: argparse.ArgumentParser) -> None:
    defaults = OverlapConfig()
    sub.add_argument(
        "--images",
        type=NUMBERS["images"],
        help=f"training images measured (default: {defaults.images})",
    )
    sub.add_argument(
        "--neighbors",
        type=NUMBERS["neighbors"],
        metavar="K",
        help=f"candidates (default: {defaults.neighbors})",
    )
    sub.add_argument(
        "--similarity", choices=("gaussian", "cosine"), help=f"default: {defaults.similarity}"
    )
    sub.add_argument("--layers", nargs="+", metavar="PATTERN", help="default: all layers")


def _prune_options(sub: argparse.ArgumentParser) -> None:
    defaults = PruneConfig(criteria=())
    sub.add_argument("--criteria", nargs="+", metavar="NAME", help="swept (default: all)")
    sub.add_argument("--criterion", help=f"pruned by (default: {defaults.criterion})")
    sub.add_argument("--share", type=NUMBERS["share"], help="share of kernels pruned in the end")
    sub.add_argument(
        "--tolerance", type=NUMBERS["tolerance"], metavar="POINTS",
        help=f"accuracy to lose at most, without --share (default: {defaults.tolerance})",
    )  # fmt: skip
    sub.add_argument(
        "--sweep-images",
        type=NUMBERS["sweep_images"],
        help=f"test images of the sweep, at most (default: {defaults.sweep_images})",
    )
    sub.add_argument(
        "--finetune-epochs",
        type=NUMBERS["finetune_epochs"],
        help="under the mask (default: a tenth of the training's)",
    )
    sub.add_argument(
        "--finetune-learning-rate", type=NUMBERS["finetune_learning_rate"], metavar="RATE"
    )


def _channel_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--channels", choices=(*CHANNEL_CRITERIA, "taylor"),
        help="instead: remove the share of every layer's inner channels and fine-tune "
        f"(default share: {ChannelConfig._field_defaults['share']})",
    )  # fmt: skip
    sub.add_argument(
        "--layer-shares", nargs="+", metavar="PATTERN=SHARE",
        help="with --channels: of the layers that match, such as 'layer3*=0.7'; others: --share",
    )  # fmt: skip
    sub.add_argument(
        "--round-to", type=NUMBERS["round_to"], metavar="N",
        help="with --channels: keep a multiple of so many channels in a layer (default: 1)",
    )  # fmt: skip


def _protocol_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--protocol", metavar="NAME",
        help="instead: L1 training, pruning at a threshold, retraining, for every criterion; "
        f"one of {', '.join(PROTOCOLS)}",
    )  # fmt: skip
    sub.add_argument(
        "--seeds", type=NUMBERS["seeds"], nargs="+", metavar="S", help="of the protocol"
    )
