"""Networks of a person's own: ``--model package.module:factory``, imported as it was typed.

Nothing is imported by the word of a run folder: a name counts only where it stands on the command
line.
"""

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core.errors import InputError
from jnnk.network import AdaptedModel, as_model
from jnnk.network._names import named_leaves

_LONGEST = 200  # characters of somebody else's message


class Factory(NamedTuple):
    """What makes a network.

    Attributes:
        name: as it was typed, ``package.module:factory``.
        make: ``make(num_classes=..., **options)``.
        source: path of the file that it is written in; None if it has none.
    """

    name: str
    make: Callable[..., Any]
    source: str | None


def is_own(name: str) -> bool:
    """Whether a network's name is that of a factory, and none of the registry.

    Args:
        name: of ``--model``.
    """
    return ":" in name


def require_named(recorded: str, given: str | None) -> None:
    """Refuses a network that the command line does not name, or names otherwise than the run.

    Args:
        recorded: the name of the run's network.
        given: what ``--model`` says; None without it. It may be left out for the registry's.

    Raises:
        InputError: saying what to type.
    """
    if given is None and is_own(recorded):
        if not _is_name(recorded):  # others may have written it
            raise InputError("this run's network is none that --model package.module:factory names")
        raise InputError(
            f"this run's network is {recorded}; give --model {recorded} to let jnnk import it"
        )
    if given is not None and given != recorded:
        raise InputError(f"--model {given}: this run's network is {recorded}")


def _is_name(name: str) -> bool:
    module_name, _, path = name.partition(":")
    return all(part.isidentifier() for part in (*module_name.split("."), *path.split(".")))


def find_factory(name: str, options: Mapping[str, Any]) -> Factory:
    """Imports a factory, the current directory first, as ``python -m`` does.

    Args:
        name: ``package.module:factory``, as it was typed.
        options: what the factory gets beside the number of classes.

    Raises:
        InputError: in one line, if there is no such module or factory, importing it raises, or it
            takes other arguments.
    """
    module_name, _, path = name.partition(":")
    if not _is_name(name):
        raise InputError(f"--model {name}: expected package.module:factory")
    here = os.getcwd()
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)
    found = module = _import(name, module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise InputError(f"--model {name}: {module_name} has no {path}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"--model {name}: expected a function, {path} is {type(found).__name__}")
    try:
        inspect.signature(found).bind(num_classes=2, **options)
    except TypeError as error:
        given = ", ".join(f"{each}=..." for each in ("num_classes", *options))
        raise InputError(f"--model {name}: expected a function of ({given}): {error}") from None
    except ValueError:  # it tells no signature
        pass
    return Factory(name, found, _source_of(found) or getattr(module, "__file__", None))


def make_network(
    factory: Factory,
    options: Mapping[str, Any],
    *,
    num_classes: int,
    image_shape: tuple[int, ...],
) -> AdaptedModel:
    """The network that a factory makes, tried on the shape of images.

    Args:
        factory: the factory.
        options: what it gets beside the number of classes.
        num_classes: of the data set.
        image_shape: (H, W, C) of its images.

    Raises:
        InputError: in one line, if the factory raises or makes something else than a network, or
            the network does not take the images or returns other logits.
    """
    try:
        made = factory.make(num_classes=num_classes, **options)
    except Exception as error:
        raise InputError(f"--model {factory.name}: it raised {_in_a_line(error)}") from error
    try:
        model = as_model(made)
    except InputError as error:
        raise InputError(
            f"--model {factory.name}: expected it to return a network: {error}"
        ) from None
    shape = " x ".join(map(str, image_shape))
    try:
        logits = _logits_shape(model, image_shape)
    except InputError as error:
        raise InputError(f"--model {factory.name}: {error}") from None
    except _UntraceableError as failed:
        raise InputError(
            f"--model {factory.name}: its network does not take images of {shape}, when it is "
            f"{failed}: {_in_a_line(failed.error)}"
        ) from failed.error
    if logits != (2, num_classes):
        raise InputError(
            f"--model {factory.name}: expected logits {(2, num_classes)} of 2 images from its "
            f"network, got {logits}"
        )
    return model


def _logits_shape(model: AdaptedModel, image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the logits of two images; the network is traced as it trains and evaluates."""
    key, images = jax.random.key(0), jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)

    def updated(params: Any, state: Any, images: jax.Array, key: jax.Array) -> tuple[Any, Any]:
        variables = {"params": params, "batch_stats": state}
        (logits, _), new = model.apply(
            variables, images, train=True, mutable=True, rngs={"dropout": key}
        )
        return logits.sum(), new["batch_stats"]

    def logits(variables: Any, images: jax.Array) -> jax.Array:
        return model.apply(variables, images)[0]

    variables = _traced("initialised", model.init, key, images)
    state = variables.get("batch_stats", {})
    step = jax.grad(updated, has_aux=True)
    _, new = _traced("trained", step, variables["params"], state, images, key)
    _refuse_changes(state, new)
    return _traced("evaluated", logits, variables, images).shape


class _UntraceableError(Exception):
    """Says when a network raised what."""

    def __init__(self, when: str, error: Exception) -> None:
        super().__init__(when)
        self.error = error


def _traced(when: str, function: Callable[..., Any], *args: Any) -> Any:
    """Shapes of what a function returns."""
    try:
        return jax.eval_shape(function, *args)
    except InputError:
        raise
    except Exception as error:
        raise _UntraceableError(when, error) from error


def _refuse_changes(before: Any, after: Any) -> None:
    """Refuses a network whose state has other leaves, or leaves of other shapes, after a step."""
    one, other = named_leaves(before), named_leaves(after)
    for name in {**one, **other}:
        told = [f"{each[name].dtype}{each[name].shape}" if name in each else "nothing"
                for each in (one, other)]  # fmt: skip
        if told[0] != told[1]:
            raise InputError(
                f"its state must stay of one form in training; {name} is {told[0]} at the start "
                f"and {told[1]} after a step"
            )


def _import(name: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise InputError(
                f"--model {name}: there is no module {missing}, neither in {os.getcwd()} nor "
                "installed"
            ) from None
        raise InputError(f"--model {name}: importing it raised {_in_a_line(error)}") from error


def _source_of(factory: Any) -> str | None:
    factory = inspect.unwrap(factory)
    while isinstance(factory, functools.partial):
        factory = inspect.unwrap(factory.func)
    try:
        return inspect.getsourcefile(factory)
    except TypeError:
        return None


def _in_a_line(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}"[:_LONGEST] if said else type(error).__name__
