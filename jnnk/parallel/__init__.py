"""Devices and processes: meshes, placement, processes in step, two streams on a CPU."""

from jnnk.parallel._mesh import (
    gather,
    local_rows,
    one_device,
    parse_mesh,
    replicate,
    shard_batch,
    whole_mesh,
)
from jnnk.parallel._processes import are_several, is_first, join_processes, largest, on_first

__all__ = [
    "are_several",
    "gather",
    "is_first",
    "join_processes",
    "largest",
    "local_rows",
    "on_first",
    "one_device",
    "parse_mesh",
    "replicate",
    "shard_batch",
    "whole_mesh",
]
