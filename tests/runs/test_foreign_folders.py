"""Run folders of strangers: nothing outside of them is touched, and what is wrong is one line."""

import json
import os
import pathlib
import re

import numpy as np
import pytest
from tiny import fails

from jnnk.cli import main
from jnnk.report.explorers import overlap_explorer, threshold_explorer
from jnnk.report.figures.overview import LayerOverview, redundancy_and_pruning
from jnnk.report.output import figure_bytes
from jnnk.runs import cores
from jnnk.runs.folder import NEWER, create_run, open_run
from jnnk.runs.json_files import read_json, write_json_lines
from jnnk.runs.progress import Silent
from jnnk.runs.records import SweepPoint
from jnnk.runs.settings import TrainConfig

EPOCH = {
    "loss": 0.5, "cross_entropy": 0.5, "accuracy": 0.5, "penalty": 0.0, "test_accuracy": 0.5,
    "seconds": 1.0,
}  # fmt: skip


def trained(path: pathlib.Path, **settings) -> pathlib.Path:
    """A run folder with all that a report of the training needs."""
    config = TrainConfig(epochs=2, **settings)._asdict()
    write_json_lines(create_run(path, config).path / "metrics.jsonl", [
        {"epoch": epoch, **EPOCH} for epoch in (1, 2)
    ])  # fmt: skip
    return path


@pytest.fixture
def quick_figures(monkeypatch):
    """Figures are drawn, but not as files: what is looked at here is where they go."""
    monkeypatch.setattr("jnnk.report.output.figure_bytes", lambda figure, kind: b"<svg></svg>")


PLANTED = (
    ".lock", ".training.csv.partial", ".report.html.partial", "figures", "figures/training.png",
    "results.json", "report.html", "metrics.jsonl", "config.json", "overlap", "overlap/tables",
    "overlap/epoch0001/conv1.json", "checkpoints", "checkpoints/0", "checkpoints/0/default/d",
    "prune", "prune/tables", "tensorboard", "channels", "protocol/paper/tables", "anything",
    "deep/er/still",
)  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_links_are_named_and_not_followed(name, tmp_path, capsys, quick_figures):
    run = trained(tmp_path / "run")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = elsewhere / "precious"
    link = run / name
    if link.exists():  # with the same content, so that nothing else is wrong
        target.write_bytes(link.read_bytes())
        link.unlink()
    else:
        target.write_text("keep")
        link.parent.mkdir(parents=True, exist_ok=True)
    content = target.read_bytes()
    is_folder = "." not in link.name.lstrip(".") and link.name != ".lock"
    link.symlink_to(elsewhere if is_folder else target)
    before = target.stat()
    assert f"{link}: " in fails(capsys, "report", run)
    assert f"{link}: " in fails(capsys, "overlap", run, "--plan")
    assert f"{link}: " in fails(capsys, "export", run, "--out", tmp_path / "exported")
    assert target.read_bytes() == content and target.stat().st_mtime_ns == before.st_mtime_ns
    assert os.listdir(elsewhere) == ["precious"] and not (tmp_path / "exported").exists()


def test_a_run_folder_may_be_given_as_a_link(tmp_path, capsys, quick_figures):
    run = trained(tmp_path / "run")
    (tmp_path / "link").symlink_to(run)
    assert main(["report", str(tmp_path / "link")]) == 0
    assert (run / "report.html").exists()
    link = tmp_path / "new"
    (tmp_path / "there").mkdir()
    link.symlink_to(tmp_path / "there")
    trained(link)
    assert (tmp_path / "there" / "config.json").exists()


def damage_with(text):
    return lambda path: path.write_text(text)


def fifo(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def endless(path):
    with path.open("wb") as file:
        file.truncate(2**43)


def without(key):
    def damage(path):
        first, *rest = [json.loads(line) for line in path.read_text().splitlines()]
        first.pop(key)
        path.write_text("\n".join(map(json.dumps, [first, *rest])))

    return damage


def having(key, value):
    def damage(path):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("\n".join(json.dumps({**line, key: value}) for line in lines))

    return damage


ANYTHING = {
    "nested": damage_with("[" * 10**5 + "]" * 10**5),
    "nested in a text of objects": damage_with('{"a":' * 10**5),
    "an integer of 5,000 digits": damage_with('{"epoch": ' + "9" * 5000 + "}"),
    "an integer of 400 digits": damage_with('{"epoch": ' + "9" * 400 + "}"),
    "half a surrogate": damage_with('{"epoch": "\\ud800"}'),
    "half a surrogate as a key": damage_with('{"\\udfff": 1}'),
    "no number": damage_with('{"epoch": NaN}'),
    "infinite": damage_with('{"epoch": 1e999}'),
    "a control character": damage_with('{"epoch": "\\u001b[2J"}'),
    "a list": damage_with("[1]"),
    "a number": damage_with("7"),
    "not UTF-8": lambda path: path.write_bytes(b'"\xff"'),
    "a FIFO": fifo,
    "endless": endless,
}


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
@pytest.mark.parametrize("what", ANYTHING)
def test_any_file_may_be_anything(name, what, tmp_path, capsys):
    run = trained(tmp_path / "run")
    ANYTHING[what](run / name)
    assert str(run if name == "config.json" else run / name) in fails(capsys, "report", run)


CONFIG = [
    *((without(key), key) for key in TrainConfig._fields if key not in NEWER),
    *((having(key, {}), key) for key in TrainConfig._fields),
    *((having(key, -1), key) for key in ("epochs", "batch_size", "seed", "patience")),
    *((having(key, "x"), key) for key in ("optimizer", "shortcut", "learning_rate", "augment")),
    (having("measure_epochs", [0, "x"]), "measure_epochs"),
]


@pytest.mark.parametrize("command", ["report", "export"])
def test_settings_of_another_form_are_named(command, tmp_path, capsys):
    run = trained(tmp_path / "run")
    whole = (run / "config.json").read_text()
    for damage, key in CONFIG:
        (run / "config.json").write_text(json.dumps(json.loads(whole)))  # on one line
        damage(run / "config.json")
        out = () if command == "report" else ("--out", tmp_path / "out")
        line = fails(capsys, command, run, *out)
        assert "config.json" in line and key in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", sorted({*EPOCH, "epoch"} - {"penalty", "seconds"}))
def test_metrics_of_another_form_are_named(key, tmp_path, capsys):
    run = trained(tmp_path / "run")
    whole = (run / "metrics.jsonl").read_text()
    for damage in (without(key), having(key, "x"), having(key, [])):
        (run / "metrics.jsonl").write_text(whole)
        damage(run / "metrics.jsonl")
        line = fails(capsys, "report", run)
        assert "metrics.jsonl" in line and key in line


@pytest.mark.parametrize("what", ["config.json", "text", "page", "folder", "link", "broken link"])
def test_a_comparison_replaces_only_its_own_pages(what, tmp_path, capsys, quick_figures):
    runs = [trained(tmp_path / name) for name in ("a", "b")]
    other = tmp_path / "other"
    other.write_text("keep")
    path = tmp_path / "page.html"
    if what == "config.json":
        path = runs[0] / "config.json"
    elif what == "text":
        path.write_text("keep")
    elif what == "page":
        path.write_text("<!doctype html>\n<html lang='en'><head></head></html>")
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to(other if what == "link" else tmp_path / "new")
    content = None if path.is_dir() or what == "broken link" else path.read_bytes()
    assert str(path) in fails(capsys, "report", *runs, "--out", path)
    assert content is None or path.read_bytes() == content
    assert other.read_text() == "keep" and not (tmp_path / "new").exists()


def test_a_comparison_replaces_its_own_page_and_no_device(tmp_path, capsys, quick_figures):
    runs = [str(trained(tmp_path / name)) for name in ("a", "b")]
    path = tmp_path / "page.html"
    assert main(["report", *runs, "--out", str(path)]) == 0
    first = path.read_bytes()
    path.write_bytes(first[:100])
    assert main(["report", *runs, "--out", str(path)]) == 0
    assert path.read_bytes() == first
    capsys.readouterr()
    assert "/dev/null" in fails(capsys, "report", *runs, "--out", "/dev/null")
    assert pathlib.Path("/dev/null").is_char_device()


def test_one_run_cannot_be_compared_with_itself(tmp_path, capsys):
    run = trained(tmp_path / "a")
    (tmp_path / "b").symlink_to(run)
    for other in (run, f"{run}/", tmp_path / "b"):
        assert f"{run}: given twice" in fails(capsys, "report", run, other)


def test_where_the_data_lie_is_said_before_they_are_read(tmp_path, capsys):
    run = trained(tmp_path / "run", dataset="mine.npz", data_dir=str(tmp_path))
    for command in (("export", run, "--out", tmp_path / "out"), ("overlap", run, "--plan")):
        assert main(list(map(str, command))) == 2
        first, second = capsys.readouterr().err.splitlines()
        assert first == f"reads the data set mine.npz in {tmp_path}, which the run folder names"
        assert second.startswith("error: ") and "mine.npz" in second
    assert main(["train", "--resume", "--out", str(run)]) == 2
    assert str(tmp_path) in capsys.readouterr().err.splitlines()[0]
    other = tmp_path / "other"
    other.mkdir()  # what is given need not be said
    assert str(other) in fails(capsys, "overlap", run, "--data-dir", other)


@pytest.mark.parametrize("name", [r"$\frac{$", "a & b <i>", "-x"])
def test_any_name_of_a_folder_is_a_name(name, tmp_path):
    runs = [trained(tmp_path / folder) for folder in (name, "other")]
    path = tmp_path / "page.html"
    assert main(["report", *(str(run) for run in runs), "--out", str(path)]) == 0
    assert main(["report", str(runs[0])]) == 0
    assert "<i>" not in re.sub("<style.*?</style>", "", path.read_text(), flags=re.DOTALL)


def test_a_name_that_is_no_utf8_is_one_line(tmp_path, capsys):
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/run\xff")
    run = trained(tmp_path / "run")
    for command in (
        ("report", bad), ("train", "--out", bad), ("export", run, "--out", bad),
        ("import-weights", bad, "--out", tmp_path / "new"),
        ("train", "--dataset", "cifar10", "--data-dir", bad, "--out", tmp_path / "new"),
    ):  # fmt: skip
        fails(capsys, *command)
    assert not (tmp_path / "new").exists()


def test_another_number_of_cores_is_said_and_kept(tmp_path, monkeypatch):
    said = []

    class Progress(Silent):
        def note(self, text):
            said.append(text)

    run = open_run(trained(tmp_path / "run"))
    for number in (2, 2, 1, 1, 2):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=number: set(range(n)))
        cores.note_cores(run, Progress())
    assert read_json(run.path / "cores.json") == {"cores": [2, 1, 2]}
    assert ["2 cores and goes on with 1 core:" in text for text in said] == [True, False]


def test_the_same_figure_is_the_same_file():
    """Without a salt the ids of an SVG are drawn anew for every file."""
    records = [LayerOverview(f"conv{n}", 0.1 * n, 9, 4 + n) for n in range(4)]
    once, twice = (figure_bytes(redundancy_and_pruning(records), "svg") for _ in range(2))
    assert once == twice and once.count(b"clip-path") > 0 and b"<dc:date>" not in once


def test_labels_of_plotly_are_text():
    layer = '<a href="javascript:alert(1)">x</a>%{x}$a$'
    matrix = np.eye(3) + 0.5
    shown = overlap_explorer({layer: matrix}, first=layer)
    points = [SweepPoint(share=x, accuracy=1 - x, params=9, score=0.5) for x in (0.0, 0.5)]
    pruned = threshold_explorer(
        [0.1, 0.2], {layer: np.array([0.1, 0.4])}, {layer: points},
        criterion=layer, share=0.4, kernels=10,
    )  # fmt: skip
    for figure in (shown, pruned):
        texts = list(strings(figure.to_plotly_json()))
        assert any("javascript" in text for text in texts)
        for text in texts:
            if "javascript" in text and text != layer:  # as it is in `meta`, which is not shown
                assert not re.search(r"<a|%\{x\}\$|\$a\$", text)
    assert shown.data[0].meta == layer


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from strings(each)
