"""The table of networks that every test of `jnnk.network` goes through."""

import pytest
from network import linen_rows

ROWS = (*linen_rows.ROWS,)
#: A test of every network: `row` is its argument.
each_network = pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
