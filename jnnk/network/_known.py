"""What is known of a value before the network runs, element by element.

Elements are of four kinds, in an order such that what is computed from several elements is of the
largest kind among them (a product with zero is zero):

- ``ZERO``: zero whatever the images and the weights, such as the output of a dead filter (and its
  product with infinity or NaN);
- ``CONSTANT``: the same for all images and computed from frozen weights alone: known;
- ``LIVE``: depends on the images, or on a weight that goes on being trained;
- ``MISSING``: computed from weights that a thinning has removed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jnnk.network._patterns import Layout, Pattern, Shape, collapsed, uniform

ZERO, CONSTANT, LIVE, MISSING = range(4)


class Known(NamedTuple):
    """What is known of a value.

    Attributes:
        kind: pattern of the elements' kinds, uint8.
        value: the constant elements at their places and zero at all others; broadcasts against the
            shape of the value.
        of_images: whether the value is computed from the images (or from other arguments beside the
            variables), dead elements included.
    """

    kind: Pattern
    value: np.ndarray
    of_images: bool


class Need(NamedTuple):
    """Which elements of a value are read.

    Attributes:
        needed: pattern of those that an output needs, bool.
        live: pattern of the elements that stay trainable, bool: those of weights, or of values of
            weights alone, that a live value of the images is computed from.
        whole: axes along which a reader wants all positions or none.
    """

    needed: Pattern
    live: Pattern
    whole: frozenset[int] = frozenset()


class Part(NamedTuple):
    """A value in a thinned program.

    Attributes:
        shape: of the whole value.
        dtype: its dtype.
        known: what is known of it.
        layout: the elements that the program computes; None where there are none.
        array: these elements; None where there are none.
    """

    shape: Shape
    dtype: Any
    known: Known
    layout: Layout | None
    array: Any


class Rule(NamedTuple):
    """How operations of one kind are thinned.

    Attributes:
        known: what is known of the results, from the operation, what is known of its inputs and
            the shapes of inputs and results.
        needs: what is needed of each input (None: nothing), from the operation, what is known of
            its inputs, what is needed of its results, and the shapes.
        compute: the results in the layouts asked for (None: not wanted), from the operation, its
            inputs, the layouts, the shapes, and what ``plan`` gave.
        plan: what is decided before the program runs, from the operation, what is known of its
            inputs, the layouts and the shapes.
    """

    known: Callable[..., list[Known]]
    needs: Callable[..., "list[Need | None]"]
    compute: Callable[..., list[Any]]
    plan: Callable[..., Any] = lambda *_: None


def live(rank: int, dtype: Any, *, of_images: bool = True) -> Known:
    """What is known of a value that is live everywhere."""
    return Known(uniform(rank, LIVE, np.uint8), nothing(rank, dtype), of_images)


def nothing(rank: int, dtype: Any) -> np.ndarray:
    """The values of no constants."""
    return uniform(rank, 0, dtype if is_of_numbers(dtype) else np.uint8)


def is_of_numbers(dtype: Any) -> bool:
    """Whether a dtype is of numbers or booleans, not of random keys."""
    return jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)


def settled(kind: Pattern, value: Any, *, of_images: bool, fixed: Pattern | None = None) -> Known:
    """What is known of a value, given its kinds and constants.

    Args:
        kind: pattern of kinds, where ``CONSTANT`` may turn out to be zero.
        value: right where ``kind`` is constant.
        of_images: see `Known`.
        fixed: where zeros are zeros for good; by default wherever a value is computed from the
            images. A weight that is zero may be trained.
    """
    value = np.asarray(value)
    constant = kind == CONSTANT
    value = np.where(constant, value, np.zeros((), value.dtype))
    if fixed is None:
        fixed = np.asarray(of_images)
    kind = np.where(constant & fixed & (value == 0), np.uint8(ZERO), kind).astype(np.uint8)
    return Known(collapsed(kind), collapsed(value), of_images)


def of_constant(value: Any) -> Known:
    """What is known of an array that is written in the program.

    A function may read values of another that is being traced around it: these are arguments.
    """
    if isinstance(value, Tracer):
        return live(value.ndim, value.dtype)
    if not is_of_numbers(jnp.result_type(value)):
        return live(np.ndim(value), value.dtype, of_images=False)
    value = collapsed(np.asarray(value))
    kind = uniform(value.ndim, CONSTANT, np.uint8)
    return settled(kind, value, of_images=False, fixed=np.asarray(True))


def is_known(known: Known) -> bool:
    """Whether every element is a constant or zero."""
    return bool((known.kind <= CONSTANT).all())


def reads_images(inputs: Sequence[Known]) -> bool:
    """Whether a value is computed from the images, if one of its inputs is."""
    return any(known.of_images for known in inputs)


def pushed(need: Need, known: Known) -> Pattern:
    """Which elements of a result make the weights that they are computed from live."""
    return need.needed & (known.kind == LIVE) if known.of_images else need.live


def merged(one: "Need | None", other: "Need | None") -> "Need | None":
    """What two readers need together."""
    if one is None or other is None:
        return one or other
    return Need(one.needed | other.needed, one.live | other.live, one.whole | other.whole)
