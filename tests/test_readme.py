"""The README's Python runs as it stands."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.mark.thorough
@pytest.mark.quick_compile
def test_the_python_of_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 2
    exec(compile("\n".join(blocks), str(README), "exec"), {"__name__": "readme"})
    assert "second" in capsys.readouterr().out
