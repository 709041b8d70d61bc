"""The compression modes of the authors' own code, as criteria and selections.

cuguilke/psykedelic (ff8a7e8), the code of "A Deeper Look into Convolutions via Pruning"
(arXiv 2102.02804), names by one word what `jnnk.pruning.make_masks` takes in two.
"""

import dataclasses
from typing import NamedTuple

from jnnk.pruning._scores import CRITERIA
from jnnk.pruning._selection import Contribution, KeepRate, Selection, Threshold

_CRITERIA = {"det_corr": "det_gram"}
_SUFFIXES = ("_contrib", "_sorted_kernels", "_sorted_neurons", "_kernels", "_neurons")


class AuthorsMode(NamedTuple):
    """Criterion and selection of one of the authors' modes.

    Attributes:
        criterion: a key of ``CRITERIA``.
        selection: what the mode selects by.
    """

    criterion: str
    selection: Selection


@dataclasses.dataclass(frozen=True)
class _AuthorsKeepRate(KeepRate):
    """A keep-rate with the authors' count, which rounding can make one less."""

    def num_pruned(self, count: int) -> int:
        return int(count * (1.0 - float(self.keep_rate)))


def authors_mode(mode: str, value: float) -> AuthorsMode:
    """Criterion and selection of a compression mode of cuguilke/psykedelic.

    ==============================================  ================================================
    mode                                            selection
    ==============================================  ================================================
    ``det_corr``, or a key of ``CRITERIA``          ``Threshold(value)``
    ``NAME_contrib``                                ``Contribution(value, exact=True)``
    ``NAME_sorted_kernels``, ``random_kernels``     ``KeepRate(value, scope="filter")``
    ``NAME_sorted_neurons``, ``random_neurons``     ``KeepRate(value, scope="layer",
                                                    whole_filters=True)``
    ==============================================  ================================================

    Both keep-rates prune ``int(n * (1.0 - value))`` of n, as the authors do. Their
    ``weight_contrib`` divides the mean absolute weight of a kernel by the *sum* of the filter's
    absolute weights, so that its shares add up to ``1 / (h w)``; here those of every criterion add
    up to 1, and their threshold ``t`` is ``h w t`` here. Their ``det_corr`` is ``det_gram``.

    Args:
        mode: such as ``"det_corr"``, ``"min_eig_contrib"`` or ``"weight_sorted_kernels"``.
        value: the threshold, the share contributed, or the share kept.

    Returns:
        The criterion and the selection for `jnnk.pruning.make_masks`.

    Raises:
        ValueError: if the mode is unknown, or the value none of its selection.

    Examples:
        >>> authors_mode("det_contrib", 0.1)
        AuthorsMode(criterion='det', selection=Contribution(contribution=0.1, exact=True))
    """
    suffix = next((each for each in _SUFFIXES if mode.endswith(each)), "")
    name = mode.removesuffix(suffix)
    criterion = _CRITERIA.get(name, name)
    if criterion not in CRITERIA:
        raise ValueError(
            f"mode: expected one of {', '.join([*CRITERIA, *_CRITERIA])}, or such a name followed "
            f"by one of {', '.join(_SUFFIXES)}, got {mode!r}"
        )
    if suffix.endswith("_contrib"):
        return AuthorsMode(criterion, Contribution(value, exact=True))
    if suffix.endswith("_kernels"):
        return AuthorsMode(criterion, _AuthorsKeepRate(value, "filter"))
    if suffix.endswith("_neurons"):
        return AuthorsMode(criterion, _AuthorsKeepRate(value, "layer", whole_filters=True))
    return AuthorsMode(criterion, Threshold(value))
