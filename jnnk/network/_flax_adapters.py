"""How Flax's networks, Linen and NNX, are initialised, trained and evaluated as pure functions."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jnnk.network._evaluation import STREAM, with_mode
from jnnk.network._frameworks import linen_in_mode, nnx_in_mode, takes_rngs
from jnnk.network._named_trees import NamedTree, like_tree, named_tree
from jnnk.network._names import PyTree

# Of a Linen module's state, where its collections besides ``batch_stats`` are; no layer's name.
_OTHERS = "other collections"


@dataclass(frozen=True, eq=False)
class LinenAdapter:
    """A Linen module; its state is Flax's ``batch_stats``, and what other collections there are.

    Equal to one of an equal module, or, where a field such as a list keeps that from being hashed,
    of the same one.

    Attributes:
        module: the module, without variables.
    """

    module: Any

    def __hash__(self) -> int:
        return hash(_hashable(self.module))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LinenAdapter):
            return NotImplemented
        return _hashable(self.module) == _hashable(other.module)

    def init(self, key: jax.Array, images: Any) -> tuple[NamedTree, NamedTree]:
        """Random parameters, and the state at the start."""
        from flax.core import meta

        # Training may use layers that evaluation does not.
        module, told = linen_in_mode(self.module, {}, train=True)
        rngs = {"params": key, "dropout": jax.random.fold_in(key, STREAM)}
        variables = dict(meta.unbox(module.init(rngs, images, **dict(told))))
        params = variables.pop("params", {})
        return params, _as_state({name: _not_sown(each) for name, each in variables.items()})

    def run(
        self, params: NamedTree, state: NamedTree, images: Any, *, train: bool, key: Any
    ) -> tuple[Any, NamedTree]:
        """What the module returns, and its state afterwards."""
        module, told = linen_in_mode(self.module, {}, train=train)
        collections = _as_collections(state)
        variables = {"params": params, **collections}
        if not train:
            return module.apply(variables, images, **dict(told)), state
        # Random numbers under any other name than "dropout" are drawn from "params".
        rngs = {} if key is None else {"dropout": key, "params": jax.random.fold_in(key, STREAM)}
        returned, updated = module.apply(
            variables, images, mutable=list(collections), rngs=rngs, **dict(told)
        )
        return returned, _as_state(_kept(collections, updated))


def _hashable(module: Any) -> Any:
    """The module, or what stands for this very one."""
    try:
        hash(module)
    except TypeError:  # Flax's own, for a field such as a list
        return id(module)
    return module


def _not_sown(collection: Mapping[str, Any]) -> dict[str, Any]:
    """A collection without what ``sow`` puts into tuples, which grow."""
    kept = {
        name: _not_sown(each) if isinstance(each, Mapping) else each
        for name, each in collection.items()
        if not isinstance(each, tuple)
    }
    return {name: each for name, each in kept.items() if not isinstance(each, dict) or each}


def _kept(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What there is after a call, of what there was before it."""
    return {
        name: _kept(each, after[name]) if isinstance(each, Mapping) else after[name]
        for name, each in before.items()
    }


def _as_state(collections: Mapping[str, Any]) -> NamedTree:
    others = {name: each for name, each in collections.items() if name != "batch_stats" and each}
    state = dict(collections.get("batch_stats", {}))
    return {**state, _OTHERS: others} if others else state


def _as_collections(state: NamedTree) -> dict[str, Any]:
    batch_stats = {name: each for name, each in state.items() if name != _OTHERS}
    others = state.get(_OTHERS, {})
    return {"batch_stats": batch_stats, **others} if batch_stats else dict(others)


@dataclass(frozen=True, eq=False)
class NnxAdapter:
    """An NNX module with its arrays; ``nnx.Param`` trains, all else but random keys is state.

    Attributes:
        module: the module, which stays as it is.
    """

    module: Any

    def init(self, key: jax.Array, images: Any) -> tuple[NamedTree, NamedTree]:
        """The module's own parameters and state, whatever the key."""
        _, params, state, _ = _split(self.module)
        return named_tree(params), named_tree(state)

    def run(
        self, params: NamedTree, state: NamedTree, images: Any, *, train: bool, key: Any
    ) -> tuple[Any, NamedTree]:
        """What the module returns, and its state afterwards."""
        from flax import nnx

        copy = nnx_in_mode(nnx.merge(*nnx.split(self.module)), train=train)
        graph, own_params, own_state, rest = _split(copy)
        module = nnx.merge(
            graph,
            like_tree(params, own_params),
            like_tree(state, own_state),
            _seeded(rest, key if train else None),
        )
        given = dict(with_mode(type(module).__call__, {}, train=train))
        if takes_rngs(module):
            given["rngs"] = nnx.Rngs(jax.random.key(0) if key is None or not train else key)
        returned = module(images, **given)
        return returned, _kept(state, named_tree(_split(module)[2]))


def _split(module: Any) -> tuple[Any, Any, Any, Any]:
    """The graph of an NNX module, its parameters, its state, and the rest."""
    from flax import nnx

    graph, params, state, rest = nnx.split(module, _is_trained, _is_state, ...)
    return graph, params, state, rest


def _is_trained(path: tuple[Any, ...], variable: Any) -> bool:
    from flax import nnx

    return isinstance(variable, nnx.Param) and _are(jnp.inexact, variable)


def _is_state(path: tuple[Any, ...], variable: Any) -> bool:
    from flax import nnx

    is_random = isinstance(variable, nnx.RngState)
    return not is_random and (_are(jnp.number, variable) or _are(jnp.bool_, variable))


def _are(kind: Any, variable: Any) -> bool:
    leaves = jax.tree.leaves(variable)
    return bool(leaves) and all(
        hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, kind) for leaf in leaves
    )


def _seeded(rest: PyTree, key: jax.Array | None) -> PyTree:
    """What an NNX module holds besides, its streams of random numbers begun by a key."""
    numbers = itertools.count()

    def of_leaf(leaf: Any) -> Any:
        is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        if key is None or not is_key:
            return leaf
        new = jax.random.fold_in(jax.random.fold_in(key, STREAM), next(numbers))
        return jax.random.split(new, leaf.shape) if leaf.shape else new

    return jax.tree.map(of_leaf, rest)
