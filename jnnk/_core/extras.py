"""Packages that the library alone does not bring."""

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence

from jnnk._core.errors import InputError


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """What is imported inside comes with an extra of :mod:`jnnk`.

    Raises:
        InputError: naming the package that is not installed, and the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "jnnk"):
            raise
        raise InputError(_missing([package], name)) from None


def require_extra(name: str, packages: Sequence[str]) -> None:
    """Refuses to begin what would end at an import.

    Raises:
        InputError: naming those of the packages that are not installed, and the extra.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(_missing(missing, name))


def _missing(packages: Sequence[str], extra: str) -> str:
    verb = "is" if len(packages) == 1 else "are"
    return f"{', '.join(packages)} {verb} not installed: pip install 'jnnk[{extra}]'"
