"""What JSON from outside must look like, told by the annotations of our own records.

The annotations understood: ``Any``, ``None``, ``bool``, ``int``, ``float`` (whole numbers too),
``str``, ``Literal``, unions, ``list[X]``, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]``,
``NamedTuple`` and ``TypedDict``.
"""

import types
import typing
from typing import Any

_NAMES = {
    dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a whole number",
    float: "a number", type(None): "null",
}  # fmt: skip


def conform(value: Any, kind: Any, *, where: str = "") -> Any:
    """The value as the annotation has it: a list as a tuple, an object as a NamedTuple.

    Args:
        value: as ``json.loads`` gives it.
        kind: the annotation. Keys that it does not name are let through by a ``TypedDict`` and
            left out by a ``NamedTuple``; ``NotRequired`` ones may be missing.
        where: path of the value, for the error.

    Raises:
        ValueError: naming the place, what was expected there and what came.
    """
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if kind is None:
        kind = type(None)
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, options, where)
    if origin is typing.Literal:
        if any(value == option and type(value) is type(option) for option in options):
            return value
        raise _unlike(value, " or ".join(map(repr, options)), where)
    if typing.is_typeddict(kind) or hasattr(kind, "_fields"):
        return _record(value, kind, where)
    base = origin or kind
    plain = list if base is tuple else base
    if plain is float and type(value) is int:
        return value
    if type(value) is not plain:
        raise _unlike(value, _NAMES[plain], where)
    if base is dict:
        return {
            key: conform(item, options[1], where=f"{where}.{key}") for key, item in value.items()
        }
    if base is list:
        return [conform(item, options[0], where=f"{where}[{n}]") for n, item in enumerate(value)]
    if base is tuple:
        if options[-1:] == (...,):
            options = options[:1] * len(value)
        if len(value) != len(options):
            raise ValueError(f"{_place(where)}expected {len(options)} values, got {len(value)}")
        return tuple(
            conform(item, option, where=f"{where}[{n}]")
            for n, (item, option) in enumerate(zip(value, options, strict=True))
        )
    return value


def _one_of(value: Any, options: tuple, where: str) -> Any:
    errors = []
    for option in options:
        try:
            return conform(value, option, where=where)
        except ValueError as error:
            errors.append(error)
    # What is wrong inside a record says more than that it is not the record or null.
    raise max(errors, key=_depth)


def _depth(error: ValueError) -> int:
    place, colon, _ = str(error).partition(": ")
    return place.count(".") + place.count("[") + 1 if colon else 0


def _record(value: Any, kind: Any, where: str) -> Any:
    if type(value) is not dict:
        raise _unlike(value, "an object", where)
    hints = typing.get_type_hints(kind)
    required = kind.__required_keys__ if typing.is_typeddict(kind) else hints
    missing = [name for name in hints if name in required and name not in value]
    if missing:
        raise ValueError(f"{_place(where)}{', '.join(missing)} missing")
    found = {
        name: conform(value[name], hint, where=f"{where}.{name}")
        for name, hint in hints.items()
        if name in value
    }
    return {**value, **found} if typing.is_typeddict(kind) else kind(**found)


def _unlike(value: Any, expected: str, where: str) -> ValueError:
    shown = _NAMES[type(value)] if isinstance(value, dict | list) else repr(value)
    return ValueError(f"{_place(where)}expected {expected}, got {shown[:80]}")


def _place(where: str) -> str:
    return f"{where.removeprefix('.')}: " if where else ""
