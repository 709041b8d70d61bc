"""A wrong value for every option of every command: one line, exit code 2, nothing changed."""

import argparse
import errno
import functools
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny
from tiny import NETWORK, write_images

from jnnk import InputError, models
from jnnk.cli import main
from jnnk.cli.parser import make_parser
from jnnk.cli.studies import STUDIES
from jnnk.runs.json_files import read_json, write_json

fails = functools.partial(tiny.fails, has_notes=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, a trained run, and files that are none of these."""
    folder = tmp_path_factory.mktemp("wrong")
    data = write_images(folder / "images.npz")
    train = ["--dataset", str(data), *NETWORK, "--batch-size", "8", "--epochs", "1"]
    assert main(["train", *train, "--out", str(folder / "run")]) == 0
    (folder / "text.txt").write_text("text")
    (folder / "empty").mkdir()
    (folder / "foreign").mkdir()
    (folder / "foreign" / "mine.txt").write_text("mine")
    (folder / "begun").mkdir()
    shutil.copy(folder / "run" / "config.json", folder / "begun")
    model = models.create("convnet6", num_classes=2, channels=2)
    variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    models.save_safetensors(model, variables, folder / "weights.safetensors")
    stored = safetensors.numpy.load_file(folder / "weights.safetensors")
    broken = {**stored, "conv1.bias": np.float32([0, np.nan])}
    safetensors.numpy.save_file(broken, folder / "nan.safetensors")
    return folder


def files(place):
    """Path -> time of the last change; but for a lock, which opening a run makes."""
    return {
        path: path.stat().st_mtime_ns
        for path in place.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


NEW = "train --dataset images.npz --model convnet6 --out new"
STUDY = NEW.replace("train", "study")
LAYERS = "no such layer; known: conv0, conv1, conv2, conv3, conv4, conv5"
WRONG = [
    (f"{NEW} --dataset nothing.npz", "nothing.npz: cannot be read"),
    (f"{NEW} --dataset text.txt", "unknown data set"),
    (f"{NEW} --dataset empty", "empty: expected folders of classes"),
    (f"{NEW} --dataset cifar10", "needs data_dir"),
    (f"{NEW} --dataset cifar10 --data-dir nothing", "data_dir: expected a folder"),
    (f"{NEW} --dataset cifar10 --data-dir empty", "not prepared"),
    (f"{NEW} --model convnet7", "--model: expected one of resnet8"),
    (f"{NEW} --model convnet5", "at least 24x24 pixels for this network, got 8x8"),
    (f"{NEW} --model-options channels", "expected NAME=VALUE, got 'channels'"),
    (f"{NEW} --model-options =2", "expected NAME=VALUE, got '=2'"),
    (f"{NEW} --model-options width=2", "convnet6 has no option 'width'; known: channels"),
    (f"{NEW} --model-options channels=2 channels=3", "channels comes twice"),
    (f"{NEW} --model-options num_classes=3", "the data set tells the number of classes"),
    (f"{NEW} --model-options shortcut=B", "--shortcut are options of their own"),
    (f"{NEW} --model-options name=resnet8", "--model"),
    (f"{NEW} --model-options dtype={'1+' * 60_000}1j", "number or a word, got 120,002 characters"),
    (f"{NEW} --model-options dtype={'-' * 100_000}1", "a number or a word, got 100,001 characters"),
    *[
        (f"{NEW} --model-options channels={bad}", "channels: expected a whole number of 1 or more")
        for bad in ("0", "-3", "2.5", "True", "many", "[2]", "1e3", "None", "1048576", "9" * 11)
    ],
    *[
        (f"{NEW} --model-options dropout={bad}", "dropout: expected a number of 0 or more and bel")
        for bad in ("1", "-0.1", "nan", "inf", "1e400", "often", "[0.1]", "False")
    ],
    *[
        (f"{NEW} --model-options dtype={bad}", "dtype: expected a floating dtype")
        for bad in ("int8", "float31", "3", "[1]")
    ],
    (f"{NEW} --model resnet18 --model-options stem=big", "stem: expected 'imagenet' or 'small'"),
    (f"{NEW} --weights nothing", "nothing: not readable as safetensors"),
    (f"{NEW} --weights text.txt", "text.txt: not readable as safetensors"),
    (f"{NEW} --weights empty", "empty: not readable as safetensors"),
    (f"{NEW} --weights weights.safetensors", "'conv0.bias': expected F32 (32,)"),
    (f"{NEW} --model-options channels=2 --weights nan.safetensors", "params/conv1/bias holds num"),
    (f"{NEW} --mean 0.5 0.5", "--mean: expected one number, got 2"),
    (f"{NEW} --std 1 2 3", "--std: expected one number, got 3"),
    (f"{NEW} --batch-size 25", "larger than the 24 training images of images.npz"),
    (f"{NEW} --stop validation --batch-size 21", "larger than the 20 training images"),
    (f"{NEW} --epochs 2 --measure-epochs 3", "training has epochs 0 to 2"),
    (f"{NEW} --regularizer overlap --regularizer-layers nix", f"layers nix: {LAYERS}"),
    (f"{NEW} --regularizer cka --regularizer-layers conv1 nix", f"layers nix: {LAYERS}"),
    (f"{NEW} --regularizer overlap --batch-size 1", "--regularizer overlap: activations: expected"),
    (f"{NEW} --mesh model=2", "unknown axis 'model'"),
    (f"{NEW} --mesh data=0", "data: expected a whole number of at least 1, got '0'"),
    (f"{NEW} --mesh data=1,data=1", "axis data comes twice"),
    (f"{NEW} --mesh channel=1", "expected an axis data for training"),
    (f"{NEW} --mesh data=4096", "asks for 4096 devices"),
    (f"{NEW} --distributed", "--distributed: this process found no others"),
    (f"{NEW} --out foreign", "foreign is not a run folder"),
    (f"{NEW} --out .", "is not a run folder"),
    (f"{NEW} --out /", "/ is not a run folder"),
    (f"{NEW} --out text.txt", "/text.txt: Not a directory"),
    (f"{NEW} --out text.txt/new", "/text.txt/new: Not a directory"),
    (f"{NEW} --out run", "already holds a run; go on with --resume"),
    ("train --resume --out run --seed 1", "seed 0 -> 1"),
    (f"{STUDY} --layers nix", f"--layers nix: {LAYERS}"),
    (f"{STUDY} --images 25", "only 24 training images"),
    (f"{STUDY} --neighbors 24", "has only 23 others"),
    (f"{STUDY} --criteria x", "--criteria: expected some of "),
    ("study --dataset images.npz --model convnet6 --out / --epochs 1", "/ is not a run folder"),
    ("study --dataset images.npz --model convnet6 --out run", "already holds a run"),
    ("import-weights nothing --out new", "nothing: not readable as safetensors"),
    ("import-weights weights.safetensors --out new", "conv1.weight"),
    ("import-weights weights.safetensors --out foreign --dataset images.npz", "foreign is not a r"),
    ("overlap nothing", "nothing: no such run folder"),
    ("overlap text.txt", "text.txt: no such run folder"),
    ("overlap foreign", "foreign is not a run folder"),
    ("overlap begun", "begun holds no trained network yet"),
    ("overlap run --data-dir nothing", "nothing/images.npz: cannot be read"),
    ("overlap run --layers nix", f"--layers nix: {LAYERS}"),
    ("overlap run --layers conv1 nix*", f"--layers nix*: {LAYERS}"),
    ("overlap run --layers nix --plan", f"--layers nix: {LAYERS}"),
    ("overlap run --channels conv1", "expected LAYER:INDEX,..., got 'conv1'"),
    ("overlap run --channels conv1:-1", "expected LAYER:INDEX,..., got 'conv1:-1'"),
    ("overlap run --channels conv1:2", "[2] are not among its 2 channels"),
    ("overlap run --channels nix:0", "--channels nix: not measured"),
    ("overlap run --layers conv1 --channels conv2:0", "conv2: not measured; measured: conv1"),
    ("overlap run --at-epochs 7", "kept only the checkpoints of [0, 1]"),
    ("overlap run --images 25", "--images 25: images.npz has only 24 training images"),
    ("overlap run --neighbors 24", "--neighbors 24: each of 24 images has only 23 others"),
    ("overlap run --images 9 --neighbors 9", "--neighbors 9: each of 9 images has only 8 others"),
    ("overlap run --mesh data=4096", "asks for 4096 devices"),
    ("prune nothing", "nothing: no such run folder"),
    ("prune begun", "begun holds no trained network yet"),
    ("prune begun --channels l1_norm", "begun holds no trained network yet"),
    ("inspect --model resnet9", "--model: expected one of resnet8"),
    ("prune run --channels l1_norm --layer-shares conv0", "expected PATTERN=SHARE below 1"),
    ("prune run --streams", "--streams: expected --channels beside it, got no --channels"),
    ("prune run --layer-shares conv1=0.5", "--layer-shares: expected --channels beside it"),
    ("prune run --round-to 4", "--round-to: expected --channels beside it"),
    ("prune run --seeds 1", "--seeds: expected --protocol beside it, got no --protocol"),
    (f"{NEW} --regularizer-layers conv1", "--regularizer-layers: expected --regularizer beside it"),
    ("prune run --criteria weight x y", "--criteria: expected some of det"),
    ("prune run --criterion x", "--criteria: expected some of det"),
    ("prune run --protocol x", "--protocol: expected one of paper"),
    ("prune run --protocol short", "batches of 64 images, images.npz has only 24"),
    ("prune run --protocol short --criteria random", "criteria and seeds: expected some, of"),
    ("export begun --out new", "begun holds no trained network yet"),
    ("export run --out text.txt", "--out: "),
    ("export run --out run", "run is or lies in the run folder"),
    ("export run --out run/checkpoints", "checkpoints is or lies in the run folder"),
    ("export run --out run/torch/deep/er", "er is or lies in the run folder"),
    ("export run --out run/torch/../new", "run/new is or lies in the run folder"),
    ("export run --out begun", "begun is or lies in the run folder"),
    ("export run --out begun/torch", "begun/torch is or lies in the run folder"),
    ("report nothing", "nothing: no such run folder"),
    ("report run nothing", "nothing: no such run folder"),
    ("report begun", "begun holds no results yet"),
    ("report run --out new.html", "--out names the page of a comparison"),
    *[
        (f"reproduce {claim} --shared empty --out {out}", said)
        for claim in STUDIES
        for out, said in (
            ("new", "empty"), ("foreign", "foreign holds something else"), ("/", "/ holds some")
        )
    ],
    ("reproduce pruning --shared nothing --out new", "nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_wrong_values(words, said, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    before = files(place)
    assert said in fails(capsys, *words.split())
    assert files(place) == before and not (place / "new").exists()
    assert not os.path.lexists("/.lock") and not (place / "foreign" / ".lock").exists()


#: Options that take any value, or whose wrong values other tests try.
ANY = {
    "--help", "--json", "--quiet", "--resume", "--augment", "--no-augment", "--plan",
    "--shortcut", "--optimizer", "--regularizer", "--stop", "--similarity", "--streams",  # choices
}  # fmt: skip


def test_no_option_is_forgotten():
    (action,) = (
        each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction)
    )
    tried = {word for words, _ in WRONG for word in words.split() if word.startswith("--")}
    for sub in action.choices.values():
        for each in sub._actions:
            if each.type in (None, str):  # numbers: test_options.py
                assert set(each.option_strings) <= ANY | tried | {"-h"}, each.option_strings
    assert {words.split()[0] for words, _ in WRONG} == action.choices.keys() - {"prepare"}


def caught(monkeypatch, job):
    """The configs that a job is called with, in place of the job."""
    configs = []

    def job_of(run, model, dataset, config, **_):
        configs.append(config)
        raise InputError("caught")

    monkeypatch.setattr(job, job_of)
    return configs


def test_defaults_that_do_not_fit_are_fitted_and_said(place, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    train = ["train", "--dataset", str(place / "images.npz"), *NETWORK, "--out", str(out)]
    assert main([*train, "--epochs", "1"]) == 0
    said = capsys.readouterr().err
    assert said.count("batch size 24 for 64: as many as the 24 training images") == 1
    assert read_json(out / "config.json")["batch_size"] == 24
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert "batch size" not in capsys.readouterr().err
    configs = caught(monkeypatch, "jnnk.jobs.overlap.overlap")
    assert main(["overlap", str(out)]) == 2
    place, *said, _ = capsys.readouterr().err.splitlines()
    assert "images.npz" in place  # the run folder names it, and is a stranger's as far as we know
    assert said == [
        "24 images for 1000: images.npz has no more to train",
        "23 neighbours for 25: each of 24 images has no more",
    ]
    assert (configs[0].images, configs[0].neighbors) == (24, 23)


@pytest.mark.thorough
def test_a_study_of_few_images_by_its_defaults(tmp_path, capsys):
    data, out = write_images(tmp_path / "images.npz", train=22, test=6), tmp_path / "run"
    study = ["study", "--dataset", str(data), *NETWORK, "--epochs", "2", "--out", str(out)]
    assert main(study) == 0
    assert capsys.readouterr().err.count("neighbours for 25") == 1
    settings = read_json(out / "overlap" / "settings.json")
    assert (settings["images"], settings["neighbors"]) == (22, 21)
    for record in read_json(out / "results.json")["overlap"]:
        assert record["converged"] == 1 and 0 <= record["overlap_by_chance"] <= 1
    assert main(["prune", str(out), "--channels", "redundancy"]) == 0
    assert main(["overlap", str(out), "--neighbors", "21"]) == 0


def test_what_a_folder_was_measured_with_stays(place, capsys, monkeypatch):
    """An earlier version noted the images asked for, not those there are."""
    folder = shutil.copytree(place / "run", place.parent / "old")
    settings = {
        "images": 1000, "neighbors": 25, "similarity": "gaussian", "layers": ["*"],
        "at_epochs": None,
    }  # fmt: skip
    write_json(folder / "overlap" / "settings.json", settings)
    configs = caught(monkeypatch, "jnnk.jobs.overlap.overlap")
    assert fails(capsys, "overlap", folder) == "error: caught"
    assert (configs[0].images, configs[0].neighbors) == (1000, 25)


def out_of_memory(*args, **kwargs):
    raise MemoryError("Unable to allocate 99 TiB")


def no_memory_to_restore(*args, **kwargs):
    raise ValueError("RESOURCE_EXHAUSTED: Error reading chunk: no memory")


def exhausted(*args, **kwargs):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\n more")


@pytest.mark.parametrize("error", [out_of_memory, exhausted, no_memory_to_restore])
@pytest.mark.parametrize(
    ("words", "job", "lower"),
    [
        (NEW, "jnnk.jobs.train.train", "lower --batch-size"),
        ("overlap run", "jnnk.jobs.overlap.overlap", "lower --images or --neighbors or --layers"),
        ("prune run", "jnnk.jobs.prune.prune", "lower --sweep-images"),
    ],
)
def test_out_of_memory(error, words, job, lower, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(job, error)
    line = fails(capsys, *words.split())
    assert line.startswith("error: out of memory: ") and f"; {lower}" in line
    if "--out" in words:
        fails(capsys, *words.split(), "--out", "new/er/est")
    assert not (place / "new").exists()


def test_what_was_in_a_folder_before_stays(place, tmp_path, capsys, monkeypatch):
    (tmp_path / "here" / ".git").mkdir(parents=True)
    (tmp_path / "here" / ".git" / "config").write_text("mine")
    monkeypatch.chdir(place)
    monkeypatch.setattr("jnnk.jobs.train.train", out_of_memory)
    fails(capsys, *NEW.split(), "--out", tmp_path / "here")
    assert (tmp_path / "here" / ".git" / "config").read_text() == "mine"
    assert {path.name for path in (tmp_path / "here").iterdir()} <= {".git", ".lock"}


def test_a_folder_that_cannot_be_read(place, capsys, monkeypatch):
    def denied(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.chdir(place)
    monkeypatch.setattr("pathlib.Path.iterdir", denied)
    for words in (f"{NEW} --out foreign", "reproduce pruning --shared empty --out foreign"):
        line = fails(capsys, *words.split())
        assert "foreign: Permission denied" in line


def test_a_defect_keeps_its_traceback(place, capsys, monkeypatch):
    def broken(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    monkeypatch.chdir(place)
    monkeypatch.setattr("jnnk.jobs.overlap.overlap", broken)
    with pytest.raises(jax.errors.JaxRuntimeError):
        main(["overlap", "run"])


def test_where_networks_are_exported_to(place, tmp_path, capsys, monkeypatch):
    """Beside the parts of their run, or beside a config.json of others; not through a link."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text('{"architectures": ["ResNet"]}')
    (tmp_path / "link").symlink_to(tmp_path / "begun")
    for out in ("run/torch", "net", "net/deeper", "new"):
        assert main(["export", "run", "--out", out]) == 0
        (file,) = (tmp_path / out).glob("*.safetensors")
        assert file.name == "trained.safetensors"
    capsys.readouterr()
    assert "begun is or lies in" in fails(capsys, "export", "run", "--out", "link")


@pytest.mark.parametrize("command", [NEW, STUDY])
def test_a_network_that_does_not_fit_into_memory(command, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    for channels in (70000, 2**20 - 1):
        line = fails(capsys, *command.split(), "--model-options", f"channels={channels}")
        # Of 9 grey pixels, five times of all channels, and two classes of all channels.
        params = 9 * channels + 5 * 9 * channels**2 + 6 * channels + 2 * channels + 2
        assert f"--model convnet6: {params:,} parameters and" in line and "machine has" in line
        assert not (place / "new").exists()


def test_the_memory_that_a_training_cannot_spare(place, capsys, monkeypatch):
    """On images of 8 x 8 whose sides are halved twice before the last two of six convs."""
    monkeypatch.chdir(place)
    params = (9 * 2 + 2) + 5 * (9 * 2 * 2 + 2) + (2 * 2 + 2)
    activations = 2 * 2 * (8 * 8 + 4 * 4 + 2 * 2)
    words = [*NEW.split(), "--model-options", "channels=2", "--batch-size", "8", "--epochs"]
    enough = 4 * (3 * params + 8 * activations)
    monkeypatch.setattr("jnnk.jobs.checks.machine_memory", lambda: enough - 1)
    assert f"{params} parameters and" in fails(capsys, *words, "1")
    monkeypatch.setattr("jnnk.jobs.checks.machine_memory", lambda: enough)
    monkeypatch.setattr("jnnk.jobs.train.train", out_of_memory)  # gets there
    assert "out of memory: Unable to" in fails(capsys, *words, "1")
    monkeypatch.setattr("jnnk.jobs.checks.machine_memory", lambda: 4 * params)
    assert "out of memory: Unable to" in fails(capsys, *words, "0")
    monkeypatch.setattr("jnnk.jobs.checks.machine_memory", lambda: 4 * params - 1)
    assert f"{params} parameters and 0.0 GiB" in fails(capsys, *words, "0")


def test_images_that_do_not_fit_into_memory(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr("jnnk.data._image_files.machine_memory", lambda: 24 * 16 * 16)
    assert "at least 8x8 pixels" in fails(capsys, *NEW.split(), "--image-size", "7")
    line = fails(capsys, *NEW.split(), "--image-size", "17")
    assert (
        "24 images of 17x17 pixels (height x width), grey take" in line and "--image-size" in line
    )
    assert not (place / "new").exists()


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize\nmore")])
def test_a_platform_that_is_not_there(error, place, capsys, monkeypatch):
    def devices():
        raise error

    monkeypatch.chdir(place)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", devices)
    for words in (NEW, "overlap run", "prune run", "export run --out new"):
        assert "JAX_PLATFORMS is 'cuda'" in fails(capsys, *words.split())
    assert not (place / "new").exists()


def test_a_platform_that_jax_does_not_know(tmp_path):
    command = [sys.executable, "-m", "jnnk", "train", "--out", str(tmp_path / "run")]
    environment = {**os.environ, "JAX_PLATFORMS": "abacus"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: JAX finds no device: ")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_the_folder(place, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "new/checkpoints/0")

    monkeypatch.chdir(place)
    monkeypatch.setattr("jnnk.jobs.train.train", full)
    assert "goes on from it" in fails(capsys, *NEW.split())
    assert (place / "new" / "config.json").exists()
    shutil.rmtree(place / "new")


def test_weights_whose_answers_are_not_finite(place, capsys, monkeypatch):
    stored = safetensors.numpy.load_file(place / "weights.safetensors")
    huge = {name: np.abs(tensor) * np.float32(1e8) for name, tensor in stored.items()}
    safetensors.numpy.save_file(huge, place.parent / "huge.safetensors")
    monkeypatch.chdir(place)
    words = ["import-weights", place.parent / "huge.safetensors", "--dataset", "images.npz"]
    line = fails(capsys, *words, *NETWORK, "--out", "new")
    assert "answers to test images are not finite" in line and not (place / "new").exists()
