"""What jnnk needs of JAX beyond its public names, in one place: it may change with any version."""

from collections.abc import Sequence
from typing import Any

from jax import Array
from jax.extend.core import JaxprEqn

try:
    from jax.errors import InconclusiveDimensionOperation
except ImportError:  # until JAX 0.8
    from jax.core import InconclusiveDimensionOperation

__all__ = ["InconclusiveDimensionOperation", "evaluate"]


def evaluate(equation: JaxprEqn, inputs: Sequence[Any]) -> list[Array]:
    """What one equation of a jaxpr makes of its inputs, literals among them.

    The operation is bound again as it was traced: under ``jax.grad`` custom rules hold, and names
    of scopes and the precision asked for stay.
    """
    found = equation.primitive.get_bind_params(equation.params)
    # Until JAX 0.10: functions first, then parameters.
    functions, params = found if isinstance(found, tuple) else ((), found)
    with equation.ctx.manager:
        outputs = equation.primitive.bind(*functions, *inputs, **params)
    return list(outputs) if equation.primitive.multiple_results else [outputs]
