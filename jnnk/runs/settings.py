"""What a run is asked to do; the fields are the options of the command line."""

from typing import Literal, NamedTuple

# The keys of tables whose modules are slow to import: the options name them.
REGULARIZERS = ("overlap", "decorrelation", "cka")
STOPPING_RULES = ("channel-nnk", "nnk", "validation")
CHANNEL_CRITERIA = (
    "redundancy", "weighted_redundancy", "l1_norm", "bn_scale", "spectral_radius",
    "geometric_median", "random",
)  # fmt: skip
FINETUNE_LEARNING_RATE = 0.01


class TrainConfig(NamedTuple):
    """How a network is trained."""

    dataset: str = "digits"  # name known to :func:`jnnk.data.load`
    data_dir: str | None = None  # where prepared data sets or one's own lie, or None
    # side of the squares that images are made to, see :func:`jnnk.data.load`; None leaves them as
    # they are
    image_size: int | None = None
    # name known to ``jnnk.models.create``, or of a factory, ``package.module:factory``
    model: str = "resnet8"
    shortcut: Literal["A", "B"] = "A"  # ``"A"`` or ``"B"``, of CIFAR ResNets
    # further options of `jnnk.models.create`, each `"NAME=VALUE"`
    model_options: tuple[str, ...] = ()
    weights: str | None = None  # safetensors file to start from, or None for a random start
    # what to subtract from images / 255, a number per channel or one for all; None takes the data
    # set's own. Weights need the normalisation they were trained with.
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None  # what to divide by after that, likewise
    epochs: int = 20  # passes over the training images
    batch_size: int = 64  # images per step
    optimizer: Literal["sgd", "adam"] = "sgd"  # ``"sgd"`` or ``"adam"``
    learning_rate: float = 0.1  # peak rate
    weight_decay: float = 5e-4  # on kernels only
    l1: float = 0.0  # strength of the L1 penalty on conv kernels
    regularizer: str | None = None  # a key of `jnnk.penalties.PENALTIES`, or None
    regularizer_strength: float = 0.1  # of its mean over the layers, in the loss; negative rewards
    regularizer_layers: tuple[str, ...] = ("*",)  # patterns of the layers it is taken on
    stop: str | None = None  # a key of `jnnk.jobs.stopping.STOPPING`, or None to train all epochs
    patience: int = 3  # epochs without a smaller error before it stops
    augment: bool = True  # pad-crop-flip on device
    seed: int = 0  # of initialisation, order and augmentation
    # epochs whose checkpoint is kept for measuring; 0 is the start
    measure_epochs: tuple[int, ...] = (0,)


class OverlapConfig(NamedTuple):
    """How channels are measured."""

    images: int = 1000  # number of training images, drawn once from the run's seed
    neighbors: int = 25  # candidates K of every NNK problem
    # `"gaussian"` (bandwidth: distance to the K-th neighbour / 3) or `"cosine"`
    similarity: Literal["gaussian", "cosine"] = "gaussian"
    layers: tuple[str, ...] = ("*",)  # patterns of layer names; all layers by default
    at_epochs: tuple[int, ...] | None = None  # epochs measured; all kept checkpoints by default


class PruneConfig(NamedTuple):
    """How conv kernels are scored, pruned and the network fine-tuned."""

    criteria: tuple[str, ...]  # names in `jnnk.pruning.CRITERIA`, or `"taylor"`
    criterion: str = "spectral_radius"  # the one by which the network is pruned in the end
    # shares of conv kernels pruned in the sweep, ascending in [0, 1)
    shares: tuple[float, ...] = (*(round(0.05 * n, 2) for n in range(11)), 0.6, 0.7, 0.8, 0.9)
    # share pruned in the end; None picks the largest of `shares` within `tolerance`
    share: float | None = None
    tolerance: float = 1.0  # accuracy that may be lost before fine-tuning, in percentage points
    # test images used by the sweep, the first ones; the final accuracies use all
    sweep_images: int = 1000
    # epochs of training under the mask; None takes a tenth of the training's, at least one
    finetune_epochs: int | None = None
    finetune_learning_rate: float = FINETUNE_LEARNING_RATE  # peak rate of it


class ChannelConfig(NamedTuple):
    """How whole channels are chosen and the network fine-tuned."""

    channels: str  # a key of `jnnk.pruning.CHANNEL_CRITERIA`, or `"taylor"`
    share: float = 0.5  # of the channels of every group that are removed
    layer_shares: tuple[str, ...] = ()  # shares of single layers, each `"PATTERN=SHARE"`
    round_to: int = 1  # the number of channels kept of a layer is rounded up to a multiple of it
    streams: bool = False  # whether channels of residual streams and the like can go too
    images: int = 1000  # training images of the graphs, or of the gradients
    neighbors: int = 15  # their candidates K
    # epochs of training under the mask; None takes a tenth of the training's, at least one
    finetune_epochs: int | None = None
    finetune_learning_rate: float = FINETUNE_LEARNING_RATE  # peak rate of it


def spread_epochs(epochs: int, *, count: int = 4) -> tuple[int, ...]:
    """``count`` epochs from 0 to ``epochs``, denser at the start, where a network changes most."""
    return tuple(sorted({round(epochs * (index / (count - 1)) ** 2) for index in range(count)}))
