"""Names told by patterns such as ``"layer3*"``."""

import fnmatch
from collections.abc import Iterable


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that are the pattern, or match it as ``fnmatch`` does, in their order.

    The name of a step of a scan, ``"conv[0]"``, would as a pattern mean ``"conv0"``.
    """
    return [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
