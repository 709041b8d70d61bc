"""Commands with a network of one's own: `--model package.module:factory`."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from tiny import fails, write_images

from jnnk.cli import main
from jnnk.runs.folder import create_run
from jnnk.runs.json_files import read_json, read_json_lines
from jnnk.runs.settings import TrainConfig

NETS = """
import functools
import os

import jax.numpy as jnp
from flax import linen as nn


class Small(nn.Module):
    num_classes: int
    width: int = 4

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(self.width, (3, 3), name="first")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="second")(x))
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


def small(num_classes, width=WIDTH):
    return Small(num_classes, width)


partial = functools.partial(Small, width=3)
number = 3


def no_arguments():
    return Small(2)


def raises(num_classes):
    raise RuntimeError("no weights there\\nand more")


def returns_text(num_classes):
    return "a network"


def wide(num_classes):  # needs 16 pixels
    class Wide(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(num_classes)(x[:, :16, :16].reshape(-1, 256))

    return Wide()


def of_maps(num_classes):
    return nn.Conv(num_classes, (3, 3))


class Residual(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name="stem")(x))
        inner = nn.relu(nn.Conv(4, (3, 3), name="inner")(x))
        x = nn.relu(x + nn.Conv(6, (3, 3), name="back")(inner))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Pointwise(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (1, 1), name="one")(x))
        x = nn.relu(nn.Conv(4, (1, 1), name="two")(x))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


def plain(num_classes):
    def init(key, images):
        kernel = jnp.ones((3, 3, images.shape[-1], 4)) / 9
        return {"conv": kernel, "head": jnp.ones((4, num_classes))}

    def apply(variables, images):
        from jax import lax, nn

        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            images, variables["conv"], (1, 1), "SAME", dimension_numbers=numbers
        )
        return nn.relu(x).mean((1, 2)) @ variables["head"]

    return init, apply


class Growing(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train=False):
        seen = self.variable("seen", "images", lambda: jnp.zeros((1, 1)))
        if train and not self.is_initializing():
            seen.value = jnp.concatenate([seen.value, jnp.ones((1, 1))])
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Indexed(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        order = self.param("order", lambda key: jnp.arange(8))
        return nn.Dense(self.num_classes)(x[:, order].mean((1, 2)))


class Flat(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


def no_logits(num_classes):
    def init(key, images):
        return {"w": jnp.ones(3)}

    return init, lambda variables, images: {"maps": images}
"""
DATA = ["--dataset", "data.npz", "--batch-size", "8"]
MODEL = ["--model", "my_nets:small"]
STUDY = [
    *DATA, "--epochs", "1", "--measure-epochs", "0", "1", "--learning-rate", "0.01",
    "--images", "12", "--neighbors", "4", "--criteria", "weight", "--criterion", "weight",
    "--sweep-images", "12", "--share", "0.5", "--finetune-epochs", "1",
]  # fmt: skip


def write_nets(folder, *, width=4, more=""):
    (folder / "my_nets.py").write_text(NETS.replace("WIDTH", str(width)) + more)


def forget():
    """Modules are imported anew, as by another process."""
    for name in ("my_nets", "evil"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder in which a study was made, with the module that has its network."""
    home = tmp_path_factory.mktemp("home")
    write_nets(home)
    write_images(home / "data.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(sys, "path", [*sys.path])
        assert main(["study", *MODEL, *STUDY, "--out", "run"]) == 0
    forget()
    return home


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty place with the module and data, from which commands are run."""
    write_nets(tmp_path)
    write_images(tmp_path / "data.npz")
    monkeypatch.chdir(tmp_path)
    # Figures are drawn, but not as files.
    monkeypatch.setattr("jnnk.report.output.figure_bytes", lambda figure, kind: b"<svg></svg>")
    monkeypatch.setattr(sys, "path", [*sys.path])
    forget()
    yield tmp_path
    forget()


@pytest.fixture
def run(study, home):
    """A copy of the study's run folder in a place of its own, whose data have moved there."""
    shutil.copytree(study / "run", home / "run", ignore=shutil.ignore_patterns(".lock"))
    return home / "run"


def told(capsys, *words):
    """The JSON that a command answers."""
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.thorough
def test_a_study_measures_and_prunes_the_network_s_own_layers(study):
    results = json.loads((study / "run" / "results.json").read_text())
    measured = [(each["epoch"], each["layer"], each["channels"]) for each in results["overlap"]]
    assert measured == [(e, layer, 4) for e in (0, 1) for layer in ("first", "second")]
    kept = results["pruning"]["kept"]
    assert kept["kernels"] == [4 + 16, 10] and kept["macs"][0] == 64 * 9 * 4 + 16 * 9 * 16
    assert results["pruning"]["pruned"]["revived_weights"] == 0
    assert results["pruning"]["latency"]["compacted"] > 0
    assert (study / "run" / "report.html").stat().st_size > 0


@pytest.mark.thorough
def test_the_folder_remembers_name_source_and_variables(study):
    record = read_json(study / "run" / "network.json")
    assert record["model"] == "my_nets:small" and record["source"]["file"] == "my_nets.py"
    assert record["variables"] == {
        name: {"shape": shape, "dtype": "float32"}
        for name, shape in {
            "batch_stats/norm/mean": [4], "batch_stats/norm/var": [4],
            "params/first/bias": [4], "params/first/kernel": [3, 3, 1, 4],
            "params/head/bias": [2], "params/head/kernel": [4, 2],
            "params/norm/bias": [4], "params/norm/scale": [4],
            "params/second/bias": [4], "params/second/kernel": [3, 3, 4, 4],
        }.items()
    }  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["overlap", "run"],
        ["prune", "run"],
        ["export", "run", "--out", "torch"],
        ["inspect", "run"],
        ["train", "--resume", "--out", "run"],
        ["study", "--resume", "--out", "run"],
    ],
)
def test_nothing_is_imported_by_the_word_of_a_folder(words, home, capsys):
    (home / "evil.py").write_text("open('precious', 'w').close()")
    create_run(home / "run", TrainConfig(model="evil:small", dataset="digits")._asdict())
    line = fails(capsys, *words)
    assert "this run's network is evil:small; give --model evil:small to let jnnk import it" in line
    assert "evil" not in sys.modules and not (home / "precious").exists()
    assert not (home / "torch").exists()
    if words[0] not in ("train", "study"):
        assert "this run's network is evil:small" in fails(capsys, *words, *MODEL)
        assert "evil" not in sys.modules


def test_no_command_is_suggested_that_a_folder_worded(home, capsys):
    create_run(home / "run", TrainConfig(model="a:b; rm -r x", dataset="digits")._asdict())
    line = fails(capsys, "inspect", "run")
    assert "this run's network is none that --model package.module:factory names" in line
    assert "rm" not in line


@pytest.mark.thorough
def test_a_network_of_one_number_of_images_is_exported_without_stablehlo(home, capsys):
    name = ["--model", "my_nets:Flat"]
    told(capsys, "train", *name, *DATA, "--epochs", "1", "--out", "flat")
    assert main(["export", "flat", *name, "--data-dir", ".", "--out", "out"]) == 0
    assert "trained.stablehlo is not written: the network cannot be" in capsys.readouterr().err
    assert [path.name for path in (home / "out").iterdir()] == ["trained.safetensors"]


@pytest.mark.thorough
def test_commands_go_on_with_a_run_that_is_named(run, capsys):
    """What the study has done is not done again."""
    before = (run / "results.json").read_bytes()
    data = ["--data-dir", "."]
    assert told(capsys, "report", run)["model"] == "my_nets:small"
    assert told(capsys, "report", run, *MODEL)["model"] == "my_nets:small"
    assert "this run's network is" in fails(capsys, "report", run, "--model", "my_nets:partial")
    told(capsys, "overlap", run, *MODEL, *data)
    told(capsys, "prune", run, *MODEL, *data)
    assert (run / "results.json").read_bytes() == before
    told(capsys, "train", "--resume", "--out", run, *MODEL, "--dataset", "data.npz")
    assert len(read_json_lines(run / "metrics.jsonl")) == 1


@pytest.mark.thorough
def test_weights_go_out_by_the_paths_of_leaves_and_come_back(run, home, capsys):
    said = told(capsys, "export", run, *MODEL, "--data-dir", ".", "--out", home / "out")
    names = ["trained", "pruned", "pruned_masks"]
    files = [str(home / "out" / f"{name}.safetensors") for name in names]
    assert said["files"][:3] == files
    trained, pruned, masks = map(safetensors.numpy.load_file, files)
    assert set(trained) == {
        "first/kernel", "first/bias", "second/kernel", "second/bias", "head/kernel", "head/bias",
        "norm/scale", "norm/bias", "norm/mean", "norm/var",
    }  # fmt: skip
    for layer in ("first", "second"):
        keep = masks[f"params/{layer}/kernel" if f"params/{layer}/kernel" in masks
                     else f"{layer}/kernel"]  # fmt: skip
        np.testing.assert_array_equal(keep, (pruned[f"{layer}/kernel"] != 0).any((0, 1)))
    words = [*MODEL, *DATA[:2], "--out", home / "new"]
    found = told(capsys, "import-weights", said["files"][0], *words)
    assert found["test_accuracy"] == read_json_lines(run / "metrics.jsonl")[-1]["test_accuracy"]
    trained.pop("head/bias")
    safetensors.numpy.save_file({**trained, "tail.bias": np.zeros(2)}, home / "other.safetensors")
    line = fails(capsys, "import-weights", "other.safetensors", *words[:-1], home / "other")
    assert "params/head/bias is missing; tail.bias is not known" in line
    assert not (home / "other").exists()


@pytest.mark.thorough
def test_another_tree_is_refused_and_another_source_said(run, home, capsys):
    write_nets(home, more="# a remark\n")
    words = ["inspect", str(run), *MODEL, "--data-dir", "."]
    assert main(words) == 0
    err = capsys.readouterr().err
    assert err == "my_nets.py has changed since this run was made; its variables are the same\n"
    forget()
    write_nets(home, width=5)
    for command in (words, ["prune", run, *MODEL, "--data-dir", "."]):
        line = fails(capsys, *command)
        assert "my_nets:small makes another network than this run is of" in line
        assert "float32[4] -> float32[5]" in line
    assert "width=5" not in (run / "config.json").read_text()


@pytest.mark.thorough
def test_whole_channels_go(run, home, capsys):
    words = ["prune", run, *MODEL, "--data-dir", ".", "--channels", "l1_norm", "--share", "0.5"]
    result = told(capsys, *words, "--finetune-epochs", "1")
    kept = result["kept"]
    assert kept["macs"][1] < kept["macs"][0]
    assert result["compacted"]["largest_difference_of_logits"] < 1e-4


TRAIN = [*DATA, "--epochs", "1"]


@pytest.mark.thorough
def test_streams_of_a_network_of_ones_own_are_pruned(home, capsys):
    name = ["--model", "my_nets:Residual"]
    told(capsys, "train", *name, *TRAIN, "--out", "run")
    words = ["prune", "run", *name, "--data-dir", ".", "--share", "0.5", "--finetune-epochs", "1"]
    result = told(capsys, *words, "--channels", "l1_norm", "--streams")
    kept = {layer["path"]: layer["filters"] for layer in result["kept"]["layers"]}
    assert kept == {"stem/kernel": [6, 3], "inner/kernel": [4, 2], "back/kernel": [6, 3]}
    assert result["compacted"]["largest_difference_of_logits"] < 1e-4


@pytest.mark.thorough
def test_channels_of_pointwise_convolutions_go_though_kernels_stay(home, capsys):
    name = ["--model", "my_nets:Pointwise"]
    told(capsys, "train", *name, *TRAIN, "--out", "run")
    words = ["prune", "run", *name, "--data-dir", ".", "--share", "0.5", "--finetune-epochs", "1"]
    assert "no kernels of more than one position" in fails(capsys, *words)
    result = told(capsys, *words, "--channels", "l1_norm")
    assert result["kept"]["macs"][1] < result["kept"]["macs"][0]


@pytest.mark.thorough
def test_a_pair_of_functions_is_trained_with_overlap_in_the_loss(home, capsys):
    words = ["--model", "my_nets:plain", *TRAIN, "--out", "run", "--regularizer", "overlap"]
    told(capsys, "train", *words, "--regularizer-strength", "0.1")
    (epoch,) = read_json_lines(home / "run" / "metrics.jsonl")
    assert epoch["penalty"] > 0


@pytest.mark.thorough
def test_weights_under_pytorch_s_names_are_imported(home, capsys):
    draw = np.random.default_rng(0)
    shapes = {"stem": (6, 1, 3, 3), "inner": (4, 6, 3, 3), "back": (6, 4, 3, 3), "Dense_0": (2, 6)}
    tensors = {f"{name}.weight": draw.normal(size=s).astype("f4") for name, s in shapes.items()}
    tensors |= {f"{name}.bias": np.ones(s[0], "f4") for name, s in shapes.items()}
    safetensors.numpy.save_file(tensors, home / "torch.safetensors")
    name = ["--model", "my_nets:Residual"]
    told(capsys, "import-weights", "torch.safetensors", *name, *DATA[:2], "--out", "run")
    told(capsys, "export", "run", *name, "--data-dir", ".", "--out", "out")
    found = safetensors.numpy.load_file(home / "out" / "trained.safetensors")
    np.testing.assert_array_equal(
        found["inner/kernel"], tensors["inner.weight"].transpose(2, 3, 1, 0)
    )


@pytest.mark.thorough
def test_channels_stop_training_by_themselves(home, capsys):
    found = told(capsys, "train", *MODEL, *DATA, "--stop", "channel-nnk", "--out", "stopped")
    assert 0 <= found["test_accuracy"] <= 1
    pytest.importorskip("equinox")
    pytest.importorskip("haiku")
    write_nets(home, more=OTHERS)
    forget()
    words = ["--model", "my_nets:of_equinox", "--epochs", "2", "--patience", "1", "--out", "other"]
    with jax.numpy_dtype_promotion("standard"):
        told(capsys, "train", *words, *DATA, "--stop", "channel-nnk")
        told(capsys, "export", "other", *words[:2], "--data-dir", ".", "--out", "out")


@pytest.mark.thorough
def test_inspect_shows_the_network_as_read(run, capsys):
    whole = told(capsys, "inspect", *MODEL, "--dataset", "data.npz")
    assert whole["image"] == [8, 8, 1]
    assert [
        (each["name"], each["kernel_shape"], each["output_shape"], each["macs"])
        for each in whole["convs"]
    ] == [
        ("first", [3, 3, 1, 4], [8, 8, 4], 64 * 9 * 4),
        ("second", [3, 3, 4, 4], [4, 4, 4], 16 * 9 * 16),
    ]
    assert told(capsys, "inspect", run, *MODEL, "--data-dir", ".") == whole
    words = ["--model-options", "width=6", "--image-size", "6"]
    other = told(capsys, "inspect", *MODEL, "--dataset", "data.npz", *words)
    assert other["convs"][0]["output_shape"] == [6, 6, 6]
    assert main(["inspect", "--dataset", "data.npz"]) == 0  # the default, a network of jnnk
    out = capsys.readouterr().out
    assert "layer3_0/conv2" in out and "MACs" in out and "8 x 8 x 1, data.npz" in out
    assert "--image-size: the run tells" in fails(capsys, "inspect", run, *words)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:small", "there is no module nowhere, neither in "),
        ("my_nets.deeper:small", "there is no module my_nets.deeper, neither in "),
        ("my_nets:none", "my_nets has no none"),
        ("my_nets:number", "expected a function, number is int"),
        (
            "my_nets:no_arguments",
            "expected a function of (num_classes=...): got an unexpected keyword",
        ),
        ("my_nets:raises", "it raised RuntimeError: no weights there"),
        ("my_nets:returns_text", "expected it to return a network: model: expected a Flax module"),
        ("my_nets:wide", "its network does not take images of 8 x 8 x 1, when it is initialised: "),
        (
            "my_nets:of_maps",
            "expected logits (2, 2) of 2 images from its network, got (2, 8, 8, 2)",
        ),
        ("my_nets:no_logits", "network: expected logits: an array"),
        ("my_nets:Growing", "other collections/seen/images is float32(1, 1) at the start and"),
        ("my_nets:Indexed", "images of 8 x 8 x 1, when it is trained: TypeError: grad requires"),
        (":small", "expected package.module:factory"),
        ("my_nets:", "expected package.module:factory"),
        ("my-nets:small", "expected package.module:factory"),
        ("broken:small", "importing it raised SyntaxError: "),
        ("stops:small", "importing it raised SystemExit: 3"),
    ],
)
def test_what_is_wrong_with_a_factory_is_one_line(name, said, home, capsys):
    (home / "broken.py").write_text("def small(:\n")
    (home / "stops.py").write_text("import sys\nsys.exit(3)\n")
    line = fails(capsys, "train", "--model", name, *DATA, "--out", "new")
    assert f"--model {name}: " in line and said in line
    assert not (home / "new").exists()


def test_a_factory_gets_options_and_none_of_resnets(home, capsys):
    words = ["inspect", "--model", "my_nets:partial", "--dataset", "data.npz"]
    assert told(capsys, *words)["convs"][0]["kernel_shape"] == [3, 3, 1, 3]
    assert "--shortcut is of jnnk's own" in fails(capsys, *words, "--shortcut", "B")
    line = fails(capsys, *words[:1], *MODEL, *words[3:], "--model-options", "depth=3")
    assert "expected a function of (num_classes=..., depth=...)" in line


OTHERS = """
import equinox as eqx
import haiku as hk
import jax
from flax import nnx


class Nnx(nnx.Module):
    def __init__(self, num_classes, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(4, num_classes, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.conv(x))))
        return self.head(x.mean((1, 2)))


class Equinox(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, num_classes, key):
        keys = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(1, 4, 3, key=keys[0])
        self.norm = eqx.nn.BatchNorm(4, "batch", mode="batch")
        self.head = eqx.nn.Linear(4, num_classes, key=keys[1])

    def __call__(self, x, state):
        x, state = self.norm(self.conv(x), state)
        return self.head(jax.nn.relu(x).mean((1, 2))), state


def of_nnx(num_classes):
    return Nnx(num_classes, nnx.Rngs(0))


def of_equinox(num_classes):
    return eqx.nn.make_with_state(Equinox)(num_classes, jax.random.key(0))


def of_haiku(num_classes):
    @hk.transform_with_state
    def net(x, is_training):
        x = hk.BatchNorm(True, True, 0.9)(hk.Conv2D(4, 3)(x), is_training)
        return hk.Linear(num_classes)(jax.nn.relu(x).mean((1, 2)))

    return net
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("factory", "kernel"),
    [("of_nnx", "conv/kernel"), ("of_equinox", "conv/weight"), ("of_haiku", "conv2_d/w")],
)
def test_networks_of_other_libraries_are_studied(factory, kernel, home, capsys):
    pytest.importorskip("equinox")
    pytest.importorskip("haiku")
    write_nets(home, more=OTHERS)
    name = ["--model", f"my_nets:{factory}"]
    with jax.numpy_dtype_promotion("standard"):
        said = told(capsys, "study", *name, *STUDY, "--out", "run")
        assert said["kernels"] == [4, 2]
        assert told(capsys, "export", "run", *name, "--out", "out")["files"]
    pruned = safetensors.numpy.load_file(home / "out" / "pruned.safetensors")
    masks = safetensors.numpy.load_file(home / "out" / "pruned_masks.safetensors")
    (keep,) = masks.values()
    axes = (2, 3) if factory == "of_equinox" else (0, 1)
    found = (pruned[kernel] != 0).any(axes)
    np.testing.assert_array_equal(keep, found.T if factory == "of_equinox" else found)
