"""The claim of DeepNNK on its own networks: NNK error < softmax error < weighted kNN error.

Queries are the 10,000 test images of CIFAR-10, points its 50,000 training images, both as the last
conv's pooled activations after the last epoch; cosine similarity, K = 50. And the leave-one-out
error of the first 10,000 training images, which should be nearer to the test error than the
training error is.

    python tests/benchmarks/deepnnk.py ../shared
"""

import argparse
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jnnk import models
from jnnk.data import load
from jnnk.files.archives import read_folder
from jnnk.graphs import cosine, nnk_graph
from jnnk.measures import error_rate, knn_graph, label_interpolation
from jnnk.network import capture

LAYER = "conv5"
PUBLISHED = {"dropout": (23.98, 27.86, 21.71), "overfit": (27.75, 35.12, 26.12)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--num-neighbors", type=int, default=50)
    arguments = parser.parse_args()
    data = load("cifar10", data_dir=arguments.shared / "tfds")
    labels = jnp.asarray(data.train_labels)
    model = models.create("convnet6", num_classes=10)

    def apply_fn(variables, images):
        return model.apply(variables, images.astype(jnp.float32) / 255, train=False)

    def features(variables, images):
        (layer,) = capture(
            apply_fn, variables, images, layers=[LAYER], pooling="max", size=4, batch_size=500
        )
        return jnp.asarray(layer.values.reshape(len(images), -1))

    print("error in %  softmax    kNN    NNK  (published, lossless)  on training: softmax, NNK loo")
    for name, published in PUBLISHED.items():
        start = time.perf_counter()
        archive = arguments.shared / "reference" / f"deepnnk_ch32_{name}.npz"
        variables = models.from_tensorflow(model, read_folder(archive, "epoch19/"))
        train, test = (features(variables, x) for x in (data.train_images, data.test_images))
        captured = time.perf_counter()
        dense = variables["params"]["fc"]

        def errors(queries, truth, exclude=None, train=train, dense=dense):
            """Softmax, weighted kNN and NNK; the dense layer reads the very features."""
            predicted = np.asarray((queries @ dense["kernel"] + dense["bias"]).argmax(1))
            graph = nnk_graph(
                train,
                queries=queries,
                exclude=exclude,
                num_neighbors=arguments.num_neighbors,
                similarity=cosine(),
            )
            votes = [
                label_interpolation(used, labels, 10)
                for used in (knn_graph(graph, similarity=cosine()), graph)
            ]
            rates = [float(error_rate(vote, truth)) for vote in votes]
            return 100 * np.array([np.mean(predicted != truth), *rates])

        on_test = errors(test, data.test_labels)
        on_train = errors(train[:10_000], data.train_labels[:10_000], jnp.arange(10_000))
        end = time.perf_counter()
        print(
            f"{name:11s} {on_test[0]:7.2f} {on_test[1]:6.2f} {on_test[2]:6.2f}  {published}  "
            f"{on_train[0]:.2f}, {on_train[2]:.2f}  "
            f"(forward {captured - start:.0f} s, graphs {end - captured:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
