"""The options of the commands, by group: each function adds those of one group to a parser."""

import argparse
import pathlib

from jnnk._core.option_types import NUMBERS
from jnnk.cli.studies import STUDIES
from jnnk.runs.protocols import PROTOCOLS
from jnnk.runs.settings import (
    CHANNEL_CRITERIA,
    REGULARIZERS,
    STOPPING_RULES,
    ChannelConfig,
    OverlapConfig,
    PruneConfig,
    TrainConfig,
)


def output_options(parser: argparse.ArgumentParser) -> None:
    """How the answer is shown."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="the answer as one JSON object")
    group.add_argument("--quiet", action="store_true", help="no progress, and no answer but JSON")


def network_options(parser: argparse.ArgumentParser) -> None:
    """Which network, which data, and the folder of the run to make."""
    data_options(parser)
    for name in ("mean", "std"):
        parser.add_argument(
            f"--{name}", type=NUMBERS[name], nargs="+", metavar="X",
            help="of images / 255, by channel or one for all (default: the data set's)",
        )  # fmt: skip
    parser.add_argument("--out", type=pathlib.Path, required=True, help="run folder to make")


def data_options(parser: argparse.ArgumentParser) -> None:
    """Which network, and which data."""
    defaults = TrainConfig()
    parser.add_argument(
        "--dataset", metavar="NAME|FILE.npz|FOLDER/",
        help="digits, tiny_imagenet, a TFDS name, or your own images: arrays in an .npz or a "
        f"folder with a folder for each class (default: {defaults.dataset})",
    )  # fmt: skip
    parser.add_argument("--data-dir", help="folder of the prepared data sets")
    parser.add_argument(
        "--image-size", type=NUMBERS["image_size"], metavar="N",
        help="resize images to N pixels on the shorter side and cut the square in the middle",
    )  # fmt: skip
    parser.add_argument(
        "--model", metavar="NAME|MODULE:FACTORY",
        help="resnet8, resnet20, resnet50, convnet6, ..., or a network of your own: "
        "package.module:factory, imported and called with num_classes=... "
        f"(default: {defaults.model})",
    )  # fmt: skip
    parser.add_argument(
        "--shortcut", choices=("A", "B"), help=f"of CIFAR ResNets (default: {defaults.shortcut})"
    )
    parser.add_argument(
        "--model-options", nargs="+", metavar="NAME=VALUE",
        help="stem=small of resnet18 and resnet50, channels=8 and dropout=0.1 of ConvNets; what a "
        "factory takes besides",
    )  # fmt: skip


def inspect_options(parser: argparse.ArgumentParser) -> None:
    """A run folder, or a network and the data that it is for."""
    parser.add_argument(
        "run", type=pathlib.Path, nargs="?", help="run folder (default: the network that is named)"
    )
    data_options(parser)


def weights_options(parser: argparse.ArgumentParser) -> None:
    """A file of weights, and the network that they are for."""
    parser.add_argument("weights", help="safetensors file with PyTorch names, or the leaves' paths")
    network_options(parser)


def resume_options(parser: argparse.ArgumentParser) -> None:
    """Whether a run is gone on with."""
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")


def device_options(parser: argparse.ArgumentParser) -> None:
    """Which devices and processes share the work."""
    parser.add_argument(
        "--mesh", metavar="data=D,channel=C",
        help="devices that share the work: batches and queries over data, channels over channel",
    )  # fmt: skip
    parser.add_argument(
        "--distributed", action="store_true",
        help="one of several processes that run this command together; they find each other as "
        "jax.distributed.initialize does (default mesh: all their devices along data)",
    )  # fmt: skip


def train_options(parser: argparse.ArgumentParser) -> None:
    """How a network is trained."""
    defaults = TrainConfig()
    network_options(parser)
    parser.add_argument("--weights", help="safetensors file to start from")
    parser.add_argument("--epochs", type=NUMBERS["epochs"], help=f"default: {defaults.epochs}")
    parser.add_argument(
        "--batch-size", type=NUMBERS["batch_size"], help=f"default: {defaults.batch_size}"
    )
    parser.add_argument(
        "--optimizer", choices=("sgd", "adam"), help=f"default: {defaults.optimizer}"
    )
    parser.add_argument(
        "--learning-rate", type=NUMBERS["learning_rate"], help=f"default: {defaults.learning_rate}"
    )
    parser.add_argument(
        "--weight-decay", type=NUMBERS["weight_decay"], help=f"default: {defaults.weight_decay}"
    )
    parser.add_argument(
        "--l1", type=NUMBERS["l1"], help=f"L1 penalty on conv kernels (default: {defaults.l1:g})"
    )
    parser.add_argument(
        "--regularizer", choices=REGULARIZERS, help="on pairs of channels (default: none)"
    )
    parser.add_argument(
        "--regularizer-strength", type=NUMBERS["regularizer_strength"], metavar="X",
        help=f"negative rewards what is penalised (default: {defaults.regularizer_strength})",
    )  # fmt: skip
    parser.add_argument(
        "--regularizer-layers", nargs="+", metavar="PATTERN", help="default: all layers"
    )
    parser.add_argument(
        "--stop", choices=STOPPING_RULES, help="end early: by the leave-one-out error of each "
        "channel or of the last layer, or on a fifth of the images held out (default: never)",
    )  # fmt: skip
    parser.add_argument(
        "--patience", type=NUMBERS["patience"], metavar="EPOCHS",
        help=f"without a smaller error before it stops (default: {defaults.patience})",
    )  # fmt: skip
    parser.add_argument("--augment", action=argparse.BooleanOptionalAction, help="default: on")
    parser.add_argument("--seed", type=NUMBERS["seed"], help=f"default: {defaults.seed}")
    parser.add_argument(
        "--measure-epochs", type=NUMBERS["measure_epochs"], nargs="+", metavar="E",
        help="epochs kept for measuring; 0 is the start (default: four, denser early)",
    )  # fmt: skip


def run_options(parser: argparse.ArgumentParser) -> None:
    """The run folder to work on."""
    parser.add_argument("run", type=pathlib.Path, help="run folder")
    parser.add_argument("--data-dir", help="where its data set lies now, if it has moved")
    named_network_options(parser)


def named_network_options(parser: argparse.ArgumentParser) -> None:
    """The name of a run's network, without which none of a person's own is imported."""
    parser.add_argument(
        "--model", metavar="MODULE:FACTORY",
        help="of a run whose network is your own: the same as in training, for jnnk to import it",
    )  # fmt: skip


def overlap_options(parser: argparse.ArgumentParser) -> None:
    """How channels are measured, in a study too."""
    defaults = OverlapConfig()
    parser.add_argument(
        "--images",
        type=NUMBERS["images"],
        help=f"training images measured (default: {defaults.images})",
    )
    parser.add_argument(
        "--neighbors",
        type=NUMBERS["neighbors"],
        metavar="K",
        help=f"candidates (default: {defaults.neighbors})",
    )
    parser.add_argument(
        "--similarity", choices=("gaussian", "cosine"), help=f"default: {defaults.similarity}"
    )
    parser.add_argument("--layers", nargs="+", metavar="PATTERN", help="default: all layers")


def prune_options(parser: argparse.ArgumentParser) -> None:
    """How kernels are scored and pruned, in a study too."""
    defaults = PruneConfig(criteria=())
    parser.add_argument("--criteria", nargs="+", metavar="NAME", help="swept (default: all)")
    parser.add_argument("--criterion", help=f"pruned by (default: {defaults.criterion})")
    parser.add_argument("--share", type=NUMBERS["share"], help="share of kernels pruned in the end")
    parser.add_argument(
        "--tolerance", type=NUMBERS["tolerance"], metavar="POINTS",
        help=f"accuracy to lose at most, without --share (default: {defaults.tolerance})",
    )  # fmt: skip
    parser.add_argument(
        "--sweep-images",
        type=NUMBERS["sweep_images"],
        help=f"test images of the sweep, at most (default: {defaults.sweep_images})",
    )
    parser.add_argument(
        "--finetune-epochs",
        type=NUMBERS["finetune_epochs"],
        help="under the mask (default: a tenth of the training's)",
    )
    parser.add_argument(
        "--finetune-learning-rate", type=NUMBERS["finetune_learning_rate"], metavar="RATE"
    )


def channel_options(parser: argparse.ArgumentParser) -> None:
    """Pruning of whole channels."""
    parser.add_argument(
        "--channels", choices=(*CHANNEL_CRITERIA, "taylor"),
        help="instead: remove the share of the channels that convolutions make and fine-tune "
        f"(default share: {ChannelConfig._field_defaults['share']})",
    )  # fmt: skip
    parser.add_argument(
        "--layer-shares", nargs="+", metavar="PATTERN=SHARE",
        help="with --channels: of the layers that match, such as 'layer3*=0.7'; others: --share",
    )  # fmt: skip
    parser.add_argument(
        "--streams", action="store_const", const=True,
        help="with --channels: of residual streams too, whose channels go everywhere at once",
    )  # fmt: skip
    parser.add_argument(
        "--round-to", type=NUMBERS["round_to"], metavar="N",
        help="with --channels: keep a multiple of so many channels in a layer "
        f"(default: {ChannelConfig._field_defaults['round_to']})",
    )  # fmt: skip


def protocol_options(parser: argparse.ArgumentParser) -> None:
    """Pruning by a protocol."""
    parser.add_argument(
        "--protocol", metavar="NAME",
        help="instead: L1 training, pruning at a threshold, retraining, for every criterion; "
        f"one of {', '.join(PROTOCOLS)}",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=NUMBERS["seeds"], nargs="+", metavar="S", help="of the protocol"
    )


def measuring_options(parser: argparse.ArgumentParser) -> None:
    """What is measured of a trained run, and whether at all."""
    parser.add_argument(
        "--at-epochs", type=NUMBERS["at_epochs"], nargs="+", metavar="E",
        help="default: all checkpoints kept; random weights are measured besides",
    )  # fmt: skip
    parser.add_argument(
        "--channels", metavar="LAYER:INDEX,...",
        help="channels shown by pictures (default: of the last layer, the pairs that overlap most "
        "and least)",
    )  # fmt: skip
    parser.add_argument(
        "--plan", action="store_true",
        help="say what it would take, in bytes a device and seconds, and do nothing",
    )  # fmt: skip


def export_options(parser: argparse.ArgumentParser) -> None:
    """Where networks are written to."""
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")


def report_options(parser: argparse.ArgumentParser) -> None:
    """One run folder, or several and the page that compares them."""
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN", help="run folder")
    named_network_options(parser)
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="PAGE",
        help="of a comparison (default: comparison.html)",
    )  # fmt: skip


def reproduce_options(parser: argparse.ArgumentParser) -> None:
    """Which claim is measured anew, on what, and where to."""
    parser.add_argument(
        "claim",
        choices=tuple(STUDIES),
        help="; ".join(f"{name}: {study.claim}" for name, study in STUDIES.items()),
    )
    parser.add_argument(
        "--shared",
        type=pathlib.Path,
        required=True,
        help="folder that holds weights/, reference/ and tfds/",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        required=True,
        help="folder of the results, goes on from any there",
    )


def prepare_options(parser: argparse.ArgumentParser) -> None:
    """Which set is prepared, and where."""
    parser.add_argument("dataset", help="TFDS name, such as cifar10")
    parser.add_argument("--data-dir", required=True, help="folder to put it in")
