import csv
import io

import pytest

from jnnk.tables import to_csv, to_latex, to_markdown

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
