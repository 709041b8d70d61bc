"""Neighbours and whole channel-wise graphs beside PyTorch's product and ``topk``."""

import functools

import jax
import jax.numpy as jnp

from accelerator import data, torch_peers
from accelerator.measure import (
    compiled,
    compiled_together,
    free_torch,
    on_torch,
    seconds_of,
    to_torch,
    torch,
)
from jnnk import channelwise_nnk_graph, nearest_neighbors

K, CHANNELS = 25, 64
BLOCKS = (256, 1024, 4096)
# Seconds that all channels may take; else some are timed and the number is scaled.
_AT_MOST = 30


def run(report):
    count = 1_000 if report.small else 50_000
    channels = 2 if report.small else CHANNELS
    draw = functools.partial(data.features, count=count)
    layer = jnp.moveaxis(jax.lax.map(draw, jax.random.split(jax.random.key(2), channels)), 0, -1)
    points = layer[:, :, 0] + 0  # an array of its own
    _neighbors(report, points)
    _graphs(report, layer)


def _neighbors(report, points):
    count, dim = points.shape
    name, others = f"neighbours, {count:,} x {dim}, K = {K}", jnp.arange(count)
    blocks = BLOCKS[:1] if report.small else BLOCKS
    programs = compiled_together(
        {block: (functools.partial(_search, block_size=block), points, others) for block in blocks}
    )
    for block, program in programs.items():
        if report.has_time(f"{name}, blocks of {block}", 20):
            seconds = seconds_of(lambda: program(points, others), repeats=3)  # noqa: B023
            contender = f"jnnk, blocks of {block}"
            _row(report, name, contender, count, dim, seconds, program.seconds)
    if torch is not None and report.has_time(f"{name}, PyTorch", 10):
        tensor = to_torch(points)
        search = on_torch(lambda: torch_peers.nearest(tensor, num_neighbors=K))
        _row(report, name, "PyTorch, product and topk", count, dim, seconds_of(search, repeats=3))
        del tensor
        free_torch()


def _search(points, others, *, block_size):
    return nearest_neighbors(points, points, num_neighbors=K, exclude=others, block_size=block_size)


def _row(report, name, contender, count, dim, seconds, compiling=None):
    remarks, numbers = f"{1e3 * seconds:.4g} ms", {"seconds": seconds}
    if "float32" in report.rates:
        numbers["of_peak"] = 2 * count**2 * dim / seconds / report.rates["float32"]
        remarks += f", the product is {100 * numbers['of_peak']:.2g} % of the float32 peak"
    report.row(
        name,
        contender,
        count / seconds,
        "queries/s",
        compiled=compiling,
        remarks=remarks,
        **numbers,
    )


def _graphs(report, layer):
    count, dim, channels = layer.shape
    name = f"graphs, {channels} channels x {count:,} x {dim}, K = {K}"
    graph_of = functools.partial(channelwise_nnk_graph, num_neighbors=K)
    one = layer[:, :, :1] + 0
    if not report.has_time(name, 30):
        return
    program = compiled(graph_of, one)
    seconds, done = seconds_of(lambda: program(one), repeats=1), 1
    at_most = channels * seconds
    if at_most <= _AT_MOST and report.has_time(f"{name}, all channels", at_most + 30):
        program, done = compiled(graph_of, layer), channels
        seconds = seconds_of(lambda: program(layer), repeats=1)
    _graph_row(report, name, "jnnk", seconds, channels, done, program.seconds)
    if torch is not None and report.has_time(f"{name}, PyTorch", 30):
        tensor = to_torch(one[:, :, 0])
        graph = on_torch(lambda: torch_peers.graph(tensor, num_neighbors=K))
        contender = "PyTorch, topk and projected gradient"
        _graph_row(report, name, contender, seconds_of(graph, repeats=1), channels, 1)
        del tensor
        free_torch()


def _graph_row(report, name, contender, seconds, channels, done, compiling=None):
    remarks = "all timed" if done == channels else f"{done} of the channels timed, scaled"
    value = seconds * channels / done
    report.row(name, contender, value, "s", compiled=compiling, remarks=remarks, timed=done)
