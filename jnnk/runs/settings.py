"""What a run is asked to do; the fields are the options of the command line."""

from typing import Literal, NamedTuple

# The keys of tables whose modules are slow to import: the options name them.
REGULARIZERS = ("overlap", "decorrelation", "cka")
STOPPING_RULES = ("channel-nnk", "nnk", "validation")
CHANNEL_CRITERIA = (
    "redundancy", "weighted_redundancy", "l1_norm", "bn_scale", "spectral_radius",
    "geometric_median", "random",
)  # fmt: skip


class TrainConfig(NamedTuple):
    """How a network is trained.

    Attributes:
        dataset: name known to :func:`jnnk.data.load`.
        data_dir: where prepared data sets or one's own lie, or None.
        image_size: side of the squares that images are made to, see :func:`jnnk.data.load`; None
            leaves them as they are.
        model: name known to ``jnnk.models.create``.
        shortcut: ``"A"`` or ``"B"``, of CIFAR ResNets.
        model_options: further options of ``jnnk.models.create``, each ``"NAME=VALUE"``.
        weights: safetensors file to start from, or None for a random start.
        mean: what to subtract from images / 255, a number a channel or one for all; None takes
            the data set's own. Weights need the normalisation they were trained with.
        std: what to divide by after that, likewise.
        epochs: passes over the training images.
        batch_size: images a step.
        optimizer: ``"sgd"`` or ``"adam"``.
        learning_rate: peak rate.
        weight_decay: on kernels only.
        l1: strength of the L1 penalty on conv kernels.
        regularizer: a key of ``jnnk.penalties.PENALTIES``, or None.
        regularizer_strength: of its mean over the layers, in the loss; negative rewards.
        regularizer_layers: patterns of the layers it is taken on.
        stop: a key of ``jnnk.jobs.stopping.STOPPING``, or None to train all epochs.
        patience: epochs without a smaller error before it stops.
        augment: pad-crop-flip on device.
        seed: of initialisation, order and augmentation.
        measure_epochs: epochs whose checkpoint is kept for measuring; 0 is the start.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    model: str = "resnet8"
    shortcut: Literal["A", "B"] = "A"
    model_options: tuple[str, ...] = ()
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    epochs: int = 20
    batch_size: int = 64
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    l1: float = 0.0
    regularizer: str | None = None
    regularizer_strength: float = 0.1
    regularizer_layers: tuple[str, ...] = ("*",)
    stop: str | None = None
    patience: int = 3
    augment: bool = True
    seed: int = 0
    measure_epochs: tuple[int, ...] = (0,)


class OverlapConfig(NamedTuple):
    """How channels are measured.

    Attributes:
        images: number of training images, drawn once from the run's seed.
        neighbors: candidates K of every NNK problem.
        similarity: ``"gaussian"`` (bandwidth: distance to the K-th neighbour / 3) or ``"cosine"``.
        layers: patterns of layer names; all layers by default.
        at_epochs: epochs measured; all kept checkpoints by default.
    """

    images: int = 1000
    neighbors: int = 25
    similarity: Literal["gaussian", "cosine"] = "gaussian"
    layers: tuple[str, ...] = ("*",)
    at_epochs: tuple[int, ...] | None = None


class PruneConfig(NamedTuple):
    """How conv kernels are scored, pruned and the network fine-tuned.

    Attributes:
        criteria: names in ``jnnk.pruning.CRITERIA``, or ``"taylor"``.
        criterion: the one by which the network is pruned in the end.
        shares: shares of conv kernels pruned in the sweep, ascending in [0, 1).
        share: share pruned in the end; None picks the largest of ``shares`` within ``tolerance``.
        tolerance: accuracy that may be lost before fine-tuning, in percentage points.
        sweep_images: test images used by the sweep, the first ones; the final accuracies use all.
        finetune_epochs: epochs of training under the mask; None takes a tenth of the training's,
            at least one.
        finetune_learning_rate: peak rate of it.
    """

    criteria: tuple[str, ...]
    criterion: str = "spectral_radius"
    shares: tuple[float, ...] = (*(round(0.05 * n, 2) for n in range(11)), 0.6, 0.7, 0.8, 0.9)
    share: float | None = None
    tolerance: float = 1.0
    sweep_images: int = 1000
    finetune_epochs: int | None = None
    finetune_learning_rate: float = 0.01


class ChannelConfig(NamedTuple):
    """How inner channels are chosen and the network fine-tuned.

    Attributes:
        channels: a key of ``jnnk.pruning.CHANNEL_CRITERIA``, or ``"taylor"``.
        share: of the inner channels of every layer that are removed.
        layer_shares: shares of single layers, each ``"PATTERN=SHARE"``.
        round_to: the number of channels kept of a layer is rounded up to a multiple of it.
        images: training images of the graphs, or of the gradients.
        neighbors: their candidates K.
        finetune_epochs: epochs of training under the mask; None takes a tenth of the training's,
            at least one.
        finetune_learning_rate: peak rate of it.
    """

    channels: str
    share: float = 0.5
    layer_shares: tuple[str, ...] = ()
    round_to: int = 1
    images: int = 1000
    neighbors: int = 15
    finetune_epochs: int | None = None
    finetune_learning_rate: float = 0.01


def spread_epochs(epochs: int, *, count: int = 4) -> tuple[int, ...]:
    """``count`` epochs from 0 to ``epochs``, denser at the start, where a network changes most."""
    return tuple(sorted({round(epochs * (index / (count - 1)) ** 2) for index in range(count)}))
