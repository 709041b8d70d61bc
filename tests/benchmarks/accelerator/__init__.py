"""The sections of ``accelerator.py``. Imported before JAX, and by nothing else.

It makes ``jnnk`` importable from a checkout that nobody installed.
"""

import importlib.util
import os
import pathlib
import sys

# Two frameworks share the card: JAX takes what it needs, and not three quarters at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

if importlib.util.find_spec("jnnk") is None:
    sys.path.insert(0, str(pathlib.Path(__file__).parents[3]))
