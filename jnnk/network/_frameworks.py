"""How networks of each library are evaluated as pure functions; imports a library when called."""

import dataclasses
import inspect
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core.errors import InputError
from jnnk.network._evaluation import (
    EVALUATION,
    ApplyFunction,
    Options,
    described,
    stable,
    with_mode,
)


class Variables(NamedTuple):
    """Variables of a network that keeps its state apart from its parameters.

    Attributes:
        params: of Equinox the module's floating-point arrays, of Haiku the parameters.
        state: of Equinox a ``State``, of Haiku the state.
    """

    params: Any
    state: Any


def of_linen(model: Any, variables: Any, options: Mapping[str, Any]) -> tuple[ApplyFunction, Any]:
    """`as_function` of a ``flax.linen.Module``."""
    if variables is None and model.scope is not None:
        model, variables = model.unbind()
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise InputError(
            "variables: expected what init of the Linen module returned, {'params': ...}, "
            f"got {described(variables)}"
        )
    return stable(_apply_linen, *linen_in_mode(model, options)), variables


def linen_in_mode(
    model: Any, options: Mapping[str, Any], *, train: bool = False
) -> tuple[Any, Options]:
    """A Linen module with fields that make it evaluate, or train, and arguments that do."""
    fields = _fields_in_mode(model, leave_out=options, train=train)
    # Layers refuse what is told by field and argument at once.
    told = with_mode(type(model).__call__, options, train=train, leave_out=fields)
    return model.clone(**fields), told


def _fields_in_mode(model: Any, *, leave_out: Collection[str], train: bool) -> dict[str, Any]:
    """The fields of a Linen module that tell its mode, and those that hold modules, told theirs."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(model):
        value = getattr(model, field.name, None)
        if field.name in EVALUATION and isinstance(value, bool | None):
            if field.name not in leave_out:
                found[field.name] = EVALUATION[field.name] != train
        elif field.name not in ("parent", "name"):
            told = _in_mode(value, train=train)
            found.update({field.name: told} if told is not value else {})
    return found


def _in_mode(value: Any, *, train: bool) -> Any:
    """A Linen module in a field, or those in a list or dict there, told to evaluate or train.

    A field that is None leaves the mode to an argument, which the module around it gives.
    """
    from flax import linen

    if isinstance(value, linen.Module):
        fields = _fields_in_mode(value, leave_out=(), train=train)
        asked = {name for name in fields if getattr(value, name) is None}
        fields = {name: each for name, each in fields.items() if name not in asked}
        return value.clone(**fields) if fields else value
    if type(value) in (list, tuple):
        told = [_in_mode(each, train=train) for each in value]
        return type(value)(told) if any(map(operator.is_not, told, value)) else value
    if type(value) is dict:
        told = {name: _in_mode(each, train=train) for name, each in value.items()}
        return told if any(told[name] is not each for name, each in value.items()) else value
    return value


def _apply_linen(model: Any, options: Options, variables: Any, images: Any) -> Any:
    return model.apply(variables, images, **dict(options))


def of_nnx(model: Any, variables: Any, options: Mapping[str, Any]) -> tuple[ApplyFunction, Any]:
    """`as_function` of a ``flax.nnx.Module``."""
    from flax import nnx

    if variables is not None:
        raise InputError(
            "variables: expected none for an NNX module, which holds them, "
            f"got {described(variables)}"
        )
    told = with_mode(type(model).__call__, options)
    needs_rngs = takes_rngs(model) and "rngs" not in options
    copy = nnx_in_mode(nnx.merge(*nnx.split(model)), train=False)
    graph, inexact, rest = nnx.split(copy, _is_inexact, ...)
    others = (rest,) if rest else ()  # a State cannot be hashed
    return stable(_apply_nnx, graph, others, needs_rngs, told), _renewed(inexact)


def nnx_in_mode(module: Any, *, train: bool) -> Any:
    """An NNX module set to train or evaluate, in place."""
    from flax import nnx

    change = module.train if train else module.eval
    if callable(change):  # else it is an attribute
        change()
    # Not by `iter_modules`, which Flax 0.12.0 has elsewhere.
    modules = [each for _, each in nnx.iter_graph(module) if isinstance(each, nnx.Module)]
    for each in modules:
        for name, evaluating in EVALUATION.items():
            if not callable(getattr(each, name, print)):
                setattr(each, name, evaluating != train)
    return module


def takes_rngs(module: Any) -> bool:
    """Whether an NNX module is given its random numbers with the images."""
    return "rngs" in inspect.signature(type(module).__call__).parameters


def _apply_nnx(
    graph: Any,
    others: tuple[Any, ...],
    needs_rngs: bool,
    options: Options,
    variables: Any,
    images: Any,
) -> Any:
    from flax import nnx

    given = {"rngs": nnx.Rngs(0)} if needs_rngs else {}
    # Counters of random keys are written to while the network runs: on copies.
    return nnx.merge(graph, *_renewed((variables, *others)))(images, **given, **dict(options))


def _is_inexact(path: tuple[Any, ...], variable: Any) -> bool:
    return all(
        hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
        for leaf in jax.tree.leaves(variable)
    )


def of_equinox(model: Any, state: Any, options: Mapping[str, Any]) -> tuple[ApplyFunction, Any]:
    """`as_function` of an ``equinox.Module``."""
    import equinox as eqx

    has_state = isinstance(state, eqx.nn.State)
    needs_state = bool(_nodes(model, lambda node: isinstance(node, eqx.nn.StateIndex)))
    if not has_state and (state is not None or needs_state):
        expected = (
            "the State that eqx.nn.make_with_state returned beside the module"
            if needs_state
            else "none for an Equinox module without a State"
        )
        raise InputError(f"variables: expected {expected}, got {described(state)}")
    call = type(model).__call__
    takes_key = "key" in inspect.signature(call).parameters and "key" not in options
    told = with_mode(call, options)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    function = stable(_apply_equinox, static, has_state, takes_key, batch_axis(model), told)
    return function, Variables(params, _renewed(state)) if has_state else params


def _apply_equinox(
    static: Any,
    has_state: bool,
    takes_key: bool,
    axis_name: Any,
    options: Options,
    variables: Any,
    images: Any,
) -> Any:
    import equinox as eqx

    params, state = variables if has_state else (variables, None)
    model = eqx.nn.inference_mode(eqx.combine(params, static))

    given = {"key": jax.random.key(0)} if takes_key else {}

    def of_image(image: Any, state: Any) -> Any:
        if not has_state:
            return model(image, **given, **dict(options))
        *outputs, _ = model(image, state, **given, **dict(options))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    return jax.vmap(of_image, in_axes=(0, None), axis_name=axis_name)(images, state)


def batch_axis(model: Any) -> Any:
    """What the layers of an Equinox module call the axis over images; None if they do not."""
    named = _nodes(model, lambda node: isinstance(getattr(node, "axis_name", None), str))
    return named[0].axis_name if named else None


def _nodes(tree: Any, condition: Callable[[Any], bool]) -> list[Any]:
    """The outermost nodes and leaves of a pytree that meet a condition."""
    return [node for node in jax.tree.leaves(tree, is_leaf=condition) if condition(node)]


def of_haiku(model: Any, variables: Any, options: Mapping[str, Any]) -> tuple[ApplyFunction, Any]:
    """`as_function` of what ``haiku.transform`` and ``haiku.transform_with_state`` return."""
    import haiku as hk

    has_state = isinstance(model, hk.TransformedWithState)
    parts = variables if has_state and isinstance(variables, tuple) else (variables,)
    if len(parts) != 1 + has_state or not all(isinstance(part, Mapping) for part in parts):
        expected = "parameters and state" if has_state else "parameters"
        raise InputError(
            f"variables: expected the {expected} that init of the Haiku transform returned, "
            f"got {described(variables)}"
        )
    takes_rng = list(inspect.signature(model.apply).parameters)[len(parts)] == "rng"
    told = with_mode(model.apply, options)
    function = stable(_apply_haiku, model.apply, has_state, takes_rng, told)
    return function, Variables(*parts) if has_state else variables


def _apply_haiku(
    apply: Callable[..., Any],
    has_state: bool,
    takes_rng: bool,
    options: Options,
    variables: Any,
    images: Any,
) -> Any:
    parts = variables if has_state else (variables,)
    key = (jax.random.key(0),) if takes_rng else ()  # drawn from whether it matters or not
    returned = apply(*parts, *key, images, **dict(options))
    return returned[0] if has_state else returned


def of_function(
    function: Callable[..., Any], variables: Any, options: Mapping[str, Any]
) -> tuple[ApplyFunction, Any]:
    """`as_function` of a function of variables and images."""
    if variables is None:
        raise InputError("variables: expected the first argument of the function, got None")
    told = with_mode(function, options)
    return stable(_apply_function, function, told) if told else function, variables


def _apply_function(
    function: Callable[..., Any], options: Options, variables: Any, images: Any
) -> Any:
    return function(variables, images, **dict(options))


def _renewed(tree: Any) -> Any:
    """The same arrays in new containers, which nothing that happens to the old ones reaches."""
    return jax.tree.map(lambda leaf: leaf, tree)
