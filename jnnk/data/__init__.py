"""Image-classification data sets by name or path, and the user's own images."""

from jnnk.data._normalization import Normalization, normalize
from jnnk.data._sets import (
    SPLIT_SEED,
    Dataset,
    epoch_order,
    fingerprint,
    first_images,
    from_anywhere,
    load,
    only_classes,
    prepare,
)

__all__ = [
    "SPLIT_SEED",
    "Dataset",
    "Normalization",
    "epoch_order",
    "fingerprint",
    "first_images",
    "from_anywhere",
    "load",
    "normalize",
    "only_classes",
    "prepare",
]
