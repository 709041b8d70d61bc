"""The table of networks that every test of `jnnk.network` goes through."""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

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
from network.rows import Row

from jnnk.network import Network, read


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
#: One or two of each library, layout and kind of wiring.
TYPICAL = {
    *("linen_batch_norm", "linen_dict", "linen_scan", "linen_grouped", "nnx", "equinox", "haiku"),
    *("plain_nchw", "resnet", "unet"),
}
#: A test of every network: `row` is its argument.
each_network = pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
#: The same for a test that takes long: what is not typical is left to `make test-all`.
each_network_at_length = pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=() if row.name in TYPICAL else pytest.mark.thorough)
        for row in ROWS
    ],
)


def row_named(name: str) -> Row:
    """The row of that name; skips the test where its library is not here."""
    for row in ROWS:
        if row.name == name:
            return row
    assert name in TYPICAL, name
    return pytest.skip(f"{name} is not installed")


@functools.cache
def read_row(row: Row) -> tuple[Callable[[Any, Any], Any], Any, Network]:
    """The function of a row, its variables and the network as read; made once in a process."""
    apply_fn, variables = row.make()
    return apply_fn, variables, read(apply_fn, variables, row.images)
