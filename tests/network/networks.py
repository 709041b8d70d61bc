"""The table of networks that every test of `jnnk.network` goes through."""

import importlib
import importlib.util

import pytest
from network import (
    join_rows,
    linen_conv_rows,
    linen_rows,
    mobile_rows,
    nnx_rows,
    plain_rows,
    resnet_rows,
)


def _rows_of(library):
    """The rows of a library that may not be here, as with the oldest versions."""
    if importlib.util.find_spec(library) is None:
        return ()
    return importlib.import_module(f"network.{library}_rows").ROWS


ROWS = (
    *linen_rows.ROWS,
    *linen_conv_rows.ROWS,
    *nnx_rows.ROWS,
    *plain_rows.ROWS,
    *resnet_rows.ROWS,
    *mobile_rows.ROWS,
    *join_rows.ROWS,
    *_rows_of("equinox"),
    *_rows_of("haiku"),
)
#: A test of every network: `row` is its argument.
each_network = pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
