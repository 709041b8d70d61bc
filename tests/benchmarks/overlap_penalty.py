"""What the overlap penalty adds to a training step of ResNet-20, both timed in one run.

Batch 128, all 64 channels of the last layer, K = 12 candidates, on the images of CIFAR-10 and
trained weights; the step without a penalty takes turns with one step for each kind.

    python tests/benchmarks/overlap_penalty.py ../shared
"""

import sys
from pathlib import Path

import jax
from timing import interleaved

from jnnk import models
from jnnk.data import load
from jnnk.penalties import PENALTIES, SOFT_OVERLAP_KINDS, make_regularizer
from jnnk.training import Batch, make_optimizer, make_train_step, start_state


def main():
    shared, size = Path(sys.argv[1]), 128
    data = load("cifar10", data_dir=shared / "tfds")
    model = models.create("resnet20", num_classes=10)
    variables = models.load_safetensors(model, shared / "weights/resnet20_cifar10.safetensors")
    batch = Batch(data.train_images[:size], data.train_labels[:size])
    optimizer = make_optimizer("sgd", learning_rate=1e-3, num_steps=1000)
    layers = {"layers": ("layer3_2/conv2",)}
    regularizers = {"no penalty": None}
    for kind in SOFT_OVERLAP_KINDS:
        options = layers | {"kind": kind}
        regularizers[f"overlap, {kind}"] = make_regularizer("overlap", strength=0.1, **options)
    for name in PENALTIES.keys() - {"overlap"}:
        regularizers[name] = make_regularizer(name, strength=0.1, **layers)

    def stepper(regularizer):
        step = make_train_step(
            model, optimizer, normalization=data.normalization, regularizer=regularizer
        )
        state = start_state(optimizer, jax.random.key(0), variables)

        def call():
            nonlocal state
            state, metrics = step(state, batch)
            return metrics

        return call

    times = interleaved({name: stepper(each) for name, each in regularizers.items()})
    whole = times["no penalty"]
    for name, time in times.items():
        more = [100 * (a / b - 1) for a, b in zip(time[1:], whole[1:], strict=True)]
        print(
            f"{name:20s} {1e3 * time.wall:7.1f} ms a step ({more[0]:+.0f} %), "
            f"{1e3 * time.processor:7.1f} ms of processor ({more[1]:+.0f} %), "
            f"first call {time.first:.1f} s"
        )


if __name__ == "__main__":
    main()
