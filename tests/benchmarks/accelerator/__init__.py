"""The sections of ``accelerator.py``. Imported before JAX, and by nothing else.

It makes ``jnnk`` importable from a checkout that nobody installed, where the package
``jnnk.models`` lies beside ``jnnk`` (see ``package-dir`` in pyproject.toml).
"""

import importlib.util
import os
import pathlib
import sys

# Two frameworks share the card: JAX takes what it needs, and not three quarters at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

_ROOT = pathlib.Path(__file__).parents[3]


def _make_importable():
    if importlib.util.find_spec("jnnk") is None:
        sys.path.insert(0, str(_ROOT))
    if importlib.util.find_spec("jnnk.models") is not None:
        return
    folder = _ROOT / "models"
    spec = importlib.util.spec_from_file_location(
        "jnnk.models", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["jnnk.models"] = module
    spec.loader.exec_module(module)


_make_importable()
