"""Every notebook runs from top to bottom, and is committed with the outputs of such a run."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest
from matplotlib import pyplot

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
#: One that says how many devices there are, which a process can say only once.
DEVICES = "jax_num_cpu_devices"


def cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.thorough
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, request):
    sources = ["".join(cell["source"]) for cell in cells(path)]
    if any("JNNK_SHARED" in source for source in sources):
        request.getfixturevalue("shared")
    if any(DEVICES in source for source in sources):
        program = "\n".join(sources)
        environment = {
            **os.environ,
            "JAX_NUMPY_DTYPE_PROMOTION": "standard",
        }
        command = [sys.executable, "-P", "-W", "error", "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return
    names = {"__name__": "__main__"}
    try:
        # Users have JAX's own defaults; Optax needs them too.
        with jax.numpy_dtype_promotion("standard"), pyplot.rc_context():
            for number, source in enumerate(sources, 1):
                exec(compile(source, f"{path.name}, code cell {number}", "exec"), names)
    finally:
        pyplot.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_as_run(path):
    assert [cell["execution_count"] for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    kinds = [output["output_type"] for cell in cells(path) for output in cell["outputs"]]
    assert kinds and "error" not in kinds
    pictures = [
        output for cell in cells(path) for output in cell["outputs"]
        if "image/png" in output.get("data", {})
    ]  # fmt: skip
    assert pictures and path.stat().st_size < 500_000
