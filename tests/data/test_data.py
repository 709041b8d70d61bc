"""Data sets: what is read, and one clear line for everything that can be wrong with them."""

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny import error_of

from jnnk import InputError, data
from jnnk.data._tfds_features import check_features

# --- digits, the embedded set


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_digits_are_the_1797_of_scikit_learn(digits):
    from sklearn.datasets import load_digits

    assert digits.train_images.shape == (1438, 8, 8, 1)
    assert digits.test_images.shape == (359, 8, 8, 1)
    assert digits.class_names == tuple("0123456789")
    assert digits.train_images.dtype == digits.test_images.dtype == np.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int32
    source = load_digits()
    images = np.concatenate([digits.train_images, digits.test_images]).reshape(1797, 64)
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    ours = {(label, *pixels) for label, pixels in zip(labels, images, strict=True)}
    scaled = np.round(source.data * 255 / 16).astype(np.uint8)
    assert ours == {(label, *pixels) for label, pixels in zip(source.target, scaled, strict=True)}


def test_digits_split_holds_a_fifth_of_every_class(digits):
    test = np.bincount(digits.test_labels)
    total = test + np.bincount(digits.train_labels)
    np.testing.assert_array_equal(test, np.round(total / 5))
    again = data.load("digits")
    np.testing.assert_array_equal(again.test_images, digits.test_images)


def test_statistics_are_those_of_the_training_images(digits):
    scaled = digits.train_images.astype(np.float64) / 255
    np.testing.assert_allclose(digits.normalization.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(digits.normalization.std, scaled.std((0, 1, 2)), rtol=1e-6)


# --- normalisation, on the device


def test_normalize(digits):
    images = digits.train_images
    mean, std = digits.normalization
    oracle = (images / 255 - np.float64(mean)) / np.float64(std)
    out = jax.jit(data.normalize)(images, digits.normalization)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, oracle, atol=1e-6)
    np.testing.assert_allclose(
        data.normalize(images.astype(np.float32), digits.normalization), oracle, atol=1e-6
    )


def test_normalize_transforms():
    images = np.arange(48, dtype=np.uint8).reshape(2, 2, 4, 3)
    given = data.Normalization(np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 1, 2]))
    whole = data.normalize(images, given)
    each = jax.vmap(lambda image: data.normalize(image, given))(images)
    np.testing.assert_array_equal(each, whole)
    gradient = jax.grad(lambda x: data.normalize(x, given).sum())(jnp.ones((1, 1, 3)))
    np.testing.assert_allclose(gradient[0, 0], 1 / 255 / given.std, rtol=1e-6)


# --- order


def test_epoch_order_is_a_permutation_set_by_seed_and_epoch():
    order = data.epoch_order(1000, seed=3, epoch=5)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, data.epoch_order(1000, seed=3, epoch=5))
    for other in ({"seed": 4, "epoch": 5}, {"seed": 3, "epoch": 6}, {"seed": 5, "epoch": 3}):
        assert (order == data.epoch_order(1000, **other)).mean() < 0.02


def test_epoch_order_never_changes():
    """A resumed run relies on it, on another machine or NumPy as well."""
    np.testing.assert_array_equal(
        data.epoch_order(10, seed=0, epoch=0), [6, 3, 8, 1, 4, 5, 9, 2, 7, 0]
    )


# --- TFDS sets, written here by the array_record library itself


def example(image: np.ndarray, label: int) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    png = io.BytesIO()
    Image.fromarray(image.squeeze()).save(png, "PNG")
    record = tf_example_pb2.Example()
    record.features.feature["image"].bytes_list.value.append(png.getvalue())
    record.features.feature["label"].int64_list.value.append(label)
    return record.SerializeToString()


def image_feature(shape, kind="image", dtype="uint8") -> dict:
    text = {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": dtype}
    name = {"image": "image_feature.Image", "tensor": "tensor_feature.Tensor"}[kind]
    return {kind: text, "pythonClassName": f"tensorflow_datasets.core.features.{name}"}


def write_set(folder, name, splits, *, feature=None, num_classes=3):
    """A prepared TFDS set; ``splits`` maps a split's name to its images and labels."""
    from array_record.python.array_record_module import ArrayRecordWriter

    home = folder / name / "1.0.0"
    home.mkdir(parents=True)
    infos = []
    for split, (images, labels) in splits.items():
        shard = home / f"{name}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(shard), "group_size:1")
        for image, label in zip(images, labels, strict=True):
            writer.write(example(image, label))
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        lengths = [str(len(images))]
        infos.append({"name": split, "shardLengths": lengths, "filepathTemplate": template})
    keys = [{"featureKey": "image"}, {"featureKey": "label"}]
    info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": infos}
    info["supervisedKeys"] = {"tuple": {"items": keys}}
    (home / "dataset_info.json").write_text(json.dumps(info))
    core = "tensorflow_datasets.core.features."
    label = {
        "classLabel": {"numClasses": str(num_classes)},
        "pythonClassName": core + "class_label_feature.ClassLabel",
    }
    images = next(iter(splits.values()))[0]
    features = {"image": feature or image_feature(images.shape[1:]), "label": label}
    whole = {
        "featuresDict": {"features": features},
        "pythonClassName": core + "features_dict.FeaturesDict",
    }
    (home / "features.json").write_text(json.dumps(whole))
    return home


def random_images(count, *, channels=3):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 6, 5, channels), np.uint8)
    return images, rng.integers(0, 3, count)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("test_split", ["test", "validation"])
def test_tfds_set(tmp_path, channels, test_split):
    images, labels = random_images(1020, channels=channels)  # more than one block of reading
    parts = {"train": (images[:1010], labels[:1010]), test_split: (images[1010:], labels[1010:])}
    write_set(tmp_path, "speckles", parts)
    loaded = data.load("speckles", data_dir=str(tmp_path))
    np.testing.assert_array_equal(loaded.train_images, images[:1010])
    np.testing.assert_array_equal(loaded.train_labels, labels[:1010])
    np.testing.assert_array_equal(loaded.test_images, images[1010:])
    np.testing.assert_array_equal(loaded.test_labels, labels[1010:])
    assert loaded.class_names == ("0", "1", "2")
    scaled = images[:1010].astype(np.float64) / 255
    np.testing.assert_allclose(loaded.normalization.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(loaded.normalization.std, scaled.std((0, 1, 2)), rtol=1e-6)


TRAP = "jnnk_trap"


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that leaves a file where it is imported."""
    made = tmp_path / "made"
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / f"{TRAP}.py").write_text(f"open({str(made)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(folder)
    yield made
    assert not made.exists() and TRAP not in sys.modules


def planted(whole):
    """Features that name a class of the trap, each in another way."""
    core, name = "tensorflow_datasets.core.features.", f"{TRAP}.Image"
    image = whole["featuresDict"]["features"]["image"]
    evil = {**image, "pythonClassName": name}
    snake = {"python_class_name": name, "image": image["image"]}
    label = whole["featuresDict"]["features"]["label"]

    def having(feature):
        return {
            **whole,
            "featuresDict": {"features": {"image": image, "label": label, "f": feature}},
        }

    return {
        "plain": having(evil),
        "root": {**whole, "pythonClassName": name},
        "snake": having(snake),
        "both": having({**image, "python_class_name": name}),
        "legacy": having({"type": name, "content": {}}),
        "legacy root": {"type": name, "content": {}},
        "in a dict": having({**whole, "featuresDict": {"features": {"g": evil}}}),
        "in a sequence": having(
            {"pythonClassName": core + "sequence_feature.Sequence", "sequence": {"feature": evil}}
        ),
        "in a text": having(
            {
                "pythonClassName": core + "features_dict.FeaturesDict",
                "jsonFeature": {"json": json.dumps({"g": {"type": name, "content": {}}})},
            }
        ),
        "a builtin": having({**image, "pythonClassName": "antigravity.x"}),
        "no dot": having({**image, "pythonClassName": "Image"}),
        "a number": having({**image, "pythonClassName": 3}),
        "a dtype": having({**image, "image": {**image["image"], "dtype": TRAP}}),
        "many classes": having({**label, "classLabel": {"numClasses": "99999999999"}}),
    }


HOW = ("plain", "root", "snake", "both", "legacy", "legacy root", "in a dict", "in a sequence",
       "in a text", "a builtin", "no dot", "a number", "a dtype", "many classes")  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_nothing_that_a_tfds_set_names_is_imported(tmp_path, trap, how):
    home = write_set(tmp_path, "speckles", {"train": random_images(20)})
    path = home / "features.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(planted(whole)[how]))
    with pytest.raises(InputError, match=r"features\.json: ") as error:
        data.load("speckles", data_dir=tmp_path)
    if how in ("plain", "root", "in a dict", "in a sequence"):
        assert f"{TRAP}.Image" in str(error.value)


@pytest.mark.parametrize("name", ["Speckles", "speckles/..", "speckles/.", "a:speckles"])
def test_no_name_leads_around_the_features_looked_at(tmp_path, trap, name):
    home = write_set(tmp_path, "speckles", {"train": random_images(20)})
    path = home / "features.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(planted(whole)["plain"]))
    shutil.copytree(home, tmp_path / "1.0.0")
    with pytest.raises(InputError):
        data.load(name, data_dir=tmp_path)


def test_further_features_of_images_are_let_through(tmp_path):
    core = "tensorflow_datasets.core.features."
    home = write_set(tmp_path, "speckles", {"train": random_images(20)})
    path = home / "features.json"
    whole = json.loads(path.read_text())
    whole["featuresDict"]["features"]["objects"] = {
        "pythonClassName": core + "sequence_feature.Sequence",
        "sequence": {"feature": {"pythonClassName": core + "text_feature.Text", "text": {}}},
    }
    path.write_text(json.dumps(whole))
    check_features("speckles", tmp_path)


@pytest.mark.parametrize(
    "content",
    ["[" * 10**5, '{"sequence":' * 10**5, "7", "[]", '{"a": "\\ud800"}', "9" * 5000, None],
)
def test_features_may_be_anything(tmp_path, content):
    home = write_set(tmp_path, "speckles", {"train": random_images(20)})
    path = home / "features.json"
    path.unlink()
    if content is None:
        os.mkfifo(path)
    else:
        path.write_text(content)
    with pytest.raises(InputError, match=r"features\.json: "):
        data.load("speckles", data_dir=tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        {"supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "x"}]}}},
        {"supervisedKeys": {"dict": {}}},
        {"splits": [{"name": "train", "shardLengths": ["9" * 19]}]},
        {"splits": [{"name": "train", "shardLengths": [str(10**12)]}]},
        {"version": "x"},
        {"name": 3},
    ],
)
def test_what_a_tfds_set_says_of_itself_may_be_anything(tmp_path, damage):
    home = write_set(tmp_path, "speckles", {"train": random_images(20)})
    path = home / "dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    assert "speckles" in error_of("speckles", data_dir=tmp_path)


def test_tfds_set_without_test_split_is_split(tmp_path):
    images, labels = random_images(100)
    write_set(tmp_path, "speckles", {"train": (images, labels)})
    loaded = data.load("speckles", data_dir=tmp_path)
    expected = np.round(np.bincount(labels) / 5)
    np.testing.assert_array_equal(np.bincount(loaded.test_labels), expected)
    joined = np.concatenate([loaded.train_images, loaded.test_images])
    assert {image.tobytes() for image in joined} == {image.tobytes() for image in images}


def test_a_constant_channel_has_deviation_one(tmp_path):
    images, labels = random_images(20)
    images[..., 1] = 51
    write_set(tmp_path, "speckles", {"train": (images, labels)})
    loaded = data.load("speckles", data_dir=tmp_path)
    np.testing.assert_allclose(loaded.normalization.mean[1], 0.2, rtol=1e-6)
    assert loaded.normalization.std[1] == 1


@pytest.mark.thorough
def test_cifar10(shared):
    loaded = data.load("cifar10", data_dir=shared / "tfds")
    assert loaded.train_images.shape == (50000, 32, 32, 3)
    assert loaded.class_names[:3] == ("airplane", "automobile", "bird")
    np.testing.assert_array_equal(np.bincount(loaded.train_labels), np.full(10, 5000))
    np.testing.assert_array_equal(np.bincount(loaded.test_labels), np.full(10, 1000))
    # What the shared weights are trained with, not the statistics of these images.
    np.testing.assert_allclose(loaded.normalization.mean, [0.485, 0.456, 0.406])
    np.testing.assert_allclose(loaded.normalization.std, [0.229, 0.224, 0.225])


# --- what can be wrong with a TFDS set


def test_unknown_name():
    message = error_of("cifra10")
    assert "unknown data set 'cifra10'" in message
    assert "did you mean cifar10" in message


@pytest.mark.parametrize("name", ["", "../x", "huggingface:mnist", "mnist:9.9.9", "mnist/a=1"])
def test_name_out_of_the_syntax(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where ../x is no folder
    assert f"unknown data set {name!r}" in error_of(name)


def test_unknown_configuration(tmp_path):
    assert "nowhere" in error_of("emnist/nowhere", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "tiny_imagenet"])
def test_missing_data_dir(name, tmp_path):
    assert "needs data_dir" in error_of(name)
    assert str(tmp_path / "none") in error_of(name, data_dir=tmp_path / "none")


def test_unprepared_set_says_what_to_run(tmp_path):
    (tmp_path / "cifar100" / "incomplete.ABC_3.0.2").mkdir(parents=True)  # an interrupted one
    message = error_of("cifar100", data_dir=tmp_path)
    assert "not prepared" in message
    assert f"jnnk.data.prepare('cifar100', '{tmp_path}')" in message
    assert "jnnk[tfds-prepare]" in message


def test_no_image_classification(tmp_path):
    assert "not an image-classification set" in error_of("imdb_reviews", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("feature", "reason"),
    [
        (image_feature((6, 5, 3), kind="tensor"), "not an image-classification set"),
        (image_feature((-1, -1, 3)), r"(None, None, 3)"),
        (image_feature((6, 5, 3), dtype="uint16"), "uint16"),
    ],
)
def test_unusable_images(tmp_path, feature, reason):
    write_set(tmp_path, "speckles", {"train": random_images(3)}, feature=feature)
    assert reason in error_of("speckles", data_dir=tmp_path)


def test_images_of_another_size_than_declared(tmp_path):
    write_set(tmp_path, "speckles", {"train": random_images(3)}, feature=image_feature((7, 5, 3)))
    assert "cannot be read" in error_of("speckles", data_dir=tmp_path)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range(tmp_path, label):
    images, labels = random_images(20)
    write_set(tmp_path, "speckles", {"train": (images, labels), "test": (images[:1], [label])})
    message = error_of("speckles", data_dir=tmp_path)
    assert f"test labels run from {label} to {label}, expected 0 to 2" in message


def test_set_without_training_split(tmp_path):
    write_set(tmp_path, "speckles", {"test": random_images(3)})
    assert "expected a split 'train', found ['test']" in error_of("speckles", data_dir=tmp_path)


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "garbled", "too few"])
def test_damaged_shard(tmp_path, damage):
    images, labels = random_images(2000)
    parts = {"train": (images[:20], labels[:20]), "test": (images, labels)}
    home = write_set(tmp_path, "speckles", parts)
    shard = home / "speckles-test.array_record-00000-of-00001"
    content = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    elif damage == "empty":
        shard.write_bytes(b"")
    elif damage == "half":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "garbled":
        middle = len(content) // 2
        shard.write_bytes(content[:middle] + b"x" * 4000 + content[middle + 4000 :])
    else:
        info = home / "dataset_info.json"
        info.write_text(info.read_text().replace('"2000"', '"2100"'))
    message = error_of("speckles", data_dir=tmp_path)
    assert f"split 'test' in {home} cannot be read" in message
    assert "delete that folder" in message


def test_damaged_description(tmp_path):
    home = write_set(tmp_path, "speckles", {"train": random_images(3)})
    description = home / "dataset_info.json"
    description.write_text(description.read_text()[:50])
    assert "cannot be opened" in error_of("speckles", data_dir=tmp_path)


def test_prepare_without_tensorflow(tmp_path):
    if importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is installed here")
    with pytest.raises(InputError, match=r"pip install 'jnnk\[tfds-prepare\]'"):
        data.prepare("cifar10", tmp_path)


def test_reading_imports_no_tensorflow_and_logs_nothing(tmp_path):
    images, labels = random_images(3)
    write_set(tmp_path, "speckles", {"train": (images, labels), "test": (images, labels)})
    program = (
        "import sys; from jnnk import data; assert 'tensorflow_datasets' not in sys.modules; "
        f"data.load('speckles', data_dir={str(tmp_path)!r}); "
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- Tiny ImageNet


@pytest.mark.thorough
def test_tiny_imagenet(shared):
    loaded = data.load("tiny_imagenet", data_dir=shared)
    root = shared / "tiny-imagenet-200"
    assert loaded.train_images.shape == (600, 64, 64, 3)
    assert loaded.test_images.shape == (200, 64, 64, 3)
    np.testing.assert_array_equal(np.bincount(loaded.train_labels), np.full(10, 60))
    wnids = (root / "wnids.txt").read_text().split()
    words = dict(line.split("\t") for line in (root / "words.txt").read_text().splitlines())
    assert loaded.class_names == tuple(words[wnid] for wnid in wnids)
    file, wnid = (root / "val" / "val_annotations.txt").read_text().split("\t")[:2]
    assert loaded.test_labels[0] == wnids.index(wnid)
    with Image.open(root / "val" / "images" / file) as image:
        np.testing.assert_array_equal(loaded.test_images[0], np.asarray(image.convert("RGB")))


@pytest.fixture
def tiny(tmp_path):
    """Two classes of two training images and one validation image; a grey one among them."""
    root = tmp_path / "tiny-imagenet-200"
    rng = np.random.default_rng(0)
    for wnid in ("n2", "n1"):
        (root / "train" / wnid / "images").mkdir(parents=True)
        for index in range(2):
            pixels = rng.integers(0, 256, (64, 64, 3) if index else (64, 64), np.uint8)
            file = root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG"
            Image.fromarray(pixels).save(file, "JPEG")
    (root / "val" / "images").mkdir(parents=True)
    shutil.copy(root / "train/n1/images/n1_0.JPEG", root / "val/images/val_0.JPEG")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn1\t0\t0\t63\t63\n")
    (root / "wnids.txt").write_text("n2\nn1\n")
    (root / "words.txt").write_text("n0\tnobody\nn1\tant, pismire\nn2\tbee\n")
    return root


def test_tiny_imagenet_layout(tiny):
    loaded = data.load("tiny_imagenet", data_dir=tiny)  # the folder itself, too
    assert loaded.class_names == ("bee", "ant, pismire")
    np.testing.assert_array_equal(loaded.train_labels, [0, 0, 1, 1])
    np.testing.assert_array_equal(loaded.test_labels, [1])
    np.testing.assert_array_equal(loaded.test_images[0], loaded.train_images[2])
    grey = loaded.train_images[0]
    np.testing.assert_array_equal(grey, np.repeat(grey[..., :1], 3, -1))


def remove(name):
    return lambda root: (root / name).unlink()


def write(name, text):
    return lambda root: (root / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (remove("wnids.txt"), "wnids.txt"),
        (remove("words.txt"), "words.txt"),
        (remove("val/images/val_0.JPEG"), "val_0.JPEG"),
        (lambda root: shutil.rmtree(root / "train/n1"), "no images of class n1"),
        (write("val/val_annotations.txt", "val_0.JPEG\tn9\t0\t0\t9\t9\n"), "'n9'"),
        (write("val/val_annotations.txt", "val_0.JPEG n1\n"), "val_annotations.txt"),
        (write("val/val_annotations.txt", ""), "no test images"),
        (write("train/n1/images/n1_0.JPEG", "no image"), "n1_0.JPEG"),
    ],
)
def test_tiny_imagenet_spoilt(tiny, spoil, reason):
    spoil(tiny)
    assert reason in error_of("tiny_imagenet", data_dir=tiny)


def test_tiny_imagenet_truncated_or_wrong_size(tiny):
    file = tiny / "train/n1/images/n1_1.JPEG"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert str(file) in error_of("tiny_imagenet", data_dir=tiny)
    Image.new("RGB", (32, 64)).save(file, "JPEG")
    assert "expected 64x64 pixels" in error_of("tiny_imagenet", data_dir=tiny)


def test_the_first_images_keep_their_labels():
    whole = data.load("digits")
    part = data.first_images(whole, train=7)
    assert (part.train_images == whole.train_images[:7]).all()
    assert (part.train_labels == whole.train_labels[:7]).all()
    assert len(part.test_images) == len(whole.test_images)
    assert len(data.first_images(whole, test=3).test_labels) == 3
    assert len(data.first_images(whole, train=10**9).train_images) == len(whole.train_images)
