"""Settings of the pruning paper's protocol (arXiv 2102.02804) by name."""

from typing import NamedTuple

from jnnk.pruning import CRITERIA

THRESHOLD_CRITERIA = tuple(name for name in CRITERIA if name != "random")
"""The criteria a significance threshold means something to."""


class ProtocolConfig(NamedTuple):
    """L1 training, pruning at a threshold, retraining under the mask without the penalty."""

    scratch: bool  # train from a random start; else go on from the run's trained network
    epochs: int  # of the L1 training
    retrain_epochs: int  # under the mask
    optimizer: str = "adam"  # ``"sgd"`` or ``"adam"``
    learning_rate: float = 1e-3  # peak rate of both trainings, falling to 0 by a cosine in each
    batch_size: int = 128  # images per step
    l1: float = 1e-4  # strength of the penalty on conv kernels
    threshold: float = 1e-4  # significance threshold, in the unit of the weights
    # names of criteria, all applied to the same network
    criteria: tuple[str, ...] = THRESHOLD_CRITERIA
    seeds: tuple[int, ...] = (0, 1, 2)  # one repetition each


PROTOCOLS: dict[str, ProtocolConfig] = {
    # 400 epochs in all, as the authors' code divides them.
    "paper": ProtocolConfig(scratch=True, epochs=200, retrain_epochs=200),
    "paper-pretrained": ProtocolConfig(
        scratch=False, epochs=200, retrain_epochs=200, learning_rate=1e-4
    ),
    # Minutes on two cores with a small network: fewer steps need a stronger penalty.
    "short": ProtocolConfig(
        scratch=False, epochs=20, retrain_epochs=2, batch_size=64, l1=1e-3, threshold=1e-3,
        seeds=(0, 1),
    ),
}  # fmt: skip

PAPER_NETWORKS: tuple[tuple[str, str, str], ...] = tuple(
    (model, dataset, "paper" if model != "resnet50" else "paper-pretrained")
    for model in ("resnet32", "resnet56", "resnet110", "resnet50")
    for dataset in ("cifar10", "cifar100", "tiny_imagenet")
)
"""(model, data set, protocol) of every experiment in the paper; ResNet-50 from ImageNet weights."""
