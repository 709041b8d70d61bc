"""Public functions whose annotations are checked at every call of a test."""

import functools
import inspect
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from beartype import BeartypeConf
from beartype.door import is_bearable
from jaxtyping import jaxtyped

# As for type checkers: an int is a float.
_CONF = BeartypeConf(is_pep484_tower=True)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, where numbers of NumPy and JAX are numbers."""
    if is_bearable(value, hint, conf=_CONF):
        return True
    if isinstance(value, jax.core.Tracer) or getattr(value, "ndim", None) != 0:
        return False
    return is_bearable(value.item(), hint, conf=_CONF)


def _hints(of: object) -> dict[str, Any]:
    """Annotations; those in quotes name what is imported only where a type checker looks."""
    written = inspect.get_annotations(of)
    return {name: hint for name, hint in written.items() if not isinstance(hint, str)}


def _misfit(name: str, value: object, hint: object) -> list[str]:
    """What is wrong with one value, and with the fields of a result of ours; mostly nothing."""
    if not _fits(value, hint):
        return [f"{name}: {getattr(value, 'shape', value)!r} is not {hint}"]
    kind = type(value)
    if not kind.__module__.startswith("jnnk") or not isinstance(value, tuple):
        return []
    return [
        misfit
        for field, field_hint in _hints(kind).items()
        for misfit in _misfit(f"{name}.{field}", getattr(value, field), field_hint)
    ]


def _argument_misfit(name: str, value: Any, hint: object) -> list[str]:
    """As `_misfit`; two results that are given need not agree, and may hold arrays of NumPy."""
    if not (isinstance(value, tuple) and type(value).__module__.startswith("jnnk")):
        return _misfit(name, value, hint)
    with jaxtyped("context"):
        misfits = _misfit(name, value, hint)
    if misfits and any(isinstance(field, np.ndarray) for field in value):
        fields = (jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in value)
        with jaxtyped("context"):
            misfits = _misfit(name, type(value)(*fields), hint)
    return misfits


def checked(function: Any) -> Any:
    """The function with its annotations checked: one letter, one length, in the whole call.

    What an annotation refuses, the function has to refuse as well, with an error of its own: where
    it does not, one of the two is wrong.
    """
    signature = inspect.signature(function)
    hints = _hints(inspect.unwrap(function))
    result_hint = hints.pop("return", object)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with jaxtyped("context"):
            bound = signature.bind(*args, **kwargs)
            misfits = [
                misfit
                for name, value in bound.arguments.items()
                if name in hints
                for misfit in _argument_misfit(name, value, hints[name])
            ]
            result = function(*args, **kwargs)
            misfits += _misfit("result", result, result_hint)
        if misfits:
            raise AssertionError(f"{function.__name__}: {'; '.join(misfits)}")
        return result

    return call


def check_calls_of(package: ModuleType) -> None:
    """Puts checked functions in the place of those that a package's ``__all__`` names."""
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isfunction(inspect.unwrap(value)) and not inspect.isclass(value):
            setattr(package, name, checked(value))
