"""The command line, which joins :mod:`jnnk` and :mod:`jnnk.models`; nothing else prints."""

from jnnk.cli.program import main

__all__ = [
    "main",
]
