import subprocess
import sys

import pytest

from jnnk import InputError
from jnnk.runs import folder as runs
from jnnk.runs.contents import train_config
from jnnk.runs.settings import TrainConfig

CONFIG = {"model": "resnet8", "epochs": 2}


def test_a_new_run_is_what_is_opened(tmp_path):
    made = runs.create_run(tmp_path / "new" / "run", CONFIG)
    assert made == runs.open_run(made.path)
    assert made.config["model"] == "resnet8"


def test_an_existing_run_needs_resume_and_the_same_settings(tmp_path):
    runs.create_run(tmp_path, CONFIG)
    with pytest.raises(InputError, match="already holds a run; go on with --resume"):
        runs.create_run(tmp_path, CONFIG)
    assert runs.create_run(tmp_path, CONFIG, resume=True).config["epochs"] == 2
    with pytest.raises(InputError, match="epochs 2 -> 3"):
        runs.create_run(tmp_path, {**CONFIG, "epochs": 3}, resume=True)


def test_resume_of_nothing_starts_anew(tmp_path):
    assert runs.create_run(tmp_path / "run", CONFIG, resume=True).config["epochs"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a run folder or only half of one"),
        ("{half", "not readable as JSON"),
        ('{"format": true}', "run-folder format True, this version reads 1"),
        ('{"format": 99}', "run-folder format 99, this version reads 1"),
        ("[]", r"run-folder format None"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(tmp_path, content, message):
    (tmp_path / "mine.txt").write_text("keep")
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    for resume in (False, True):
        with pytest.raises(InputError, match=message):
            runs.create_run(tmp_path, CONFIG, resume=resume)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_path_that_is_a_file_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match=f"cannot write the run folder {path}"):
        runs.create_run(path, CONFIG)
    with pytest.raises(InputError, match="no such run folder"):
        runs.open_run(path)


def test_a_second_process_is_kept_out(tmp_path):
    code = "import sys; from jnnk.runs.folder import locked\nwith locked(sys.argv[1]): pass"
    with runs.locked(tmp_path):
        other = subprocess.run(
            [sys.executable, "-P", "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert "is in use by another jnnk process" in other.stderr
    with runs.locked(tmp_path):
        pass


def test_a_run_from_before_a_setting_goes_on(tmp_path):
    config = TrainConfig()._asdict()
    old = {name: value for name, value in config.items() if name != "image_size"}
    runs.create_run(tmp_path, old)
    assert train_config(runs.create_run(tmp_path, config, resume=True)) == TrainConfig()
    with pytest.raises(InputError, match="image_size"):
        runs.create_run(tmp_path, {**config, "image_size": 8}, resume=True)
