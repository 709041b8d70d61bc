"""Files from others, damaged at random: an error that names the file, or data of the right form.

Nothing is executed, nothing outside of the file is touched, and a header that promises more than
the file holds costs no memory.
"""

import json
import os
import pathlib
import random
import resource
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jnnk import InputError, make_masks, models
from jnnk.cli import networks
from jnnk.data import _own_data as own_data
from jnnk.data._image_files import read_images
from jnnk.data._tfds_features import check_features
from jnnk.models.weights import WeightsError, load_safetensors, save_safetensors
from jnnk.pruning import load_masks, save_masks
from jnnk.report.figures.channels import ChannelPictures
from jnnk.runs.folder import create_run, open_run
from jnnk.runs.json_files import read_json, read_json_lines, write_json, write_json_lines
from jnnk.runs.overlap_files import LayerArrays, read_npz, write_npz
from jnnk.runs.settings import TrainConfig

# For hours of it: JNNK_FUZZ_CASES=1000000 pytest --numprocesses auto tests/test_fuzz.py
CASES = int(os.environ.get("JNNK_FUZZ_CASES", "1000"))
SLOW = {"convnet_archive": CASES * 3 // 20}  # every load asks the model for its shapes
MODEL = models.create("convnet5", num_classes=2)
SHAPE = (1, 32, 32, 3)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros(SHAPE))


def weights_file(path, variables):
    save_safetensors(MODEL, variables, path)
    return lambda: load_safetensors(MODEL, path, image_shape=SHAPE[1:])


def convnet_archive(path, variables):
    arrays = {}
    for name, layer in variables["params"].items():
        arrays |= {f"epoch00/W_{name}": layer["kernel"], f"epoch00/b_{name}": layer["bias"]}
    arrays = {name.replace("_fc", "_fc1"): np.asarray(value) for name, value in arrays.items()}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return lambda: networks.load_epoch(MODEL, path, 0)


def masks_file(path, variables):
    params = variables["params"]
    save_masks(path, make_masks(params, criterion="weight", keep_rate=0.5))
    return lambda: load_masks(path, params)


def arrays_file(path, variables):
    with path.open("wb") as file:
        np.savez(file, **LayerArrays(np.eye(3), np.ones(3), np.ones(3))._asdict())
    return lambda: read_npz(path, LayerArrays)


def own_npz(path, variables):
    images, labels = np.zeros((6, 4, 5, 3), np.uint8), np.arange(6) % 2
    with path.open("wb") as file:
        np.savez(file, train_images=images, train_labels=labels, class_names=["ant", "bee"])
    return lambda: own_data.read_npz(path)[0]


def png_file(path, variables):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    Image.fromarray(pixels).save(path, "PNG")
    return lambda: read_images([path])


def json_file(path, variables):
    path.write_text(json.dumps({"epoch": 1, "layers": [{"name": "conv1", "overlap": 0.25}]}))
    return lambda: read_json(path)


def json_lines_file(path, variables):
    write_json_lines(path, [{"epoch": epoch, "loss": 0.5} for epoch in range(3)])
    return lambda: read_json_lines(path)


def features_file(path, variables):
    core = "tensorflow_datasets.core.features."
    image = {"pythonClassName": core + "image_feature.Image", "image": {"dtype": "uint8"}}
    label = {
        "pythonClassName": core + "class_label_feature.ClassLabel",
        "classLabel": {"numClasses": "3"},
    }
    whole = {
        "pythonClassName": core + "features_dict.FeaturesDict",
        "featuresDict": {"features": {"image": image, "label": label}},
    }
    folder = path.parent / "sets" / "run" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(json.dumps(whole))
    path.symlink_to(folder / "features.json")
    return lambda: check_features("run", path.parent / "sets")


def settings_file(path, variables):
    write_json(path, TrainConfig(measure_epochs=(0, 2), mean=(0.5,)))
    return lambda: read_json(path, kind=TrainConfig)


def pictures_file(path, variables):
    images = np.zeros((2, 3, 4, 5, 3), np.uint8)
    weights = np.ones((2, 3))
    write_npz(path, ChannelPictures(np.arange(2), images, weights, images[0, 0], images, weights))
    return lambda: read_npz(path, ChannelPictures)


def config_file(path, variables):
    folder = path.parent / "run"
    create_run(folder, {"model": "resnet8", "epochs": 2})
    path.symlink_to(folder / "config.json")
    return lambda: open_run(folder)


FILES = (
    weights_file, convnet_archive, masks_file, arrays_file, own_npz, png_file, json_file,
    json_lines_file, config_file, features_file, settings_file, pictures_file,
)  # fmt: skip


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut out, repeated, put in, or the end cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        # Headers are short and say the most: half of the damage goes there.
        place = rng.randrange(max(1, min(len(data), rng.choice((64, 512, len(data) or 1)))))
        length = rng.choice((1, 1, 4, 16))
        match rng.randrange(5):
            case 0:
                data[place : place + length] = rng.randbytes(length)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length]
            case 3:
                data[place:place] = rng.choice((b"\x00", b"\xff" * 8, b"9" * 12, b'"', b"}", b"["))
            case 4:
                del data[place:]
    return bytes(data)


@pytest.mark.thorough
@pytest.mark.parametrize("make", FILES)
def test_damaged_files(make, variables, tmp_path):
    path = tmp_path / "file"
    load = make(path, variables)
    content, form = path.read_bytes(), form_of(load())
    rng = random.Random(make.__name__)
    before = peak_memory()
    failed = 0
    cases = SLOW.get(make.__name__, CASES)
    for case in range(cases):
        path.write_bytes(damaged(content, rng))
        try:
            found = load()
        except (InputError, WeightsError) as error:
            failed += 1
            assert "file" in str(error) or "run" in str(error), f"case {case}: {error}"
        else:
            if not make.__name__.startswith(("json", "config", "settings")):
                assert form_of(found) == form, f"case {case}"
    assert failed > cases / 10
    assert peak_memory() - before < 256 * 2**20


def test_a_header_that_never_ends(tmp_path, variables):
    """numpy's parser has an error of its own for it, which half a million damages did not meet."""
    path = tmp_path / "file"
    npy = np.lib.format.magic(1, 0) + struct.pack("<H", 64) + b"{'descr': (".ljust(63) + b"\n"
    for names, load in (
        (LayerArrays._fields, lambda: read_npz(path, LayerArrays)),
        (["epoch00/W_conv0"], lambda: networks.load_epoch(MODEL, path, 0)),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(f"{name}.npy", npy)
        with pytest.raises(InputError, match="file"):
            load()


def test_nothing_pickled_is_read(tmp_path, variables):
    """An archive whose member is a pickle that would make a file."""
    path, made = tmp_path / "file", tmp_path / "made"

    class Trap:
        def __reduce__(self):
            return pathlib.Path.touch, (made,)

    trap = np.array([Trap()], dtype=object)
    names = LayerArrays._fields
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, **dict.fromkeys(names, trap))
    with pytest.raises(InputError, match="file"):
        read_npz(path, LayerArrays)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, train_images=trap, train_labels=trap)
    with pytest.raises(InputError, match="file"):
        own_data.read_npz(path)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, **{"epoch00/W_conv0": trap})
    with pytest.raises(InputError, match="file"):
        networks.load_epoch(MODEL, path, 0)
    assert not made.exists()


def form_of(value):
    """Structure, shapes and dtypes."""
    return jax.tree.map(lambda leaf: (np.shape(leaf), np.asarray(leaf).dtype), value)


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
