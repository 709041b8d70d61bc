"""One's own images: what is read from a file or folder, and one line for all that can be wrong."""

import io
import json
import os
import re
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny import error_of

from jnnk import InputError, data
from jnnk.cli import configs, main
from jnnk.cli.parser import make_parser

# --- an .npz file


def arrays(*, count=30, size=(6, 5), channels=(3,), classes=3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *size, *channels), np.uint8)
    return {"train_images": images, "train_labels": np.arange(count) % classes}


def write_npz(path, **changes):
    """A good file with some of its arrays changed; None leaves an array out."""
    found = {**arrays(), **changes}
    np.savez(path, **{name: value for name, value in found.items() if value is not None})
    return path


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_npz_with_a_test_split(tmp_path, channels, dtype):
    whole = arrays(channels=channels)
    images, labels = whole["train_images"], whole["train_labels"].astype(dtype)
    test = {"test_images": images[:7] // 2, "test_labels": np.full(7, 1, dtype)}  # one class only
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, train_images=images, train_labels=labels, **test)
    loaded = data.load(path)
    assert loaded.name == "mine.npz"
    assert loaded.class_names == ("0", "1", "2")
    assert loaded.train_images.dtype == np.uint8
    assert loaded.train_labels.dtype == loaded.test_labels.dtype == np.int32
    np.testing.assert_array_equal(loaded.train_images, images.reshape(30, 6, 5, -1))
    np.testing.assert_array_equal(loaded.test_images, test["test_images"].reshape(7, 6, 5, -1))
    np.testing.assert_array_equal(loaded.train_labels, whole["train_labels"])
    np.testing.assert_array_equal(loaded.test_labels, 1)
    scaled = loaded.train_images.astype(np.float64) / 255
    np.testing.assert_allclose(loaded.normalization.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(loaded.normalization.std, scaled.std((0, 1, 2)), rtol=1e-6)


def test_npz_without_a_test_split_is_split(tmp_path):
    path = write_npz(tmp_path / "cifar10.npz", class_names=["wasp", "ant", "bee"])
    loaded = data.load(str(path))
    assert loaded.class_names == ("wasp", "ant", "bee")
    np.testing.assert_array_equal(np.bincount(loaded.test_labels), [2, 2, 2])
    np.testing.assert_array_equal(np.bincount(loaded.train_labels), [8, 8, 8])
    assert loaded.normalization.mean[0] != np.float32(0.485)  # CIFAR-10's figures go by its name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_labels": None}, "expected the arrays train_images, train_labels and perhaps"),
        ({"x_train": np.zeros(3)}, "it has train_images, train_labels, x_train"),
        ({"train_images": np.zeros((30, 6, 5, 3))}, "expected uint8 from 0 to 255, got float64"),
        ({"train_images": np.zeros((30, 3, 6, 5), np.uint8)}, "got (30, 3, 6, 5)"),
        ({"train_images": np.zeros((30, 4), np.uint8)}, "got (30, 4)"),
        ({"train_images": np.zeros((0, 6, 5), np.uint8)}, "got (0, 6, 5)"),
        ({"train_images": np.zeros((30, 0, 5), np.uint8)}, "got (30, 0, 5)"),
        ({"train_labels": np.zeros(29, int)}, "expected 30 integers, one per image, got int64 of"),
        ({"train_labels": np.zeros((30, 3), int)}, "of shape (30, 3)"),
        ({"train_labels": np.zeros((30, 1, 1), int)}, "of shape (30, 1, 1)"),
        ({"train_labels": np.arange(30) % 3 / 1}, "got float64"),
        ({"train_labels": np.arange(30) % 3 - 1}, "numbered from 0, they run from -1 to 1"),
        ({"train_labels": np.uint64(2**63) * (np.arange(30) % 2 == 1)}, f"0 to {2**63}"),
        ({"train_labels": np.arange(30) % 3 + 1}, "got 3 different ones from 1 to 3"),
        ({"train_labels": np.arange(30) % 2 * 10**9}, "expected all of 0 to 1 for 2 classes"),
        ({"train_labels": np.zeros(30, int)}, "expected two classes or more, got 1"),
        ({"class_names": ["a", "b", "c", "d"]}, "0 to 3 for 4 classes, got 3 different ones"),
        ({"class_names": ["a", "b"]}, "0 to 1 for 2 classes, got 3 different ones"),
        ({"class_names": ["a", "b", "a"]}, "no two the same"),
        ({"class_names": [1, 2, 3]}, "expected texts"),
        ({"class_names": [["a", "b", "c"]]}, "of shape (1, 3)"),
        ({"class_names": np.array([], str)}, "expected all of"),
        ({"test_images": np.zeros((2, 6, 5, 3), np.uint8)}, "test_labels is missing"),
        ({"test_labels": np.zeros(2, int)}, "test_images is missing"),
    ],
)
def test_npz_that_is_not_as_expected(tmp_path, changes, said):
    path = write_npz(tmp_path / "mine.npz", **changes)
    message = error_of(path)
    assert str(path) in message and said in message


@pytest.mark.parametrize(
    ("shape", "labels", "said"),
    [
        ((2, 6, 6, 3), [0, 1], "like train_images, got (6, 6, 3); image_size=N makes all N x N"),
        ((2, 6, 5), [0, 1], "like train_images, got (6, 5, 1)"),
        ((2, 6, 5, 3), [0, 3], "test labels run from 0 to 3, expected 0 to 2"),
        ((0, 6, 5, 3), np.zeros(0, int), "got (0, 6, 5, 3)"),
    ],
)
def test_npz_whose_test_split_does_not_fit(tmp_path, shape, labels, said):
    test = {"test_images": np.zeros(shape, np.uint8), "test_labels": labels}
    message = error_of(write_npz(tmp_path / "mine.npz", **test))
    assert "mine.npz" in message and said in message


def test_npz_too_small_to_be_split(tmp_path):
    path = write_npz(tmp_path / "mine.npz", **arrays(count=6))
    message = error_of(path)
    assert "'mine.npz' has no test images" in message
    assert "at most 2 a class) is none: give 3 or more images of a class, or test images" in message


def test_npz_with_a_class_too_small_to_be_split(tmp_path):
    labels = np.arange(30) % 2
    labels[:2] = 2
    loaded = data.load(write_npz(tmp_path / "mine.npz", train_labels=labels))
    assert set(loaded.test_labels.tolist()) == {0, 1}
    assert loaded.test_split == (
        "a fifth of every class, held out; none of 2, which have too few images"
    )


@pytest.mark.parametrize("given", [("test", "val"), ("val",), ("test",)])
def test_npz_of_medmnist(tmp_path, given):
    """The published files' own names, shapes and dtypes."""
    rng = np.random.default_rng(0)
    splits = {}
    for number, split in enumerate(("train", *given)):
        count = 40 - 10 * number
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 2)[:, None].astype(np.uint8)
        splits |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(tmp_path / "mnist.npz", **splits)
    loaded = data.load(tmp_path / "mnist.npz")
    tested = splits[f"{given[0]}_images"]
    np.testing.assert_array_equal(loaded.train_images[..., 0], splits["train_images"])
    np.testing.assert_array_equal(loaded.test_images[..., 0], tested)
    np.testing.assert_array_equal(loaded.test_labels, np.arange(len(tested)) % 2)
    assert loaded.test_split == {1: given[0], 2: "test (val left out)"}[len(given)]


def test_no_npz(tmp_path):
    assert "No such file" in error_of(tmp_path / "none.npz")
    assert "expected a file, found a folder" in error_of(
        tmp_path.rename(tmp_path.with_suffix(".npz"))
    )


def test_npz_that_is_a_single_array(tmp_path):
    path = tmp_path / "mine.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert f"{path}: cannot be read as a numpy archive" in error_of(path)


def test_headers_that_promise_too_much_or_too_little(tmp_path):
    path = tmp_path / "mine.npz"
    for shape in ((10**7, 100, 100, 3), (1, 2, 2)):
        header = io.BytesIO()
        found = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, found)
        with zipfile.ZipFile(write_npz(path, train_images=None), "a") as archive:
            archive.writestr("train_images.npy", header.getvalue() + bytes(100))
        assert f"{path}: cannot be read as a numpy archive" in error_of(path)


# --- a folder


def write_images(folder, counts, *, mode="RGB", size=(5, 6), suffix=".png"):
    """Files 0.png, 1.png, ... of each class, and their pixels by class and number."""
    rng = np.random.default_rng(len(str(folder)))
    pixels = {}
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
            pixels[name, index] = rng.integers(0, 256, shape, np.uint8)
            Image.fromarray(pixels[name, index]).save(folder / name / f"{index}{suffix}")
    return pixels


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("test_split", ["test", "val", "valid", "validation", "Test", "testing"])
def test_folder_with_a_test_split(tmp_path, mode, test_split):
    train = write_images(tmp_path / "train", {"wasp": 2, "ant": 3, "Bee": 1}, mode=mode)
    test = write_images(tmp_path / test_split, {"wasp": 1, "ant": 2}, mode=mode, suffix=".BMP")
    (tmp_path / "train" / ".hidden").mkdir()
    harmless = ("ant/Thumbs.db", "ant/.0.png", "ant/.DS_Store", "ant/0.json", "ant/boxes.XML",
                "wasp/0.txt", "labels.csv", "ant/@eaDir/0.png", "../LICENSE", ".x.png")  # fmt: skip
    (tmp_path / "train" / "ant" / "@eaDir").mkdir()
    for stray in harmless:
        (tmp_path / "train" / stray).write_text("no image")
    loaded = data.load(tmp_path)
    assert loaded.name == f"{tmp_path.name}/"
    assert loaded.class_names == ("Bee", "ant", "wasp")
    np.testing.assert_array_equal(loaded.train_labels, [0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(loaded.test_labels, [1, 1, 2])
    order = [("Bee", 0), ("ant", 0), ("ant", 1), ("ant", 2), ("wasp", 0), ("wasp", 1)]
    expected = np.stack([train[key] for key in order]).reshape(6, 6, 5, -1)
    np.testing.assert_array_equal(loaded.train_images, expected)
    expected = np.stack([test["ant", 0], test["ant", 1], test["wasp", 0]]).reshape(3, 6, 5, -1)
    np.testing.assert_array_equal(loaded.test_images, expected)


def test_folder_without_splits(tmp_path):
    """Without folders in it, train is a class like others."""
    write_images(tmp_path, {"train": 10, "plane": 5})
    (tmp_path / "__MACOSX" / "train").mkdir(parents=True)
    loaded = data.load(tmp_path)
    assert loaded.test_split == "a fifth of every class, held out"
    assert loaded.class_names == ("plane", "train")
    np.testing.assert_array_equal(np.bincount(loaded.train_labels), [4, 8])
    np.testing.assert_array_equal(np.bincount(loaded.test_labels), [1, 2])


def test_kinds_of_pixels(tmp_path):
    write_images(tmp_path, {"a": 4, "b": 5})
    grey, colour = tmp_path / "a" / "0.png", tmp_path / "a" / "1.png"
    with Image.open(colour) as image:
        image.quantize(4).save(colour)  # a palette is colour
    assert data.load(tmp_path).train_images.shape[1:] == (6, 5, 3)
    Image.new("1", (5, 6)).save(tmp_path / "b" / "3.png")
    message = error_of(tmp_path)
    assert str(tmp_path / "b" / "3.png") in message and f"like {grey}" in message
    assert "expected 6x5 pixels (height x width), RGB" in message and message.endswith("grey")


def test_folder_with_several_test_splits(tmp_path):
    train = write_images(tmp_path / "Training", {"a": 2, "b": 2})
    for value, split in ((1, "val"), (2, "test"), (3, "valid")):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.new("RGB", (5, 6), (value,) * 3).save(tmp_path / split / "a" / "0.png")
    loaded = data.load(tmp_path)
    np.testing.assert_array_equal(loaded.train_images[0], train["a", 0])
    assert loaded.test_images.shape == (1, 6, 5, 3) and (loaded.test_images == 2).all()
    assert loaded.test_split == "test (val and valid left out)"
    write_images(tmp_path / "extra", {"a": 1})
    assert f"{tmp_path / 'extra'}: it holds images beside Training but is none of" in error_of(
        tmp_path
    )


def test_folder_of_test_images_alone(tmp_path):
    for split in ("Test", "val"):
        write_images(tmp_path / split, {"a": 2, "b": 2})
    assert "expected one folder train beside test or val" in error_of(tmp_path)


def test_images_in_folders_of_a_class(tmp_path):
    """Also by a link, and not for ever where one leads back."""
    paths = ["0.png", "2020/0.png", "2020/deep/1.jfif", "2021/0.JPE"]
    for name in ("a", "b"):
        for number, path in enumerate(paths):
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            kind = "PNG" if file.suffix == ".png" else "JPEG"
            Image.new("L", (8, 8), 20 * number).save(file, kind, quality=100)
        (tmp_path / name / "__MACOSX").mkdir()
        (tmp_path / name / "__MACOSX" / "0.png").write_text("no image")
        (tmp_path / name / "back").symlink_to(tmp_path / name)
    loaded = data.load(tmp_path)
    labels = np.concatenate([loaded.train_labels, loaded.test_labels])
    np.testing.assert_array_equal(np.bincount(labels), [4, 4])
    images = np.concatenate([loaded.train_images, loaded.test_images])
    assert images.max() == 60 and set(images[:, 0, 0, 0].tolist()) == {0, 20, 40, 60}


@pytest.mark.parametrize(
    "suffix", [".HEIC", ".avif", ".svg", ".dcm", "", ".dat", ".nef", ".exr", ".pfm", ".npy", ".zip"]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_files_of_a_class_that_are_not_read_are_named(tmp_path, suffix, split):
    for each in ("train", "test"):
        write_images(tmp_path / each, {"a": 3, "b": 3})
    (tmp_path / split / "b" / "deep").mkdir()
    paths = [tmp_path / split / "b" / f"deep/{number}{suffix}" for number in range(3)]
    for path in paths:
        path.write_bytes(b"...")
    assert f"{paths[0]}: files of this kind are not read (and 2 more)" in error_of(tmp_path)


@pytest.mark.parametrize("where", ["", "train", "test"])
@pytest.mark.parametrize("name", ["loose.png", "loose.JPG", "loose.heic"])
def test_images_beside_the_classes_are_named(tmp_path, where, name):
    for split in ("train", "test") if where else ("",):
        write_images(tmp_path / split, {"a": 3, "b": 3})
    (tmp_path / where / name).write_bytes(b"...")
    assert f"{tmp_path / where / name}: an image beside the folders of classes" in error_of(
        tmp_path
    )


def test_images_beside_the_splits_are_named(tmp_path):
    write_images(tmp_path / "train", {"a": 2, "b": 2})
    write_images(tmp_path / "test", {"a": 2, "b": 2})
    (tmp_path / "loose.png").write_bytes(b"...")
    assert f"{tmp_path / 'loose.png'}: an image beside" in error_of(tmp_path)


# --- splits under other names, and in other places


@pytest.mark.parametrize(
    ("train", "test"),
    [("training_set", "test_set"), ("TrainSet", "valset"), ("train-data", "Validation Data")],
)
def test_splits_are_read_under_other_spellings(tmp_path, train, test):
    trained = write_images(tmp_path / train, {"cat": 2, "dog": 3})
    tested = write_images(tmp_path / test, {"cat": 1, "dog": 1})
    loaded = data.load(tmp_path)
    assert loaded.class_names == ("cat", "dog") and loaded.test_split == test
    np.testing.assert_array_equal(loaded.train_labels, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(loaded.train_images[2], trained["dog", 0])
    np.testing.assert_array_equal(loaded.test_images[1], tested["dog", 0])


@pytest.mark.parametrize(
    "folders",
    [
        ("seg_test/{}", "seg_train/{}"),
        ("fold1/{}", "fold2/{}", "fold3/{}"),
        ("seg_test/seg_test/{}", "seg_train/seg_train/{}"),
        ("mine/{}", "others/{}"),
        ("train/fold1/{}", "train/fold2/{}"),
    ],
)
def test_splits_of_unknown_names_are_no_classes(tmp_path, folders):
    for number, folder in enumerate(folders):
        for name in ("cat", "dog"):
            write_images(tmp_path / folder.format(name), {".": 3 + number})
    write_images(tmp_path, {"z": 3} if "train" not in folders[0] else {})
    message = error_of(tmp_path)
    parts = [folder.split("/{}")[0].removeprefix("train/").split("/")[0] for folder in folders]
    assert f"{', '.join(parts[:-1])} and {parts[-1]} hold folders of the same names" in message
    assert "(cat, dog)" in message and "call one train and the other test" in message


def test_classes_may_hold_folders(tmp_path):
    """Of one common name, or of several beside images of their own."""
    for name in ("a", "b"):
        write_images(tmp_path / "one" / name / "2020", {".": 3})
        for year in ("2020", "2021"):
            write_images(tmp_path / "more" / name / year, {".": 3})
        Image.new("RGB", (5, 6)).save(tmp_path / "more" / name / "0.png")
    write_images(tmp_path / "one" / "b", {"2021": 3})
    for where, counts in (("one", [3, 6]), ("more", [7, 7])):
        loaded = data.load(tmp_path / where)
        labels = np.concatenate([loaded.train_labels, loaded.test_labels])
        np.testing.assert_array_equal(np.bincount(labels), counts)


@pytest.mark.parametrize("root", ["", "train"])
@pytest.mark.parametrize("split", ["test", "val", "Test_Set"])
def test_a_split_in_a_class_is_named(tmp_path, root, split):
    write_images(tmp_path / root / "cat", {"train": 4, split: 2})
    write_images(tmp_path / root / "dog", {"train": 4, split: 2})
    message = error_of(tmp_path)
    assert f"{tmp_path / root / 'cat' / split}: a split in the class cat" in message
    assert f"make it {tmp_path / split / 'cat'}, with" in message


def test_splits_without_classes_are_named(tmp_path):
    write_images(tmp_path, {"train": 4, "test": 2})
    assert "expected folders of classes in test and train; they hold none" in error_of(tmp_path)


def test_a_class_called_train_is_no_split(tmp_path):
    """It holds folders, but the other classes lie beside it."""
    write_images(tmp_path / "train", {"steam": 3, "electric": 3})
    write_images(tmp_path, {"plane": 3})
    assert f"{tmp_path / 'plane'}: it holds images beside train" in error_of(tmp_path)


# --- pixels


def load_alike(folder, save):
    """The pixels of a set of images that are all alike, or what is said of them."""
    for name in ("a", "b"):
        (folder / name).mkdir()
        for number in range(3):
            save(folder / name / f"{number}.png")
    try:
        return data.load(folder).train_images[0]
    except InputError as error:
        return str(error)


# What is seen where a picture of 2 rows and 3 columns is marked with each of EXIF's orientations,
# from the standard: which way the first row and the first column of the file lie.
SHOWN = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
STORED = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[3, 6], [2, 5], [1, 4]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[4, 1], [5, 2], [6, 3]],
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_photos_are_turned_upright(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.repeat(40 * np.array(STORED[orientation], np.uint8)[..., None], 3, axis=2)

    def save(path):
        Image.fromarray(stored).save(path, kind, exif=exif, lossless=True)

    np.testing.assert_array_equal(load_alike(tmp_path, save)[..., 0], 40 * SHOWN)


def test_a_jpeg_of_a_phone_held_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    stored = np.zeros((16, 24), np.uint8)
    stored[:, :8] = 200  # the left of the file is the top of the picture

    def save(path):
        Image.fromarray(stored).save(path, "JPEG", exif=exif, quality=95)

    pixels = load_alike(tmp_path, save)
    assert pixels.shape == (24, 16, 1)
    assert pixels[:8].min() > 150 and pixels[8:].max() < 50


def chunks(*parts):
    """A PNG of 3 x 2 pixels from its chunks."""
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in (*parts, (b"IEND", b"")):
        content += struct.pack(">I", len(body)) + kind + body
        content += struct.pack(">I", zlib.crc32(kind + body))
    return content


def deep(colour_type, values):
    """16 bits a channel."""
    row = b"\0" + np.full(3 * values, 300, ">u2").tobytes()
    header = struct.pack(">IIBBBBB", 3, 2, 16, colour_type, 0, 0, 0)
    content = chunks((b"IHDR", header), (b"IDAT", zlib.compress(row * 2)))
    return lambda path: path.write_bytes(content)


def tiff(values, *, sample_format=1):
    """3 x 2 pixels, the channels' planes one after the other, by TIFF 6.0; grey or colour."""
    planes = [np.full(6, value).astype(values.dtype).tobytes() for value in values]
    channels, size, bits = len(planes), len(planes[0]), 8 * values.dtype.itemsize
    tags = [
        (256, [3]), (257, [2]), (258, [bits] * channels), (259, [1]), (262, [1 + channels // 3]),
        (273, [8 + size * plane for plane in range(channels)]), (277, [channels]), (278, [2]),
        (279, [size] * channels), (284, [2]), (339, [sample_format] * channels),
    ]  # fmt: skip
    behind, entries, outside = 8 + channels * size, b"", b""
    for number, numbers in tags:
        content = np.asarray(numbers, "<u2").tobytes()
        if len(content) > 4:
            place = behind + 2 + 12 * len(tags) + 4 + len(outside)
            outside, content = outside + content, struct.pack("<I", place)
        entries += struct.pack("<HHI4s", number, 3, len(numbers), content)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4) + outside
    content = b"II*\0" + struct.pack("<I", behind) + b"".join(planes) + directory
    return lambda path: path.write_bytes(content)


def palette(colours, *, index=0, transparency=None):
    def save(path):
        image = Image.new("P", (3, 2), index)
        image.putpalette([value for colour in colours for value in colour])
        image.save(path, **({} if transparency is None else {"transparency": transparency}))

    return save


def plain(mode, colour, kind="PNG", **options):
    return lambda path: Image.new(mode, (3, 2), colour).save(path, kind, **options)


def pages(path):
    first, second = (Image.new("L", (3, 2), value) for value in (0, 255))
    first.save(path, "GIF", save_all=True, append_images=[second])


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (deep(2, 3), "got 16 bits a channel"),
        (deep(6, 4), "got 16 bits a channel"),
        (deep(4, 2), "got 16 bits a channel"),
        (deep(0, 1), "got Pillow's mode 'I;16'"),
        (lambda path: path.write_bytes(b"P6 3 2 65535 " + bytes(36)), "got 16 bits a channel"),
        (palette([(255, 0, 255), (1, 2, 3)], transparency=0), "it has transparent pixels"),
        (palette([(255, 0, 255), (1, 2, 3)], transparency=b"\x7f\xff"), "it has transparent"),
        (plain("L", 0, transparency=0), "it has transparent pixels"),
        (plain("RGB", (1, 2, 3), transparency=(1, 2, 3)), "it has transparent pixels"),
        (plain("RGBA", (1, 2, 3, 254)), "it has transparent pixels"),
        (plain("LA", (7, 0)), "it has transparent pixels"),
        (tiff(np.array([300, 19_000, 38_000], "<u2")), "got 16 bits a channel"),
        (tiff(np.array([-3], "i1"), sample_format=2), "got signed numbers"),
        (plain("F", 0.5, "TIFF"), "got Pillow's mode 'F'"),
        (pages, "it holds 2 pictures, expected one"),
    ],
)
def test_pixels_that_would_be_read_otherwise_than_meant(tmp_path, save, said):
    message = load_alike(tmp_path, save)
    assert f"{tmp_path / 'a' / '0.png'}: expected 8 bits a channel" in message and said in message


@pytest.mark.parametrize(
    ("save", "pixel"),
    [
        (plain("RGBA", (1, 2, 3, 255)), [1, 2, 3]),
        (plain("LA", (7, 255)), [7]),
        (plain("1", 1), [255]),
        (plain("L", 9, transparency=8), [9]),  # no pixel is of the transparent grey
        (palette([(255, 0, 255), (1, 2, 3)], index=1, transparency=0), [1, 2, 3]),
        (palette([(5, 5, 5), (1, 2, 3)]), [5, 5, 5]),  # nothing says grey
        (lambda path: path.write_bytes(b"P6 3 2 51 " + bytes([10] * 18)), [50, 50, 50]),
        (tiff(np.array([1, 75, 150], "u1")), [1, 75, 150]),
    ],
)
def test_pixels_that_are_read(tmp_path, save, pixel):
    pixels = load_alike(tmp_path, save)
    assert pixels.shape == (2, 3, len(pixel))
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.uint8(pixel), pixels.shape))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_palettes_of_greys_are_what_the_others_are(tmp_path, mode, channels):
    """As programs that make files small write grey images; first or last of all."""
    write_images(tmp_path, {"a": 4, "b": 4}, mode=mode, size=(3, 2))
    for path in (tmp_path / "a" / "0.png", tmp_path / "b" / "3.png"):
        palette([(9, 9, 9), (1, 2, 3)])(path)
    loaded = data.load(tmp_path)
    images = np.concatenate([loaded.train_images, loaded.test_images])
    assert images.shape == (8, 2, 3, channels)
    assert (images == 9).all(axis=(1, 2, 3)).sum() == 2


def test_an_image_that_is_no_file_is_not_waited_for(tmp_path):
    write_images(tmp_path, {"a": 3, "b": 3})
    os.mkfifo(tmp_path / "a" / "z.png")
    assert "z.png: expected a file, found a FIFO" in error_of(tmp_path)


def test_images_of_two_sizes(tmp_path):
    write_images(tmp_path / "train", {"a": 2, "b": 2})
    write_images(tmp_path / "test", {"a": 1}, size=(7, 6))
    message = error_of(tmp_path)
    assert str(tmp_path / "test" / "a" / "0.png") in message
    assert "expected 6x5 pixels" in message and "got 6x7 pixels" in message
    assert message.endswith("image_size=N makes all of them N x N")
    loaded = data.load(tmp_path, image_size=4)
    assert loaded.train_images.shape == (4, 4, 4, 3) and loaded.test_images.shape == (1, 4, 4, 3)


def test_resized_images_keep_their_middle(tmp_path):
    """A ramp along the longer side: the square is its middle, halved by averages."""
    ramp = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8), (8, 24))
    for name in ("a", "b"):
        for number, image in enumerate((ramp, ramp.T, ramp, ramp.T)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / name / f"{number}.png")
    images = np.stack([ramp] * 10)
    np.savez(tmp_path / "mine.npz", train_images=images, train_labels=np.arange(10) % 2)
    middle = np.array([80, 90, 100, 110, 120, 130, 140, 150])
    averages = np.array([85, 105, 125, 145])
    for where, expected in ((tmp_path, middle), (tmp_path / "mine.npz", middle)):
        loaded = data.load(where, image_size=8)
        upright = loaded.test_images[0, ..., 0]
        upright = upright if upright[0, 0] == upright[1, 0] else upright.T
        np.testing.assert_array_equal(upright, np.broadcast_to(expected, (8, 8)))
    halved = data.load(tmp_path / "mine.npz", image_size=4).train_images[..., 0]
    # Pillow's bilinear filter looks two pixels beyond each average, all within the ramp.
    np.testing.assert_allclose(halved, np.broadcast_to(averages, halved.shape), atol=3)
    assert data.load(tmp_path, image_size=np.int64(4)).train_images.shape[1:] == (4, 4, 1)
    for size in (0, 16385, 10**9, True, 4.0):
        with pytest.raises(InputError, match=f"image_size: expected a whole .* 16384, got {size}"):
            data.load(tmp_path, image_size=size)


def test_a_run_says_what_it_made_of_its_images(tmp_path, capsys):
    write_images(tmp_path / "photos" / "train", {"a": 8, "b": 8}, size=(12, 9))
    write_images(tmp_path / "photos" / "val", {"a": 2, "b": 2}, size=(9, 20))
    make = ["train", "--dataset", str(tmp_path / "photos"), "--image-size", "8", "--epochs", "0",
            "--batch-size", "8", "--model", "convnet6", "--model-options", "channels=2", "--out",
            str(tmp_path / "run")]  # fmt: skip
    assert main(make) == 0
    assert re.search(r"test images +val\b", capsys.readouterr().out)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["image_size"] == 8
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "torch")]) == 0


def empty(folder):
    (folder / "train" / "c").mkdir()
    return "c: expected the images of a class (.png, .jpg"


def unknown_class(folder):
    write_images(folder / "test", {"d": 1})
    return "test/d: "


def no_test_images(folder):
    (folder / "test" / "a").mkdir(parents=True)
    return "test: expected images in folders of classes"


def one_class(folder):
    shutil.rmtree(folder / "train" / "b")
    return "expected two classes or more, got 1"


def damaged(folder):
    path = folder / "train" / "b" / "1.png"
    path.write_bytes(path.read_bytes()[:-40])
    return f"cannot read the image {path}"


def postscript(folder):
    path = folder / "train" / "b" / "1.png"
    Image.new("L", (5, 6)).save(path, "EPS")
    return f"cannot read the image {path}"


@pytest.mark.parametrize(
    "spoil", [empty, unknown_class, no_test_images, one_class, damaged, postscript]
)
def test_folder_that_is_not_as_expected(tmp_path, spoil):
    write_images(tmp_path / "train", {"a": 2, "b": 2})
    said = spoil(tmp_path)
    message = error_of(tmp_path)
    assert str(tmp_path) in message and said in message


def test_no_folder_of_images(tmp_path):
    assert f"{tmp_path / 'none'}: expected a folder of images (No such" in error_of(
        f"{tmp_path}/none/"
    )
    assert f"{tmp_path}: expected folders of classes" in error_of(tmp_path)


# --- names and paths


def test_what_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "mine.npz")
    write_images(tmp_path / "birds", {"a": 3, "b": 3})
    (tmp_path / "digits").mkdir()  # known names come first
    here = str(tmp_path)
    assert data.from_anywhere("mine.npz") == ("mine.npz", here)
    assert data.from_anywhere("birds") == data.from_anywhere("./birds/") == ("birds/", here)
    assert data.from_anywhere("mine.npz", data_dir="..") == ("mine.npz", str(tmp_path.parent))
    for name, where in (("digits", None), ("birds", "."), ("cifar10", "x"), ("emnist/mnist", None)):
        assert data.from_anywhere(name, data_dir=where) == (name, where)
    monkeypatch.chdir("/")
    for name in ("mine.npz", "birds/"):
        assert data.load(name, data_dir=here).name == name
    assert "unknown data set 'birds': expected digits, tiny" in error_of("birds", data_dir=here)


def test_a_run_knows_its_data_from_anywhere(tmp_path, monkeypatch, capsys):
    """Also after both have moved, and with a grey image of another size than any known set's."""
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "mine.npz", **arrays(count=40, size=(20, 21), channels=()))
    make = ["train", "--dataset", "mine.npz", "--epochs", "0", "--batch-size", "8", "--model",
            "convnet6", "--model-options", "channels=2", "--out", "run", "--json"]  # fmt: skip
    assert main(make) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["dataset"], config["data_dir"]) == ("mine.npz", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    parse = make_parser().parse_args
    resumed = ["train", "--resume", "--out", "../run"]
    known = configs.train_config(parse(resumed))
    assert known == configs.train_config(parse([*resumed, "--dataset", "../mine.npz"]))
    assert known.dataset == "mine.npz" and known.data_dir == str(tmp_path)
    assert main(["export", "../run", "--out", "torch"]) == 0
    (tmp_path / "mine.npz").rename("mine.npz")
    capsys.readouterr()
    assert main(["export", "../run", "--out", "torch"]) == 2
    assert f"{tmp_path / 'mine.npz'}: cannot be read" in capsys.readouterr().err
    assert main(["export", "../run", "--out", "torch", "--data-dir", "."]) == 0


def test_images_too_small_for_the_network(tmp_path, capsys):
    path = write_npz(tmp_path / "mine.npz")
    out = tmp_path / "run"
    command = ["train", "--dataset", str(path), "--model", "convnet6", "--out", str(out)]
    assert main(command) == 2
    assert "at least 8x8 pixels for this network, got 6x5" in capsys.readouterr().err
    assert not out.exists()
