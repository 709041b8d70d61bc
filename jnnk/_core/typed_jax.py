"""Functions of JAX and NumPy that have no annotations of their own, called with some."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, TypeVarTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

Function = TypeVar("Function", bound=Callable[..., Any])
Carry = TypeVar("Carry")
Tree = TypeVar("Tree")
Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")
Operands = TypeVarTuple("Operands")


@overload
def jit(function: Function) -> Function: ...


@overload
def jit(*, static_argnames: str | Sequence[str]) -> Callable[[Function], Function]: ...


def jit(function: Any = None, **options: Any) -> Any:
    """``jax.jit`` as a decorator: what comes back has the type of the function."""
    return functools.partial(jax.jit, **options) if function is None else jax.jit(function)


def finfo(dtype: DTypeLike) -> "np.finfo[np.floating[Any]]":
    """``jnp.finfo``."""
    return jnp.finfo(dtype)


def diagonals(matrices: jax.Array) -> jax.Array:
    """``jnp.diagonal`` of the last two axes of (B, K, K): (B, K)."""
    return jnp.diagonal(matrices, axis1=1, axis2=2)


def fori_loop(
    lower: int, upper: int, body: Callable[[jax.Array, Carry], Carry], start: Carry
) -> Carry:
    """``jax.lax.fori_loop``."""
    return jax.lax.fori_loop(lower, upper, body, start)


def cond(
    pred: jax.Array,
    true_fun: Callable[[*Operands], Outputs],
    false_fun: Callable[[*Operands], Outputs],
    *operands: *Operands,
) -> Outputs:
    """``jax.lax.cond``."""
    return jax.lax.cond(pred, true_fun, false_fun, *operands)


def lax_map(function: Callable[[Inputs], Outputs], inputs: Inputs) -> Outputs:
    """``jax.lax.map``."""
    return jax.lax.map(function, inputs)


def psum(array: jax.Array, axis_name: str | tuple[str, ...]) -> jax.Array:
    """``jax.lax.psum``."""
    return jax.lax.psum(array, axis_name)


def pmin(array: jax.Array, axis_name: str | tuple[str, ...]) -> jax.Array:
    """``jax.lax.pmin``."""
    return jax.lax.pmin(array, axis_name)


def pmax(array: jax.Array, axis_name: str | tuple[str, ...]) -> jax.Array:
    """``jax.lax.pmax``."""
    return jax.lax.pmax(array, axis_name)


def all_gather(tree: Tree, axis_name: str, *, tiled: bool = False) -> Tree:
    """``jax.lax.all_gather``."""
    return jax.lax.all_gather(tree, axis_name, tiled=tiled)
