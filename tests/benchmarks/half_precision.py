"""What activations in half precision cost: how far graphs and overlap agree with float32.

The layers are those of ``overlap_kinds.py``, 2,000 training images of CIFAR-10, K = 25. Only the
activations are rounded; graphs are computed in float32 from them, as always.

    python tests/benchmarks/half_precision.py ../shared
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from overlap_kinds import IMAGES, networks
from scipy.stats import spearmanr

import jnnk
from jnnk.data import Normalization, load
from jnnk.graphs import cosine, gaussian
from jnnk.network import capture
from jnnk.training import make_predict

HEAD = (
    "| layer | similarity | dtype | supports the same (%) | Jaccard of supports | "
    "overlap, float32 | overlap | Spearman of pairs |\n|---|---|---|---|---|---|---|---|"
)


def agreement(graph, other):
    """Share of the queries with the same support, and the mean Jaccard index of the two."""
    same, jaccard = [], []
    for indices, weights, others, their in zip(
        *(np.asarray(each) for each in (graph.indices, graph.weights)),
        *(np.asarray(each) for each in (other.indices, other.weights)), strict=True,
    ):  # fmt: skip
        for row in range(len(indices)):
            first = set(indices[row][weights[row] > 0])
            second = set(others[row][their[row] > 0])
            if first | second:
                same.append(first == second)
                jaccard.append(len(first & second) / len(first | second))
    return np.mean(same), np.mean(jaccard)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    shared = parser.parse_args().shared
    data = load("cifar10", data_dir=shared / "tfds")
    print(HEAD)
    for name, model, variables, normalisation, layer in networks(shared):
        figures = normalisation or data.normalization
        normalization = Normalization(*(each.astype("f") for each in figures))
        predict = make_predict(model, normalization=normalization)
        (captured,) = capture(predict, variables, data.train_images[:IMAGES], layers=[layer])
        for title, similarity in (("Gaussian", gaussian()), ("cosine", cosine())):
            graphs = {
                dtype: jnnk.channelwise_nnk_graph(
                    jnp.asarray(captured.values).astype(dtype),
                    num_neighbors=25, similarity=similarity,
                )
                for dtype in ("float32", "float16", "bfloat16")
            }  # fmt: skip
            overlaps = {k: np.asarray(jnnk.channel_overlap(graph)) for k, graph in graphs.items()}
            live = np.all([np.isfinite(np.diagonal(each)) for each in overlaps.values()], axis=0)
            pairs = np.triu(live[:, None] & live, 1)
            whole = overlaps["float32"][pairs]
            for dtype in ("float16", "bfloat16"):
                same, jaccard = agreement(graphs["float32"], graphs[dtype])
                half = overlaps[dtype][pairs]
                print(
                    f"| {name} | {title} | {dtype} | {100 * same:.1f} | {jaccard:.4f} | "
                    f"{whole.mean():.5f} | {half.mean():.5f} | {spearmanr(whole, half)[0]:.4f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
