"""What compiling the search, the solver and one graph costs.

    python tests/benchmarks/compile_time.py

XLA's CPU compiler takes tens of milliseconds for every kernel, however small, so their number is
printed beside the processor seconds. Nothing comes from a compilation cache.
"""

import os
import re
import time

os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

import jax
import jax.numpy as jnp

from jnnk.graphs import nearest_neighbors, nnk_graph, solve_nnk

IMAGES, DIM = 2000, 64
# What XLA does without a kernel of its own.
FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple", "while", "conditional"}


def main():
    points = jax.ShapeDtypeStruct((IMAGES, DIM), jnp.float32)
    jax.jit(jnp.sum).lower(points).compile()  # the compiler's own start
    print(f"| {IMAGES} x {DIM} | traced | compiled | kernels |\n|---|---|---|---|")
    for size in (15, 25, 50):
        gram = jax.ShapeDtypeStruct((IMAGES, size, size), jnp.float32)
        cross = jax.ShapeDtypeStruct((IMAGES, size), jnp.float32)
        row(f"`nearest_neighbors`, K = {size}", nearest_neighbors, points, points, size=size)
        row(f"`solve_nnk`, K = {size}", solve_nnk, gram, cross)
        row(f"`nnk_graph`, K = {size}", nnk_graph, points, size=size)


def row(name, function, *arguments, size=None):
    options = {} if size is None else {"num_neighbors": size}
    start = time.process_time()
    lowered = jax.jit(function, static_argnames=tuple(options)).lower(*arguments, **options)
    traced = time.process_time()
    compiled = lowered.compile()
    spent = time.process_time() - traced
    print(f"| {name} | {traced - start:.1f} s | {spent:.1f} s | {kernels(compiled.as_text())} |")


def kernels(text: str) -> int:
    """Instructions of a program outside of its fusions that take a kernel each."""
    number, called = 0, set(re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text))
    inside = None
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            inside = head[1]
        elif inside not in called and (
            found := re.match(r"\s+(?:ROOT )?%?\S+ = .*? ([a-z][\w\-]*)\(", line)
        ):
            number += found[1] not in FREE
    return number


if __name__ == "__main__":
    main()
