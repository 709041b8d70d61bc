"""How networks of Equinox, Haiku and plain functions are initialised, trained and evaluated."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jnnk.network._evaluation import STREAM, with_mode
from jnnk.network._frameworks import batch_axis
from jnnk.network._named_trees import NamedTree, like_tree, named_tree
from jnnk.network._names import PyTree, leaf_path


@dataclass(frozen=True, eq=False)
class EquinoxAdapter:
    """An Equinox module of one image (C, H, W), with its arrays and maybe its ``State``.

    Attributes:
        module: the module; its floating-point arrays train.
        state: as ``eqx.nn.make_with_state`` gave it; None if the module has none.
    """

    module: Any
    state: Any

    def init(self, key: jax.Array, images: Any) -> tuple[NamedTree, NamedTree]:
        """The module's own parameters and state, whatever the key."""
        params, _ = _partition(self.module)
        return named_tree(params), named_tree(self._values(self.state))

    def run(
        self, params: NamedTree, state: NamedTree, images: Any, *, train: bool, key: Any
    ) -> tuple[Any, NamedTree]:
        """What the module returns for every image, and its state afterwards."""
        import equinox as eqx

        own, static = _partition(self.module)
        module = eqx.combine(like_tree(params, own), static)
        module = eqx.nn.inference_mode(module, value=not train)
        call = type(module).__call__
        told = dict(with_mode(call, {}, train=train))
        takes_key = "key" in inspect.signature(call).parameters
        images = jnp.moveaxis(images, -1, 1)
        # In evaluation a module draws from one key, whether that matters or not.
        fixed, keys = jax.random.key(0), None
        if takes_key and train and key is not None:
            keys = jax.random.split(jax.random.fold_in(key, STREAM), len(images))

        def of_image(image: Any, state: Any, key: Any) -> tuple[Any, Any]:
            given = {**told, "key": fixed if key is None else key} if takes_key else told
            if state is None:
                return module(image, **given), None
            *outputs, state = module(image, state, **given)
            return outputs[0] if len(outputs) == 1 else tuple(outputs), state

        in_axes = (0, None, None if keys is None else 0)
        function = jax.vmap(
            of_image, in_axes=in_axes, out_axes=(0, None), axis_name=batch_axis(module)
        )
        returned, updated = function(images, self._with(state), keys)
        return returned, named_tree(self._values(updated)) if train else state

    def _values(self, state: Any) -> dict[str, Any]:
        """What a ``State`` holds, by the names of the module's places for it."""
        if state is None:
            return {}
        found = {name: state.get(index) for name, index in _indices(self.module).items()}
        return jax.tree.map(_not_weak, found)

    def _with(self, named: NamedTree) -> Any:
        """The module's ``State`` with other values."""
        if self.state is None:
            return None
        state = jax.tree.map(_not_weak, self.state)  # anew: ``set`` uses its object up
        values = jax.tree.map(_not_weak, like_tree(named, self._values(self.state)))
        for name, index in _indices(self.module).items():
            state = state.set(index, values[name])
        return state


def _not_weak(leaf: Any) -> jax.Array:
    """The array without JAX's weak type, which ``set`` would compare and checkpoints lose."""
    return jax.lax.convert_element_type(leaf, leaf.dtype)


def _partition(module: Any) -> tuple[PyTree, PyTree]:
    import equinox as eqx

    return eqx.partition(module, eqx.is_inexact_array)


def _indices(module: Any) -> dict[str, Any]:
    """The places for a state in an Equinox module, by name, each once."""
    import equinox as eqx

    leaves: Any = jax.tree_util.tree_leaves_with_path(
        module, is_leaf=lambda node: isinstance(node, eqx.nn.StateIndex)
    )
    found: dict[Any, tuple[str, Any]] = {}
    for path, leaf in leaves:
        if isinstance(leaf, eqx.nn.StateIndex):
            found.setdefault(leaf.marker, (leaf_path(path), leaf))
    return dict(found.values())


@dataclass(frozen=True)
class HaikuAdapter:
    """What ``haiku.transform`` or ``haiku.transform_with_state`` returned.

    Attributes:
        transformed: the pair of functions.
        has_state: whether it has a state.
    """

    transformed: Any
    has_state: bool

    def init(self, key: jax.Array, images: Any) -> tuple[NamedTree, NamedTree]:
        """Random parameters, and the state at the start."""
        params, state = _of_haiku(self, key, images)
        return named_tree(params), named_tree(state)

    def run(
        self, params: NamedTree, state: NamedTree, images: Any, *, train: bool, key: Any
    ) -> tuple[Any, NamedTree]:
        """What the network returns, and its state afterwards."""
        apply = self.transformed.apply
        own_params, own_state = _shapes(_of_haiku, self, images.shape[1:], images.dtype)
        parts = [like_tree(params, own_params)]
        if self.has_state:
            parts.append(like_tree(state, own_state))
        if list(inspect.signature(apply).parameters)[len(parts)] == "rng":
            # Drawn from in evaluation too, whether it matters or not.
            parts.append(key if train and key is not None else jax.random.key(0))
        told = with_mode(apply, {}, train=train)
        returned = apply(*parts, images, **dict(told))
        if not self.has_state:
            return returned, state
        returned, updated = returned
        return returned, named_tree(updated) if train else state


def _of_haiku(adapter: HaikuAdapter, key: Any, images: Any) -> tuple[PyTree, PyTree]:
    # Haiku's norms make their averages in training alone.
    init = adapter.transformed.init
    made = init(key, images, **dict(with_mode(init, {}, train=True)))
    return made if adapter.has_state else (made, {})


@dataclass(frozen=True)
class FunctionsAdapter:
    """A pair of functions; of variables with ``params`` these train, of others all that are floats.

    Attributes:
        functions: ``init(key, images) -> variables`` and ``apply(variables, images)``.
    """

    functions: tuple[Callable[..., Any], Callable[..., Any]]

    def init(self, key: jax.Array, images: Any) -> tuple[NamedTree, NamedTree]:
        """What ``init`` makes, what trains and the rest."""
        params, state = _parted(_of_functions(self, key, images))
        return named_tree(params), named_tree(state)

    def run(
        self, params: NamedTree, state: NamedTree, images: Any, *, train: bool, key: Any
    ) -> tuple[Any, NamedTree]:
        """What ``apply`` returns, and the state as it was."""
        _, apply = self.functions
        like = _shapes(_of_functions, self, images.shape[1:], images.dtype)
        own_params, own_state = _parted(like)
        variables = _joined(like, like_tree(params, own_params), like_tree(state, own_state))
        return apply(variables, images, **dict(with_mode(apply, {}, train=train))), state


def _of_functions(adapter: FunctionsAdapter, key: Any, images: Any) -> PyTree:
    return jax.tree.map(jnp.asarray, adapter.functions[0](key, images))


def _has_params(variables: PyTree) -> bool:
    return isinstance(variables, Mapping) and "params" in variables


def _parted(variables: PyTree) -> tuple[PyTree, PyTree]:
    """What trains and what does not; in the second case of the same form, with None between."""
    if _has_params(variables):
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}
    floats = jax.tree.map(lambda leaf: jnp.issubdtype(leaf.dtype, jnp.inexact), variables)
    return (
        jax.tree.map(lambda leaf, is_float: leaf if is_float else None, variables, floats),
        jax.tree.map(lambda leaf, is_float: None if is_float else leaf, variables, floats),
    )


def _joined(like: PyTree, params: PyTree, state: PyTree) -> PyTree:
    """The variables of which `_parted` made two parts."""
    if _has_params(like):
        return {name: params if name == "params" else state[name] for name in like}
    return jax.tree.map(
        lambda first, second: second if first is None else first,
        params,
        state,
        is_leaf=lambda leaf: leaf is None,
    )


@functools.lru_cache(maxsize=32)
def _shapes(
    init: Callable[..., Any], adapter: Any, image_shape: tuple[int, ...], dtype: Any
) -> Any:
    """Shapes of what is made for such images: the form of the network's own variables."""
    image = jax.ShapeDtypeStruct((1, *image_shape), dtype)
    return jax.eval_shape(functools.partial(init, adapter), jax.random.key(0), image)
