"""Terms of a training loss that keep channels apart."""

from jnnk.penalties._decorrelation import cka_penalty, decorrelation_penalty
from jnnk.penalties._overlap_penalty import (
    SOFT_OVERLAP_KINDS,
    SoftKind,
    SoftOverlap,
    overlap_penalty,
    soft_channel_overlap,
)
from jnnk.penalties._regularizers import PENALTIES, Regularizer, make_regularizer

__all__ = [
    "PENALTIES",
    "SOFT_OVERLAP_KINDS",
    "Regularizer",
    "SoftKind",
    "SoftOverlap",
    "cka_penalty",
    "decorrelation_penalty",
    "make_regularizer",
    "overlap_penalty",
    "soft_channel_overlap",
]
