"""Which images show what a channel says: known means and known neighbours."""

import jax.numpy as jnp
import numpy as np
import pytest

from jnnk import InputError
from jnnk.cli.configs import chosen_channels
from jnnk.cli.parser import make_parser
from jnnk.graphs import NNKGraph
from jnnk.jobs.channel_pictures import check_channels
from jnnk.report.figures.channels import channel_rows, pick_pictures

# Image n is of the grey value n.
IMAGES = np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None, None], (5, 4, 4, 1))
MEANS = np.array([[1.0, 0.0], [4.0, 0.2], [3.0, 8.0], [0.0, 9.0], [2.0, 1.0]])


def graph_of(weights, indices):
    weights = jnp.asarray(weights, jnp.float32)
    zeros = jnp.zeros(weights.shape[:2])
    return NNKGraph(jnp.asarray(indices), weights, zeros, zeros, zeros == 0, weights, zeros > 0)


def picked(number=8):
    weights, indices = np.zeros((2, 5, 3)), np.full((2, 5, 3), -1)
    weights[0, 2], indices[0, 2] = (0.2, 0.0, 0.7), (4, 0, 1)
    return pick_pictures(IMAGES, MEANS, graph_of(weights, indices), np.array([6, 3]), number=number)


def test_top_images_and_neighbours():
    pictures = picked()
    assert pictures.top_images[..., 0, 0, 0].tolist() == [[1, 2, 4, 0, 3], [3, 2, 4, 1, 0]]
    assert pictures.top_means.tolist() == [[4, 3, 2, 1, 0], [9, 8, 1, 0.2, 0]]
    assert pictures.example[0, 0, 0] == 2  # 3/4 and 8/9 of the channels' largest
    np.testing.assert_allclose(pictures.neighbor_weights, [[0.7, 0.2, 0], [0, 0, 0]], rtol=1e-6)
    assert pictures.neighbor_images[0, :2, 0, 0, 0].tolist() == [1, 4]
    few = picked(number=2)
    assert few.top_images.shape[:2] == (2, 2) and few.neighbor_weights.shape == (2, 1)


def test_the_figure_writes_weights_and_the_pairs_overlap():
    overlap = np.eye(7)
    overlap[3, 6] = overlap[6, 3] = 0.25
    figure = channel_rows("conv1", picked(), overlap)
    assert figure.get_suptitle() == "conv1: channels 6 and 3 overlap 0.250"
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(figure.axes[0].images) == 14
    assert [text for text in texts if "channel" not in text] == [
        "4", "3", "2", "1", "0", "the image", "0.7", "0.2",
        "9", "8", "1", "0.2", "0", "the image",
    ]  # fmt: skip


def parsed(*options):
    return chosen_channels(make_parser().parse_args(["overlap", "run", *options]))


def test_channels_on_the_command_line():
    assert parsed() is None
    assert parsed("--channels", "conv1:3, a/b:0,conv1:7,conv1:3") == {"conv1": (3, 7), "a/b": (0,)}
    for wrong in ("conv1", "conv1:", ":3", "conv1:-1", "conv1:x", "conv1:3,"):
        with pytest.raises(InputError, match="expected LAYER:INDEX"):
            parsed("--channels", wrong)


def test_channels_that_are_not_measured():
    shapes = {"conv1": (8, 8, 4)}
    check_channels({"conv1": (0, 3)}, shapes)
    with pytest.raises(InputError, match="--channels conv2: not measured; measured: conv1"):
        check_channels({"conv2": (0,)}, shapes)
    with pytest.raises(InputError, match=r"--channels conv1: \[4\] are not among its 4 channels"):
        check_channels({"conv1": (0, 4)}, shapes)
