"""How a network is told to evaluate or train, and becomes a function that ``jax.jit`` can know."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jnnk._core.errors import InputError

ApplyFunction = Callable[[Any, Any], Any]

#: Names of arguments and fields that tell a network to evaluate, and what they are then.
EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
    "inference": True,
}
#: Folded into keys, for random numbers besides those of dropout.
STREAM = 0x6A6E6E6B
#: Arguments by name, in an order.
Options = tuple[tuple[str, Any], ...]


def with_mode(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    train: bool = False,
    leave_out: Collection[str] = (),
) -> Options:
    """The user's options, and before them those that make the function evaluate, or train.

    What is so by default is left out: a function under ``jax.jit`` may not take it as an argument.

    Raises:
        InputError: if an option is no argument of the function.
    """
    parameters = inspect.signature(function).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        for name in options:
            if name not in parameters:
                raise InputError(
                    f"options: expected arguments of the network ({', '.join(parameters)}), "
                    f"got {name}"
                )
    mode = {
        name: evaluating != train
        for name, evaluating in EVALUATION.items()
        if name in parameters
        and name not in leave_out
        and parameters[name].default is not (evaluating != train)
    }
    return tuple({**mode, **options}.items())


@dataclasses.dataclass(frozen=True)
class _Applied:
    """A function with its first arguments, equal to another one of equal parts.

    Attributes:
        function: of the parts, variables and images.
        parts: its first arguments.
    """

    function: Callable[..., Any]
    parts: tuple[Any, ...]

    def __call__(self, variables: Any, images: Any) -> Any:
        return self.function(*self.parts, variables, images)


def stable(function: Callable[..., Any], *parts: Any) -> ApplyFunction:
    """The function of variables and images alone; `jax.jit` knows it again by equal parts."""
    applied = _Applied(function, parts)
    try:
        hash(applied)
    except TypeError:  # such as an array among the parts: known again by itself alone
        return functools.partial(function, *parts)
    return applied


def described(value: Any) -> str:
    """What a value is, in a few words."""
    if value is None or isinstance(value, type):
        return str(value) if value is None else f"the class {value.__name__}"
    if type(value) is tuple:
        return f"a tuple of {', '.join(map(described, value)) or 'nothing'}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if isinstance(value, Mapping):
        return f"{kind} with {', '.join(map(repr, list(value)[:3])) or 'nothing in it'}"
    return kind
