"""How far the kinds of overlap agree: rank correlations over the pairs of channels of one layer.

The channels are those of the last conv of a public ConvNet and of a ResNet-20, 2,000 training
images of CIFAR-10, K = 25, Gaussian similarity.

    python tests/benchmarks/overlap_kinds.py ../shared
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

import jnnk
from jnnk import models
from jnnk.data import Normalization, load
from jnnk.files.archives import read_folder
from jnnk.measures import OVERLAP_KINDS, chance_overlap
from jnnk.network import capture
from jnnk.training import make_predict

IMAGES = 2000


def networks(shared):
    """Name, model, variables, normalisation and layer of each network."""
    convnet = models.create("convnet6", num_classes=10)
    archive = shared / "reference" / "deepnnk_ch32_dropout.npz"
    weights = models.from_tensorflow(convnet, read_folder(archive, "epoch19/"))
    yield "ch32_dropout, conv5", convnet, weights, (np.zeros(3), np.ones(3)), "conv5"
    resnet = models.create("resnet20", num_classes=10)
    weights = models.load_safetensors(resnet, shared / "weights" / "resnet20_cifar10.safetensors")
    yield "ResNet-20, layer3_2/conv2", resnet, weights, None, "layer3_2/conv2"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    shared = parser.parse_args().shared
    data = load("cifar10", data_dir=shared / "tfds")
    for name, model, variables, normalisation, layer in networks(shared):
        figures = normalisation or data.normalization
        normalization = Normalization(*(each.astype("f") for each in figures))
        predict = make_predict(model, normalization=normalization)
        (captured,) = capture(predict, variables, data.train_images[:IMAGES], layers=[layer])
        graph = jnnk.channelwise_nnk_graph(jnp.asarray(captured.values), num_neighbors=25)
        overlaps = {kind: jnnk.channel_overlap(graph, kind=kind) for kind in OVERLAP_KINDS}
        live = np.isfinite(np.diagonal(overlaps["jaccard"]))
        pairs = np.triu(live[:, None] & live, 1)
        values = {kind: np.asarray(overlap)[pairs] for kind, overlap in overlaps.items()}
        chance = np.asarray(chance_overlap(graph, num_candidates=IMAGES - 1))[pairs].mean()
        print(f"\n{name}: {pairs.sum()} pairs of {live.sum()} channels, by chance {chance:.4f}")
        print("| | mean | " + " | ".join(values) + " |")
        print("|---|---|" + "---|" * len(values))
        for kind, ours in values.items():
            row = " | ".join(f"{spearmanr(ours, other)[0]:.3f}" for other in values.values())
            print(f"| {kind} | {ours.mean():.4f} | {row} |", flush=True)


if __name__ == "__main__":
    main()
