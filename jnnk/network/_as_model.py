"""Any network as the one kind of model that is trained and evaluated."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jnnk._core.errors import InputError
from jnnk.network._distinct import distinct_layers
from jnnk.network._evaluation import described
from jnnk.network._flax_adapters import LinenAdapter, NnxAdapter
from jnnk.network._named_trees import NamedTree
from jnnk.network._other_adapters import EquinoxAdapter, FunctionsAdapter, HaikuAdapter
from jnnk.network._reading import read_with_structure
from jnnk.network._with_activations import outputs_with


class Adapter(Protocol):
    """A network of one library, as pure functions; parameters and state are nested dicts."""

    def init(self, key: jax.Array, images: Any) -> tuple[NamedTree, NamedTree]:
        """Parameters, and the state at the start."""
        ...

    def run(
        self, params: NamedTree, state: NamedTree, images: Any, *, train: bool, key: Any
    ) -> tuple[Any, NamedTree]:
        """What the network returns, and its state afterwards; ``key`` is None without one."""
        ...


@dataclass(frozen=True)
class AdaptedModel:
    """A network of any library, with the methods that `jnnk.training` asks for: see `as_model`.

    Attributes:
        adapter: the network, with what its library needs to run it.
    """

    adapter: Adapter

    def init(self, rngs: jax.Array, images: jax.Array, *, train: bool = False) -> dict[str, Any]:
        """The variables at the start.

        Args:
            rngs: a PRNG key. NNX and Equinox modules hold their arrays: it changes nothing there.
            images: (N, H, W, C); their shape and dtype alone matter.
            train: changes nothing.

        Returns:
            ``{"params": ..., "batch_stats": ...}``, the latter if the network has a state.
        """
        params, state = self.adapter.init(rngs, images)
        return {"params": params, **({"batch_stats": state} if state else {})}

    def apply(
        self,
        variables: Mapping[str, Any],
        images: jax.Array,
        *,
        train: bool = False,
        mutable: bool | Sequence[str] = False,
        rngs: Mapping[str, jax.Array] | None = None,
    ) -> Any:
        """What the network makes of images.

        Args:
            variables: as from ``init``.
            images: (N, H, W, C) float32.
            train: whether dropout is on and norms take the statistics of these images.
            mutable: whether the new state is returned too.
            rngs: ``{"dropout": key}``, for all that is random in training.

        Returns:
            ``(logits, activations)``: float32 logits as the network returns them, and by name
            (N, H, W, C); if ``mutable``, ``((logits, activations), {"batch_stats": new state})``.

        Raises:
            InputError: if the network returns no logits.
        """
        key = None if rngs is None else rngs.get("dropout")
        keys = () if key is None else (key,)
        variables = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

        def logits_and_state(variables: Any, images: Any, *keys: Any) -> tuple[Any, NamedTree]:
            returned, state = self.adapter.run(
                variables["params"],
                variables["batch_stats"],
                images,
                train=train,
                key=keys[0] if keys else None,
            )
            return _logits(returned), state

        network, structure = read_with_structure(logits_and_state, variables, images, *keys)
        layers = distinct_layers(network, num_images=images.shape[0])
        maps = [layer.conv.activation for layer in layers]
        (logits, state), activations = outputs_with(
            network, structure, layers, maps, (variables, images, keys)
        )
        if not network.program.keeps_derivatives:
            logits, state = logits_and_state(variables, images, *keys)
        if mutable:
            return (logits, activations), {"batch_stats": state}
        return logits, activations


def as_model(model: Any) -> AdaptedModel:
    """A network of any library as the one kind of model that `jnnk.training` knows.

    ``init(key, images)`` gives variables and ``apply(variables, images, train=...)`` gives
    ``(logits, activations)``, for images (N, H, W, C): see `AdaptedModel`. Whatever the library,

    - ``variables["params"]`` holds what trains and ``variables["batch_stats"]`` all other state
      that changes in training; without any there is no such entry. Both are nested dicts of arrays
      by the names of the leaves in the network's own variables: an Equinox leaf
      ``layers[0].weight`` is ``params["layers"]["0"]["weight"]``, Haiku's modules are split at
      each "/". Checkpoints, masks and files of weights so go by names.
    - Logits are the array that the network returns; of a tuple or list the first item, of a dict
      the one named "logits".
    - Activations are those of `with_activations`, each array once: of several convolutions with
      the same one (a projection shortcut and the last of its block) that with most convolutions
      before it gives the name.
    - In training, dropout draws from ``rngs={"dropout": key}`` and nothing else is random; norms
      take the statistics of the images and their running ones change.

    Of each library:

    - Flax Linen: arguments of ``__call__`` and fields named ``train``, ``training``,
      ``is_training``, ``deterministic``, ``use_running_average`` or ``inference`` are set, and
      fields of modules in fields. ``batch_stats`` is Flax's own; what other collections there are
      lies in it under a name of its own. What ``sow`` collects is no state.
    - Flax NNX: the module stays as it is, and copies of it are set to ``train()`` or ``eval()``.
      ``nnx.Param`` trains. An argument ``rngs`` is given. The module's own arrays are the start,
      whatever the key.
    - Equinox, a module of one image (C, H, W), or ``(module, state)`` as ``make_with_state``
      returned them: floating-point arrays train, keys differ by image; in evaluation an argument
      ``key`` is always the same. The module's own arrays are the start, whatever the key.
    - Haiku, ``transform`` or ``transform_with_state``: ``is_training`` is set if it is an argument;
      in evaluation the key is always the same.
    - A pair ``(init, apply)``: ``init(key, images)`` makes variables, and ``apply(variables,
      images)`` returns logits. Where variables are a dict with ``params``, these train and the rest
      stays as it is; else all arrays of floating-point numbers train.

    Args:
        model: the network.

    Returns:
        The model; hashable, so that it can be a static argument of ``jax.jit``.

    Raises:
        InputError: if the network is none of these.
    """
    return model if isinstance(model, AdaptedModel) else AdaptedModel(_adapter(model))


def _adapter(model: Any) -> Adapter:
    is_pair = isinstance(model, tuple) and len(model) == 2
    first = model[0] if is_pair else model
    packages = {
        base.__module__.partition(".")[0] for base in (*type(model).__mro__, *type(first).__mro__)
    }
    if "haiku" in packages:
        import haiku

        if isinstance(model, haiku.Transformed | haiku.TransformedWithState):
            return HaikuAdapter(model, isinstance(model, haiku.TransformedWithState))
    if "flax" in packages:
        from flax import linen, nnx

        if isinstance(model, linen.Module):
            return LinenAdapter(model if model.scope is None else model.unbind()[0])
        if isinstance(model, nnx.Module):
            return NnxAdapter(model)
    if "equinox" in packages:
        import equinox

        if isinstance(model, equinox.Module):
            return EquinoxAdapter(model, None)
        if is_pair and isinstance(model[1], equinox.nn.State):
            return EquinoxAdapter(*model)
    if is_pair and all(map(callable, model)):
        bound = [getattr(function, "__self__", None) for function in model]
        return _adapter(bound[0]) if _is_linen(bound) else FunctionsAdapter(model)
    raise InputError(
        "model: expected a Flax module (Linen or NNX), an Equinox module or (module, state), a "
        f"Haiku transform or a pair (init, apply), got {described(model)}"
    )


def _is_linen(bound: list[Any]) -> bool:
    """Whether functions are those of one Linen module, as ``(net.init, net.apply)``."""
    one, other = bound
    if one is None or one is not other or "flax" not in sys.modules:
        return False
    from flax import linen

    return isinstance(one, linen.Module)


def _logits(returned: Any) -> jax.Array:
    """The logits in what a network returns."""
    found = returned
    if isinstance(returned, tuple | list) and returned:
        found = returned[0]
    elif isinstance(returned, Mapping):
        found = returned.get("logits")
    if not hasattr(found, "shape") or not hasattr(found, "dtype"):
        raise InputError(
            "network: expected logits: an array, a tuple or list whose first item is one, or "
            f"a dict with 'logits', got {described(returned)}"
        )
    return jnp.asarray(found, jnp.float32)
