"""Names told by patterns, and files named by layers."""

from pathlib import Path

from jnnk._core.patterns import matching
from jnnk.runs.overlap_files import layer_file


def test_names_match_patterns_and_themselves():
    names = ["conv", "body/conv[0]", "body/conv[1]", "body/conv0"]
    assert matching(names, "body/conv[0]") == ["body/conv[0]", "body/conv0"]
    assert matching(names, "body/*1]") == ["body/conv[1]"]
    assert matching(names, "Conv") == []


def test_every_layer_has_a_file_of_its_own():
    names = ["a/b", "a-b", "a%2Db", "a--b", "a/-b", "a-/b"]
    files = {layer_file(Path("run"), 3, name, "json") for name in names}
    assert len(files) == len(names) and {file.parent for file in files} == {
        Path("run/overlap/epoch0003")
    }
