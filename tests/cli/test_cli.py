"""The command line in one process: bad input, and one small study from start to report."""

import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from tiny import fails

from jnnk.cli import main
from jnnk.report.top_images import Images, TopRows
from jnnk.runs.json_files import read_json_lines, write_json
from jnnk.runs.overlap_files import LayerArrays, write_npz

STUDY = [
    "study", "--epochs", "2", "--batch-size", "128", "--measure-epochs", "0", "2",
    "--images", "60", "--neighbors", "6", "--layers", "layer3*",
    "--criteria", "weight", "random", "--sweep-images", "100", "--share", "0.5",
    "--finetune-epochs", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "study"
    assert main([*STUDY, "--out", str(path)]) == 0
    return path


def test_study_leaves_everything_it_promises(run):
    for name in ("config.json", "metrics.jsonl", "results.json", "report.html"):
        assert (run / name).stat().st_size > 0
    figures = {path.stem for path in (run / "figures").glob("*.png")}
    assert figures == {path.stem for path in (run / "figures").glob("*.svg")}
    assert {"training", "measures_by_depth", "overlap_heat_maps", "pruning_sweep"} <= figures
    assert {"overlap_by_epoch", "channels_layer3_0-conv2"} <= figures
    assert [line["epoch"] for line in read_json_lines(run / "metrics.jsonl")] == [1, 2]


def test_results_hold_every_layer_and_epoch_asked_for(run):
    results = json.loads((run / "results.json").read_text())
    measured = [(record["epoch"], record["layer"]) for record in results["overlap"]]
    layers = ["layer3_0/conv1", "layer3_0/conv2"]
    assert measured == [(epoch, layer) for epoch in (0, 2) for layer in layers]
    for record in results["overlap"]:
        assert record["converged"] == 1
        assert 0 < record["overlap"] < 1 and 0 <= record["loo_error"] <= 1
    matrix = np.array(results["overlap_matrices"]["layer3_0/conv1"], float)
    assert matrix.shape == (64, 64)
    np.testing.assert_array_equal(matrix, matrix.T)


def test_tables_of_overlap_hold_what_the_results_hold(run):
    results = json.loads((run / "results.json").read_text())
    folder = run / "overlap" / "tables"
    with (folder / "measures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [
        {key: float(value) for key, value in row.items() if key != "layer"} for row in rows
    ] == [{k: v for k, v in record.items() if k != "layer"} for record in results["overlap"]]
    with (folder / "overlap_layer3_0-conv2.csv").open() as file:
        matrix = [[float(row[str(d)]) if row[str(d)] else None for d in range(64)]
                  for row in csv.DictReader(file)]  # fmt: skip
    assert matrix == results["overlap_matrices"]["layer3_0/conv2"]


def test_results_of_pruning(run):
    pruning = json.loads((run / "results.json").read_text())["pruning"]
    whole, kept = pruning["kept"]["kernels"]
    assert kept == whole - whole // 2
    assert pruning["pruned"]["revived_weights"] == 0
    # settings.json names the criterion pruned by; it is swept even if not in --criteria.
    assert set(pruning["sweep"]["criteria"]) == {"weight", "random", "spectral_radius"}
    first = pruning["sweep"]["criteria"]["weight"][0]
    assert (first["share"], first["score"]) == (0.0, 0.0)
    assert first["accuracy"] == pruning["sweep"]["accuracy"]
    assert {record["criterion"] for record in pruning["scores"]} == {"weight", "spectral_radius"}
    assert [record["epoch"] for record in pruning["history"]] == [0, 2]
    for table in ("sweep", "agreement", "eigenvalues", "history", "pruned_by_layer"):
        assert (run / "prune" / "tables" / f"{table}.csv").stat().st_size > 0
        assert (run / "prune" / "tables" / f"{table}.tex").stat().st_size > 0


def test_report_needs_no_other_file(run):
    page = (run / "report.html").read_text()
    assert len(page.encode()) < 8 * 2**20
    assert page.count("data:image/svg+xml,") >= 5
    figures = page.count("<figure ")
    assert page.count('href="data:text/csv,') == figures > 10
    assert "<script src" not in page
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)  # Plotly's names its authors
    for outside in ('src="http', 'href="http', 'src="figures', "url(http", "@import"):
        assert outside not in markup


def test_report_answers_first(run):
    page = (run / "report.html").read_text()
    first = page[page.index("<h1>") : page.index("<section")]
    for said in ("What is redundant?", "What can go?", "What does it cost?", "MACs", "latency"):
        assert said in first
    results = json.loads((run / "results.json").read_text())
    pruned = results["pruning"]["pruned"]
    assert f"{100 * pruned['accuracy_finetuned']:.2f} %" in first
    assert f"{results['pruning']['kept']['macs'][1]:,}" in first


# A mouse moves to a cell, clicks it, and clicks the slider's rail.
ACT = """
  const at = (element, kind, x, y) => element.dispatchEvent(new MouseEvent(kind,
    { clientX: x, clientY: y, bubbles: true, cancelable: true, view: window }));
  const text = (selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent);
  const map = document.getElementById("overlap_explorer");
  map.scrollIntoView();
  await wait(300);
  const box = map.querySelector(".nsewdrag").getBoundingClientRect();
  const cells = map.data.find((trace) => trace.visible).x.length;
  const [x, y] = [box.left + 1.5 * box.width / cells, box.top + 0.5 * box.height / cells];
  at(map.querySelector(".nsewdrag"), "mousemove", x, y);
  await wait(500);
  const hover = text("#overlap_explorer .hoverlayer text").join(" ");
  at(map.querySelector(".nsewdrag"), "mousedown", x, y);
  at(document.querySelector(".dragcover") || map.querySelector(".nsewdrag"), "mouseup", x, y);
  await wait(500);
  const pair = text("#channel_pair > *");
  const pictures = [...document.querySelectorAll("#channel_pair img")];
  await Promise.all(pictures.map((image) => image.decode()));

  const slider = document.getElementById("threshold_explorer");
  slider.scrollIntoView();
  await wait(300);
  const state = () => ({ title: text("#threshold_explorer .gtitle")[0],
                         x: [...slider.data.at(-1).x], y: [...slider.data.at(-1).y] });
  const before = state();
  const rail = slider.querySelector(".slider-rail-touch-rect");
  const rect = rail.getBoundingClientRect();
  at(rail, "mousedown", rect.left + 0.98 * rect.width, rect.top + rect.height / 2);
  at(slider.querySelector(".slider-group"), "mouseup", rect.left + 0.98 * rect.width, rect.top);
  await wait(1000);
  const width = document.documentElement;
  return { hover, pair, pictures: pictures.length, before, after: state(),
           names: map.data.find((trace) => trace.visible).x.slice(0, 2),
           layer: map.data.find((trace) => trace.visible).name,
           overflow: width.scrollWidth - width.clientWidth };
"""


def test_report_in_a_browser(run, browse):
    seen = browse(run / "report.html", ACT)
    assert seen["errors"] == []
    assert seen["overflow"] == 0
    first, second = map(int, seen["names"])
    results = json.loads((run / "results.json").read_text())
    overlap = results["overlap_matrices"][seen["layer"]][first][second]
    assert f"channels {first} and {second}" in seen["hover"]
    assert f"overlap {overlap:.3f}" in seen["hover"]
    assert seen["pair"] == [
        f"{seen['layer']}: channels {first} and {second}, overlap {overlap:.3f}",
        f"channel {first}", f"channel {second}",
    ]  # fmt: skip
    assert seen["pictures"] == 12
    before, after = seen["before"], seen["after"]
    assert before["title"] != after["title"] and "kernels" in after["title"]
    assert all(old < new for old, new in zip(before["x"], after["x"], strict=True))
    assert after["x"][-1] > 95


def test_runs_side_by_side(run, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / "other")
    write_json(other / "config.json", {**json.loads((run / "config.json").read_text()), "seed": 7})
    shutil.rmtree(other / "prune")
    page = tmp_path / "both.html"
    assert main(["report", str(run), str(other), "--out", str(page), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["report"] == str(page)
    assert [len(each) for each in said["runs"]] == sorted(map(len, said["runs"]), reverse=True)
    text = page.read_text()
    for part in ("study and other compared", "train: seed", "How do they learn?", "Where is each"):
        assert part in text
    assert "What does pruning cost each?" not in text  # only one of them was pruned
    assert "--out names the page" in fails(capsys, "report", run, "--out", page)


@pytest.mark.thorough
def test_resume_does_nothing_twice_and_needs_no_options(run):
    before = (run / "results.json").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (run / "overlap").rglob("*.npz")}
    assert main(["study", "--out", str(run), "--resume"]) == 0
    assert (run / "results.json").read_bytes() == before
    assert times == {path: path.stat().st_mtime_ns for path in (run / "overlap").rglob("*.npz")}


def test_report_of_training_alone(run, tmp_path, capsys):
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(run / name, tmp_path)
    assert main(["report", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["report"] == str(tmp_path / "report.html") and 0 < said["test_accuracy"] <= 1
    assert main(["report", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "report.html").read_text().count("data:image/svg+xml,") == 1
    assert [path.stem for path in (tmp_path / "figures").glob("*.svg")] == ["training"]


@pytest.mark.thorough  # to the bit only as users compile
@pytest.mark.user_compile
def test_weights_of_a_run_go_into_another(run, tmp_path, capsys):
    from jnnk import models
    from jnnk.data import load
    from jnnk.jobs.train import load_state
    from jnnk.runs.folder import open_run

    model = models.create("resnet8", num_classes=10)
    state = load_state(open_run(run), model, load("digits"))
    models.save_safetensors(model, state.variables, tmp_path / "net.safetensors")
    out = tmp_path / "imported"
    assert main(["import-weights", str(tmp_path / "net.safetensors"), "--out", str(out)]) == 0
    accuracy = read_json_lines(run / "metrics.jsonl")[-1]["test_accuracy"]
    assert f"test accuracy  {100 * accuracy:.2f} %" in capsys.readouterr().out
    imported = load_state(open_run(out), model, load("digits"))
    np.testing.assert_array_equal(
        imported.params["conv1"]["kernel"], state.params["conv1"]["kernel"]
    )
    # Given weights have no random start: the control is made, of the same seed as the run's own.
    assert main(
        ["overlap", str(out), "--images", "60", "--neighbors", "6", "--layers", "layer3_0/conv1",
         "--channels", "layer3_0/conv1:5,layer3_0/conv1:3"]
    ) == 0  # fmt: skip
    random, given = json.loads((out / "results.json").read_text())["overlap"]
    own = json.loads((run / "results.json").read_text())["overlap"]
    assert random == {**own[0], "epoch": "random"} and given == {**own[2], "epoch": 0}
    assert (out / "figures" / "channels_layer3_0-conv1.png").exists()
    capsys.readouterr()
    line = fails(
        capsys, "import-weights", tmp_path / "net.safetensors", "--model", "resnet20",
        "--out", tmp_path / "other",
    )  # fmt: skip
    assert "layer1.1" in line and not (tmp_path / "other").exists()


def test_damaged_weights(tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file({"conv1.weight": np.zeros((16, 1, 3, 3), np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    assert "net.safetensors" in fails(capsys, "import-weights", path, "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dataset", "no_such_set", "--data-dir", "."], "no_such_set"),
        (["--dataset", "cifar10"], "data_dir"),
        (
            ["--dataset", "cifar10", "--data-dir", "."],
            "on the command line: jnnk prepare cifar10 --data-dir .",
        ),
        (["--dataset", "tiny_imagenet", "--data-dir", "/nowhere"], "/nowhere"),
        (["--model", "resnet9"], "--model: expected one of resnet8"),
        (["--model", "convnet5"], "24"),
        (["--model", "convnet6", "--model-options", "dropout"], "expected NAME=VALUE"),
        (["--model-options", "dropout=0.1"], "resnet8 has no option 'dropout'"),
        (["--weights", "/nowhere.safetensors"], "/nowhere.safetensors"),
        (["--batch-size", "5000"], "larger than the 1438 training images"),
        (["--epochs", "-1"], "--epochs: expected a whole number from 0"),
        (["--epochs", "2", "--measure-epochs", "7"], r"training has epochs 0 to 2"),
        (["--criterion", "best"], "--criteria: expected some of det"),
        (["--neighbors", "0"], "--neighbors: expected a whole number from 1"),
        (["--mean", "0.5", "0.5"], "--mean: expected one number, got 2"),
        (["--share", "1.5"], "--share: expected a number of 0 or more and below 1"),
    ],
)
def test_bad_options(options, said, tmp_path, capsys):
    assert said in fails(capsys, "study", "--out", tmp_path / "run", *options)


@pytest.mark.parametrize(
    ("mesh", "said"),
    [
        ("data=4096", "asks for 4096 devices, there are"),
        ("model=2", "unknown axis 'model', there are data and channel"),
        ("channel=1", "expected an axis data for training, got channel"),
    ],
)
def test_bad_meshes(mesh, said, tmp_path, capsys):
    out = tmp_path / "run"
    assert said in fails(capsys, "train", "--out", out, "--mesh", mesh)
    assert not out.exists()


@pytest.mark.thorough
def test_a_plan_says_what_is_left_and_writes_nothing(run, capsys):
    before = sorted(run.rglob("*"))
    command = ["overlap", str(run), "--plan", "--mesh", "data=1", "--layers"]
    assert main([*command, "layer3*"]) == 0
    assert "about 0 s" in capsys.readouterr().out
    assert main([*command, "conv1", "layer3*"]) == 0
    said = capsys.readouterr().out
    assert "conv1" in said and "8 x 8 x 16" in said and "layer3" not in said
    assert "compilation" in said and "GiB a device" in said
    assert sorted(run.rglob("*")) == before


def stamps(folder):
    """When every file and folder was last changed; of a folder that is a name made or removed."""
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_who_only_reads_writes_nothing(run, tmp_path, capsys):
    """Not even for a moment: a run folder may be another's, or on a medium that is read-only."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(".lock"))
    folders = [path for path in (copy, *copy.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)  # the superuser may write all the same
    before = stamps(copy)
    assert main(["export", str(copy), "--out", str(tmp_path / "torch")]) == 0
    assert main(["overlap", str(copy), "--plan", "--layers", "layer3*"]) == 0
    page = tmp_path / "page.html"
    assert main(["report", str(copy), str(run), "--out", str(page)]) == 0
    assert stamps(copy) == before
    for folder in folders:
        folder.chmod(0o755)


def test_an_export_is_as_readable_as_the_umask_lets_it(run, tmp_path, capsys):
    before = os.umask(0o027)
    try:
        assert main(["export", str(run), "--out", str(tmp_path / "torch")]) == 0
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "torch").iterdir()}
    networks = [
        f"{name}.{kind}" for name in ("trained", "pruned") for kind in ("safetensors", "stablehlo")
    ]
    assert modes == dict.fromkeys((*networks, "pruned_masks.safetensors"), 0o640)
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / "torch" / "trained.safetensors").unlink()
    (tmp_path / "torch" / "trained.safetensors").symlink_to(precious)
    capsys.readouterr()
    said = fails(capsys, "export", run, "--out", tmp_path / "torch")
    assert "trained.safetensors" in said and precious.read_text() == "keep"


def damaged_records(folder):
    """Of every kind of record of a run one that has lost a key or has a wrong one."""
    result = json.loads((folder / "prune" / "result.json").read_text())
    sweep = {**result["sweep"], "criteria": {"weight": [{"share": 0}]}}
    last = "overlap/epoch0002/layer3_0-conv1"
    record = json.loads((folder / f"{last}.json").read_text())
    yield "prune/result.json", {key: value for key, value in result.items() if key != "kept"}
    yield "prune/result.json", {**result, "sweep": sweep}
    yield "prune/result.json", {**result, "criterion": "another"}
    yield "prune/result.json", {**result, "thresholds": result["thresholds"][1:]}
    yield "prune/result.json", {**result, "agreement": [{"criteria": ["another"], "kernels": 1}]}
    yield "prune/settings.json", {"share": "half", "tolerance": 1.0}
    yield "overlap/settings.json", {"images": 60}
    yield f"{last}.json", {**record, "redundancy": "much"}
    yield f"{last}.json", {key: value for key, value in record.items() if key != "depth"}
    yield f"{last}.json", {**record, "epoch": "first"}
    yield f"{last}.npz", LayerArrays(np.eye(3), np.ones(3), np.ones(3))
    yield f"{last}.npz", LayerArrays(np.eye(64)[:5], np.ones(64), np.ones(64))
    yield f"{last}.npz", LayerArrays(np.diag(np.full(64, np.nan)) + 1, np.ones(64), np.ones(64))
    holes = np.ones((64, 64))
    holes[3, 4] = np.nan
    yield f"{last}.npz", LayerArrays(holes, np.ones(64), np.ones(64))
    yield f"{last}.top.npz", TopRows(np.full((64, 6), 10**6))
    yield "overlap/epoch0002/top-images.npz", Images(np.arange(2), np.zeros((2, 8, 8, 2), np.uint8))


def test_records_that_do_not_fit_are_named(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jnnk.report.output.figure_bytes", lambda figure, kind: b"<svg></svg>")
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    for number, (name, content) in enumerate(damaged_records(copy)):
        path = copy / name
        whole = path.read_bytes()
        if name.endswith(".json"):
            write_json(path, content)
        else:
            write_npz(path, content)
        code = main(["report", str(copy)])
        said = capsys.readouterr().err
        if number == 12:  # all channels are dead: nothing is wrong with that
            assert code == 0
        else:
            at_fault = name.replace("layer3_0-conv1.top", "top-images")  # lacks what that asks for
            assert (code, len(said.splitlines())) == (2, 1) and at_fault in said, f"case {number}"
        path.write_bytes(whole)
    assert main(["report", str(copy)]) == 0


@pytest.mark.thorough
@pytest.mark.parametrize("kib", [4, 12, 40, 200, 350, 400, 500, 800, 1000])
def test_a_disk_of_any_size_that_is_full_is_one_line(kib, tmp_path):
    """Where checkpoints are written in parts and threads, each has an error of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk of that size cannot be made here")
    try:
        jnnk = [sys.executable, "-P", "-m", "jnnk", "train", "--epochs", "2"]
        options = ["--batch-size", "512", "--quiet", "--out", str(disk / "run")]
        done = subprocess.run([*jnnk, *options], capture_output=True, text=True, check=False)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"error: {disk}/run")
    assert "No space left on device; what" in done.stderr


def test_a_full_disk_is_named_and_loses_nothing(run, capsys, monkeypatch):
    before = (run / "results.json").read_bytes()

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    said = fails(capsys, "report", run)
    assert str(run) in said and "No space left on device; what is done is kept" in said
    assert (run / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["study", "--resume", "--out"], "same command with --resume"),
        (["overlap"], "same command "),
    ],
)
def test_ctrl_c_says_how_to_go_on(command, said, run, capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("jnnk.jobs.overlap.overlap", interrupted)
    monkeypatch.setattr("jnnk.jobs.study.overlap", interrupted)
    assert main([*command, str(run)]) == 130
    assert f"stopped; what is done is kept, and the {said}" in capsys.readouterr().err


def test_bad_folders(run, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("not a run")
    assert "no config.json" in fails(capsys, "train", "--out", tmp_path)
    assert "no config.json" in fails(capsys, "report", tmp_path)
    assert "no such run folder" in fails(capsys, "overlap", tmp_path / "nowhere")
    assert "already holds a run" in fails(capsys, "study", "--out", run)
    assert "seed 0 -> 1" in fails(capsys, "study", "--out", run, "--resume", "--seed", "1")
    assert "neighbors 6 -> 7" in fails(capsys, "overlap", run, "--neighbors", "7")
    assert "no such layer" in fails(capsys, "overlap", run, "--layers", "conv9")
    assert "expected LAYER:INDEX" in fails(capsys, "overlap", run, "--channels", "conv1")
    assert "cannot write" in fails(capsys, "train", "--out", tmp_path / "notes.txt" / "run")
    assert "--out: " in fails(capsys, "export", run, "--out", tmp_path / "notes.txt" / "torch")


def test_a_run_of_another_version(tmp_path, capsys):
    write_json(tmp_path / "config.json", {"format": 1, "model": "resnet8"})
    assert "another version of jnnk wrote it" in fails(capsys, "overlap", tmp_path)


def test_a_run_that_was_only_begun(tmp_path, capsys):
    path = tmp_path / "run"
    from jnnk.runs.folder import create_run
    from jnnk.runs.settings import TrainConfig

    create_run(path, TrainConfig(measure_epochs=(0,))._asdict())
    assert "no trained network yet" in fails(capsys, "overlap", path)
    assert "no results yet" in fails(capsys, "report", path)


WITHOUT_JNNK = """
import sys
import jax.export, numpy
network = jax.export.deserialize(open(sys.argv[1], "rb").read())
numpy.save(sys.argv[3], network.call(numpy.load(sys.argv[2])))
assert not any(name.startswith("jnnk") for name in sys.modules)
"""


@pytest.mark.thorough
def test_an_artifact_answers_without_jnnk(run, tmp_path):
    from jnnk import data, models

    out, images = tmp_path / "torch", data.load("digits").test_images[:7]
    assert main(["export", str(run), "--out", str(out)]) == 0
    np.save(tmp_path / "images.npy", images)
    model = models.create("resnet8", num_classes=10)
    for name in ("trained", "pruned"):
        paths = (out / f"{name}.stablehlo", tmp_path / "images.npy", tmp_path / "logits.npy")
        program = [sys.executable, "-c", WITHOUT_JNNK, *map(str, paths)]
        subprocess.run(program, check=True, cwd=tmp_path, timeout=120)
        weights = models.load_safetensors(model, out / f"{name}.safetensors")
        normalization = data.load("digits").normalization
        expected, _ = model.apply(weights, data.normalize(images, normalization))
        found = np.load(tmp_path / "logits.npy")
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_pruned_network_without_checkpoints_is_named(run, tmp_path, capsys, left):
    copy, out = tmp_path / "run", tmp_path / "torch"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(".lock"))
    checkpoints = copy / "prune" / "checkpoints"
    shutil.rmtree(checkpoints)
    if left == "an empty folder":
        checkpoints.mkdir()
    said = fails(capsys, "export", copy, "--out", out)
    assert f"{checkpoints}: no checkpoint of the pruned network" in said
    assert not out.exists() and checkpoints.exists() == (left == "an empty folder")


def test_networks_go_out_with_their_masks(run, tmp_path, capsys):
    from jnnk import models

    out = tmp_path / "torch"
    assert main(["export", str(run), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    names = ["trained", "pruned", "pruned_masks"]
    assert said["files"] == [
        *(str(out / f"{name}.safetensors") for name in names),
        *(str(out / f"{name}.stablehlo") for name in ("trained", "pruned")),
    ]
    trained, pruned, masks = (
        safetensors.numpy.load_file(out / f"{name}.safetensors") for name in names
    )
    assert trained.keys() == pruned.keys()
    kernels = [name for name, tensor in pruned.items() if tensor.ndim == 4]
    assert masks.keys() == {f"{name}_mask" for name in kernels}
    for name in kernels:
        mask = masks[f"{name}_mask"]
        assert mask.dtype == bool and mask.shape == pruned[name].shape
        np.testing.assert_array_equal(mask, pruned[name] != 0)
    # What the masks keep is what the run reports.
    whole, kept = json.loads((run / "results.json").read_text())["pruning"]["kept"]["kernels"]
    every = np.concatenate([masks[f"{name}_mask"][:, :, 0, 0].ravel() for name in kernels])
    assert (every.size, every.sum()) == (whole, kept)
    model = models.create("resnet8", num_classes=10)
    accuracy = json.loads((run / "results.json").read_text())["pruning"]["pruned"]
    assert accuracy["accuracy_finetuned"] == _accuracy(model, out / "pruned.safetensors")


def _accuracy(model, path):
    from jnnk import models
    from jnnk.data import load
    from jnnk.training import make_evaluate

    digits = load("digits")
    evaluate = make_evaluate(model, normalization=digits.normalization)
    variables = models.load_safetensors(model, path, image_shape=digits.train_images.shape[1:])
    return evaluate(variables, digits.test_images, digits.test_labels)
