"""`solve_nnk` beside optax's NNLS and a projected gradient in PyTorch, on one set of problems."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import peers
from nnk_solvers import residual

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
from jnnk.graphs import solve_nnk
from jnnk.graphs._qp.solve import _solve_batch

# (K, problems), the most telling first: what there is no time for is left out.
FULL = (
    (25, 100_000),
    (25, 1_000_000),
    (50, 100_000),
    (15, 100_000),
    (25, 10_000),
    (50, 10_000),
    (15, 10_000),
)
SMALL = ((25, 1_000),)
# Problems that share their number of steps; the library's number is made for a CPU's cache.
CHUNKS = (4_096, 32_768)
# Problems whose optimality conditions are computed in float64, and that optax is given.
_JUDGED, _OF_OPTAX = 2_000, 10_000


def run(report):
    cases = SMALL if report.small else FULL
    largest = max(size for size, _ in cases)
    found = data.searched(
        jax.random.key(0),
        num_points=2_000 if report.small else 20_000,
        num_queries=min(100_000, max(count for _, count in cases)),
        num_neighbors=largest,
    )
    shapes = {
        (size, count): (
            solve_nnk,
            jax.ShapeDtypeStruct((count, size, size), jnp.float32),
            jax.ShapeDtypeStruct((count, size), jnp.float32),
        )
        for size, count in cases
    }
    first, *others = cases
    programs = {first: compiled(*shapes[first])}  # alone, for the seconds of it
    programs |= compiled_together({case: shapes[case] for case in others})
    for size, count in cases:
        name = f"K = {size}, {count:,} problems"
        if not report.has_time(name, 15):
            break
        problems = data.problems(found, jax.random.key(1), count=count, size=size)
        _ours(report, name, problems, programs[size, count])
        if (size, count) == first:
            _chunks(report, name, problems)
        if count <= 100_000:
            _peers(report, name, problems)


def _ours(report, name, problems, program, contender="jnnk"):
    seconds = seconds_of(lambda: program(*problems))
    solution = program(*problems)
    cross = problems[1]
    size = cross.shape[1]
    steps, read = float(jnp.mean(solution.num_steps)), 4 * len(cross) * size * (size + 2)
    remarks = (
        f"{1e3 * seconds:.3g} ms, {steps:.0f} products a problem, "
        f"KKT {_worst(problems, solution.weights):.0e}, "
        f"{100 * float(jnp.mean(solution.converged)):.2f} % converged"
    )
    numbers = {"seconds": seconds, "steps": steps}
    if "bandwidth" in report.rates:
        numbers["of_floor"] = read / report.rates["bandwidth"] / seconds
        numbers["of_bandwidth"] = numbers["of_floor"] * steps
        remarks += (
            f", {100 * numbers['of_floor']:.2g} % of the floor (G read once), "
            f"{100 * numbers['of_bandwidth']:.2g} % of the bandwidth if each product reads G"
        )
    report.row(
        name,
        contender,
        len(cross) / seconds,
        "problems/s",
        compiled=program.seconds,
        remarks=remarks,
        **numbers,
    )


def _chunks(report, name, problems):
    """The same program, but for how many problems go in step."""
    function = functools.partial(_solve_batch.__wrapped__, tol=jnp.float32(1e-5), max_steps=500)
    for chunk in CHUNKS:
        contender = f"jnnk in chunks of {chunk:,}"
        if report.has_time(contender, 20) and chunk < len(problems[1]):
            with mock.patch("jnnk.graphs._qp.gradient.chunk_size", lambda size, chunk=chunk: chunk):
                program = compiled(functools.partial(function), *problems)
            _ours(report, name, problems, program, contender)


def _peers(report, name, problems):
    if report.has_time(f"optax, {name}", 15):
        some = tuple(x[:_OF_OPTAX] for x in problems)
        seconds = seconds_of(lambda: peers.optax_nnls(*some), repeats=2)
        _row(report, name, "optax.nnls, vmapped", some, seconds, peers.optax_nnls(*some))
    if torch is not None and report.has_time(f"PyTorch, {name}", 10):
        tensors = tuple(map(to_torch, problems))
        solve = on_torch(lambda: torch_peers.projected_gradient(*tensors))
        seconds = seconds_of(solve, repeats=3)
        weights = torch_peers.projected_gradient(*tensors).cpu().numpy()
        _row(report, name, "PyTorch, projected gradient", problems, seconds, weights)
        del tensors
        free_torch()


def _row(report, name, contender, problems, seconds, weights):
    count = len(problems[1])
    remarks = f"{1e3 * seconds:.3g} ms for {count:,}, KKT {_worst(problems, weights):.0e}"
    report.row(name, contender, count / seconds, "problems/s", remarks=remarks, seconds=seconds)


def _worst(problems, weights):
    """The largest violation of the optimality conditions among the first problems, in float64."""
    return np.max(residual(*(x[:_JUDGED] for x in (*problems, weights))))
