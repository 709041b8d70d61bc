import csv
import io
import re

import pytest

from jnnk.report.tables import to_csv, to_latex, to_markdown

RECORDS = [
    {"layer": "conv1", "share_pruned": 1 / 3, "kernels": 9},
    {"layer": "a & b, 5 %", "share_pruned": None, "kernels": 12},
]


def test_csv_keeps_every_digit():
    rows = list(csv.DictReader(io.StringIO(to_csv(RECORDS))))
    assert float(rows[0]["share_pruned"]) == 1 / 3
    assert rows[1] == {"layer": "a & b, 5 %", "share_pruned": "", "kernels": "12"}


def test_csv_of_few_digits():
    assert to_csv(RECORDS, digits=4).splitlines()[1:] == ["conv1,0.3333,9", '"a & b, 5 %",,12']


def test_latex_escapes_and_aligns():
    lines = to_latex(RECORDS, caption="50% of {x}").splitlines()
    assert r"\caption{50\% of \{x\}}" in lines
    assert r"\begin{tabular}{lrr}" in lines
    assert r"layer & share\_pruned & kernels \\" in lines
    assert r"conv1 & 0.3333 & 9 \\" in lines
    assert r"a \& b, 5 \% & - & 12 \\" in lines


@pytest.mark.parametrize("mark", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_names_are_no_formulas(mark):
    name = f"{mark}cmd|' /C calc'!A0"
    records = [{name: -1.5, "n": -2, "layer": name}, {name: 1e-9, "n": 3, "layer": "conv1"}]
    head, first, second = csv.reader(io.StringIO(to_csv(records), newline=""))
    shown = "'" + name.replace("\r", " ").replace("\n", " ")
    assert head == [shown, "n", "layer"]
    assert first == ["-1.5", "-2", shown]  # numbers stay numbers
    assert second == ["1e-09", "3", "conv1"]
    assert to_csv([{"a": name}], digits=3).splitlines()[1].lstrip('"').startswith("'")


def test_names_stay_in_their_cells():
    name = "a|b\\|c\nd <img src=x> [e](javascript:f) `g`"
    lines = to_markdown([{"x|y": name, "z": 1.0}]).splitlines()
    assert len(lines) == 3
    for line in lines:  # a cell ends at a bar that no odd number of backslashes stands before
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3
    assert lines[0] == r"| x\|y | z |"
    assert r"\<img src=x\> \[e\](javascript:f) \`g\`" in lines[2]
    lines = to_latex([{"x": name, "y": "[1cm] 5 % & \\\\ _"}], caption="a\n\nb").splitlines()
    (row,) = (line for line in lines if "src" in line)
    assert "|" in row and row.count("&") == 2  # one divides, one is escaped
    assert r"{[}1cm{]} 5 \% \& \textbackslash{}\textbackslash{} \_" in row
    assert not any(line == "" for line in lines[:-1])


def test_what_a_record_lacks_is_empty():
    records = [{"a": 1, "b": 2}, {"b": 3}]
    assert to_csv(records).splitlines() == ["a,b", "1,2", ",3"]
    assert to_markdown(records).splitlines()[-1] == "| - | 3 |"


def test_markdown():
    assert to_markdown(RECORDS).splitlines()[:3] == [
        "| layer | share_pruned | kernels |",
        "| --- | ---: | ---: |",
        "| conv1 | 0.3333 | 9 |",
    ]


@pytest.mark.parametrize("render", [to_csv, to_markdown, lambda r: to_latex(r, caption="")])
def test_a_table_without_rows_is_refused(render):
    with pytest.raises(ValueError, match="records"):
        render([])
