"""Strict settings for every test, and the fixture for the shared data."""

import html
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

# Before JAX is imported: implicit promotion between dtypes is an error in our code.
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("MPLBACKEND", "agg")
# What several tests compile is compiled once: pytest's own process makes the folder, and those that
# it starts find it by their environment.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _programs = tempfile.TemporaryDirectory(prefix="jnnk-programs-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    # JAX writes a program where another process may read half of it, says so and compiles it anew.
    # What a command prints is looked at: not there, and not where warnings are errors.
    os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache:UserWarning"
# Most programs of the tests run once on tiny arrays. With the emitters that XLA had before and
# without LLVM's optimisations they compile in a quarter of the time, here and in what tests start.
if os.environ.get("JNNK_QUICK_COMPILE") == "1":
    # From JAX 0.11 on XLA does not know the flag, and aborts.
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
        os.environ["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
        )
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jax
import pytest

#: The packages whose annotations are checked where tests call them.
CHECKED = ("graphs", "network", "measures", "penalties", "pruning", "training")
# Before a test takes a function from them. The oldest versions are tried without.
if importlib.util.find_spec("beartype"):
    from typed_calls import check_calls_of

    for _package in CHECKED:
        check_calls_of(importlib.import_module(f"jnnk.{_package}"))

TESTS = pathlib.Path(__file__).parent
#: The files that take longest, the longest first.
LONGEST = (
    "test_devices", "test_switches", "test_notebooks", "cli/test_cli", "test_lowering",
    "pruning/test_scores", "graphs/test_qp", "graphs/test_sharding", "jobs/test_signals",
    "models/test_weights", "experiments/test_studies", "jobs/test_resume", "graphs/test_graph",
    "graphs/test_scaling", "pruning/test_eigenvalues", "jobs/test_levers", "pruning/test_masks",
    "test_readme", "training/test_early_stopping", "graphs/test_channels",
    "penalties/test_overlap_penalty", "graphs/test_inputs", "test_fuzz", "jobs/test_wrong_values",
    "runs/test_divergence", "runs/test_data_record", "cli/test_options", "experiments/test_overlap",
    "models/test_models", "network/test_compaction", "training/test_training",
    "measures/test_overlap", "measures/test_measures", "measures/test_consistency",
    "data/test_data", "measures/test_baselines", "jobs/test_protocol", "experiments/test_pruning",
    "graphs/test_neighbors", "test_sklearn", "test_docs", "models/test_pytorch",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """The longest files come first: of several workers, none ends long after the others."""

    def place(item):
        name = item.path.relative_to(TESTS).with_suffix("").as_posix()
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="module", autouse=True)
def _programs_are_dropped():
    """A loaded program takes several memory maps, of which Linux grants a process 65,530.

    The suite runs out of them without this. What later modules share comes back from the cache.
    """
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of shared data; skips the test where ``JNNK_SHARED`` does not name one."""
    folder = os.environ.get("JNNK_SHARED")
    if not folder:
        pytest.skip("JNNK_SHARED is not set: the shared data is not here")
    path = pathlib.Path(folder)
    if not path.is_dir():
        pytest.skip(f"JNNK_SHARED={folder} is not a folder")
    return path


LISTEN = """<script>
  const errors = [];
  addEventListener("error", (event) => errors.push(event.message));
  addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
  console.error = console.warn = (...said) => errors.push(said.join(" "));
  // Nothing is drawn on virtual time, so there are no frames to wait for.
  window.requestAnimationFrame = (draw) => setTimeout(() => draw(performance.now()), 16);
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
</script>"""
ACT = """<script>addEventListener("load", async () => {
  let said;
  try {
    said = await (async () => { SCRIPT })();
  } catch (error) {
    errors.push(String(error));
  }
  const outcome = document.createElement("pre");
  outcome.id = "outcome";
  outcome.textContent = JSON.stringify({ ...said, errors });
  document.body.append(outcome);
});</script>"""


@pytest.fixture(scope="session")
def browse(tmp_path_factory):
    """``browse(page, script)``: opens a page in headless Chromium and lets a script act on it.

    The script is the body of an async function, in which ``wait(ms)`` waits; what it returns comes
    back, and with it what the page complained about, as ``errors``.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium here")

    def browse(page: pathlib.Path, script: str) -> dict:
        start, end = page.read_text().split("<head>", 1)
        end, tail = end.rsplit("</body>", 1)
        text = f"{start}<head>{LISTEN}{end}{ACT.replace('SCRIPT', script)}</body>{tail}"
        folder = tmp_path_factory.mktemp("browser")
        (folder / "page.html").write_text(text)
        command = [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,900",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000", "--dump-dom",
            (folder / "page.html").as_uri(),
        ]  # fmt: skip
        # Where others want the processor too, virtual time may be over before the page is done.
        for _ in range(4):
            done = subprocess.run(command, capture_output=True, text=True, timeout=100)
            found = re.search(r'<pre id="outcome">(.*?)</pre>', done.stdout, re.DOTALL)
            if found:
                return json.loads(html.unescape(found[1]))
        raise AssertionError(done.stderr[-2000:])

    return browse
