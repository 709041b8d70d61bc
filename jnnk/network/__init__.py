"""Networks as JAX sees them: their convolutions, activations and wiring, read from the jaxpr."""

from jnnk.network._compaction import compact, thin
from jnnk.network._thinning import Thinning
from jnnk.network._thinning_files import load_thinning, save_thinning

__all__ = ["Thinning", "compact", "load_thinning", "save_thinning", "thin"]
