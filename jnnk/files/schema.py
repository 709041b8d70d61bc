"""What JSON from outside must look like, told by the annotations of our own records.

The annotations understood: ``Any``, ``None``, ``bool``, ``int``, ``float`` (whole numbers too),
``str``, ``Literal``, unions, ``list[X]``, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]``,
``NamedTuple`` and records, which are frozen dataclasses. `conform` makes a record of a JSON object
and `as_object` the object of a record. A record's field is an entry of the object under the field's
name, except that

- a field with a default may be missing, and one that is `OPTIONAL` is left out where it is None;
- the entries of a field that is `BESIDE` lie in the record's object itself;
- a field whose class has ``SUFFIXES`` is several entries: ``{"mean": "", "std": "_std"}`` puts
  ``field.mean`` under the field's name, and ``field.std`` under that name and ``_std``.

A record's class may have a static method ``nest``, from the JSON object to one that has these
forms, and may refuse what does not belong together with a ``ValueError`` in ``__post_init__``.
"""

import contextlib
import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

JsonObject = dict[str, Any]
"""An object of JSON, as ``json.loads`` gives it and before it is known to have a form."""
TableRow = dict[str, str | float | None]
"""A row of a table whose columns have headings in words."""
_NAMES = {
    dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a whole number",
    float: "a number", type(None): "null",
}  # fmt: skip
OPTIONAL = {"is optional": True}
"""Metadata of a record's field that is left out of its JSON where it is None."""
BESIDE = {"lies beside": True}
"""Metadata of a record's field, itself a record or dict, whose entries lie beside the record's."""


def as_object(record: Any) -> JsonObject:
    """The entries of a record's JSON object; their values are as the record has them.

    Args:
        record: an instance of a dataclass.
    """
    entries = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.metadata == BESIDE:
            if value is not None:
                entries |= value if isinstance(value, dict) else as_object(value)
        elif hasattr(value, "SUFFIXES"):
            for part, suffix in value.SUFFIXES.items():
                entries[field.name + suffix] = getattr(value, part)
        elif value is not None or field.metadata != OPTIONAL:
            entries[field.name] = value
    return entries


def conform(value: Any, kind: Any, *, where: str = "") -> Any:
    """The value as the annotation has it: a list as a tuple, an object as a NamedTuple.

    Args:
        value: as ``json.loads`` gives it.
        kind: the annotation. Keys that a ``NamedTuple`` or record does not name are left out.
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
    if dataclasses.is_dataclass(kind):
        return _record(value, kind, where)
    if hasattr(kind, "_fields"):
        return _named_tuple(value, kind, where)
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


def _named_tuple(value: Any, kind: Any, where: str) -> Any:
    if type(value) is not dict:
        raise _unlike(value, "an object", where)
    hints = typing.get_type_hints(kind)
    _refuse_missing(hints, value, where)
    return kind(
        **{
            name: conform(value[name], hint, where=f"{where}.{name}")
            for name, hint in hints.items()
        }
    )


def _record(value: Any, kind: Any, where: str) -> Any:
    if type(value) is not dict:
        raise _unlike(value, "an object", where)
    if hasattr(kind, "nest"):
        with _naming(where):
            value = kind.nest(value)
    hints = typing.get_type_hints(kind)
    required = [key for field in dataclasses.fields(kind) for key in _keys(field, hints)]
    _refuse_missing(required, value, where)
    found = {}
    for field in dataclasses.fields(kind):
        name, hint = field.name, hints[field.name]
        if _lies_beside(field, hint):
            found[name] = conform(value, hint, where=where)
        elif hasattr(hint, "SUFFIXES"):
            found[name] = _suffixed(value, hint, where=f"{where}.{name}")
        elif name in value:
            found[name] = conform(value[name], hint, where=f"{where}.{name}")
    with _naming(where):
        return kind(**found)


def _refuse_missing(required: Iterable[str], value: JsonObject, where: str) -> None:
    if missing := [key for key in required if key not in value]:
        raise ValueError(f"{_place(where)}{', '.join(missing)} missing")


def _keys(field: dataclasses.Field, hints: dict[str, Any]) -> list[str]:
    """The entries without which an object is not of a record's class, for one of its fields."""
    hint = hints[field.name]
    if hasattr(hint, "SUFFIXES"):
        return [field.name + suffix for suffix in hint.SUFFIXES.values()]
    has_default = field.default is not dataclasses.MISSING
    return [] if has_default or _lies_beside(field, hint) else [field.name]


def _lies_beside(field: dataclasses.Field, hint: Any) -> bool:
    return field.metadata == BESIDE and dataclasses.is_dataclass(hint)


def _suffixed(value: JsonObject, kind: Any, *, where: str) -> Any:
    """The record whose parts are entries of the object ``value``, under a name and suffixes."""
    name, hints = where.rpartition(".")[2], typing.get_type_hints(kind)
    return kind(
        **{
            part: conform(value[name + suffix], hints[part], where=where + suffix)
            for part, suffix in kind.SUFFIXES.items()
        }
    )


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Puts the place of a record before what it says of its own."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{_place(where)}{error}") from None


def _unlike(value: Any, expected: str, where: str) -> ValueError:
    shown = _NAMES[type(value)] if isinstance(value, dict | list) else repr(value)
    return ValueError(f"{_place(where)}expected {expected}, got {shown[:80]}")


def _place(where: str) -> str:
    return f"{where.removeprefix('.')}: " if where else ""
