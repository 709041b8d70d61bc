"""The command line, which joins :mod:`jnnk` and :mod:`jnnk.models`; nothing else prints."""

from jnnk.cli.commands import main

__all__ = [
    "main",
]
