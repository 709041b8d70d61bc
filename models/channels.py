"""Which channels a conv reads and writes: how a network's wiring is told, and thinned.

Removing filters from a network takes two things, and both are data here, so that whoever decides
what to remove needs to know no architecture: `ConvInfo` says where a conv's output goes, `Thin`
says what is left of a conv. `model.convs()` gives the former, and a thinned model is built from
plain data, `model.with_thin({"layer1_0/conv1": {"width": 5}, ...})`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from .vector_conv import vector_conv

#: Layer name to ``(N, H, W, C)``, in the order of the network. Ordered, because a plain dict comes
#: out of ``jax.jit`` sorted by name.
Activations = OrderedDict[str, jax.Array]


class ConvInfo(NamedTuple):
    """Where one conv stands in its network.

    Attributes:
        conv: path of the conv in the params, such as ``"layer1_0/conv1"``.
        norm: path of the BatchNorm behind it, or None.
        readers: paths of the layers (convs, or the dense layer ``"fc"``) that read its
            output, through ReLU and maybe pooling, and are all that reads it. Empty when the
            output is added to a residual stream, which every later block reads.
            A dense reader reads it flattened, channels last: its kernel is
            ``(positions * channels, outputs)``.
        activation: name of the activation that has the height and width of its output.
    """

    conv: str
    norm: str | None
    readers: tuple[str, ...]
    activation: str


class Thin(NamedTuple):
    """What is left of one conv; the defaults leave all of it.

    At least one filter and one input channel stay: of a conv that is wholly dead, a dead one.

    Attributes:
        width: number of filters left, for a conv whose readers are known
            (`ConvInfo.readers`): its output, BatchNorm and readers are that much narrower.
        reads: the input channels that the conv still reads, for a conv that reads a residual
            stream: increasing indices.
        writes: the stream channels that the conv still writes, for a conv that feeds a residual
            stream: increasing indices. The others get a constant each, the parameter
            ``<conv>_rest`` of shape ``(standard filters - len(writes),)``: what BatchNorm makes
            of an all-zero filter.
        constant: the conv also reads a channel that is 1 everywhere (and 0 in the padding), with a
            kernel of its own, ``<conv>_constant/kernel``, ``(h, w, 1, filters left)``. A filter
            removed upstream still gave its reader a constant: this kernel carries their sum,
            exact up to the borders, at the cost of one image a batch.
    """

    width: int | None = None
    reads: tuple[int, ...] | None = None
    writes: tuple[int, ...] | None = None
    constant: bool = False


WHOLE = Thin()


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """He's normal initialisation, drawn by XLA's own generator.

    JAX's default generator takes about half a second of compilation for every kernel, a minute for
    ResNet-110. The price: draws differ between backends, and between a vmapped and a plain call.
    """
    data = jax.random.key_data(key)
    key = jax.random.wrap_key_data(jnp.resize(data, (4,)), impl="rbg")
    return nn.initializers.he_normal()(key, shape, dtype)


def conv(
    x: jax.Array,
    features: int,
    size: int,
    *,
    name: str,
    stride: int = 1,
    padding: int = 0,
    use_bias: bool = False,
    thin: Thin = WHOLE,
    thinned: bool = False,
    dtype: Any,
) -> jax.Array:
    """A square conv, padded alike on all sides as in PyTorch; call it in a compact method.

    Args:
        x: ``(N, H, W, C)`` input.
        features: filters that the standard network has here.
        size: side of the kernel.
        name: name of the parameters in the calling module.
        stride: stride in both directions.
        padding: zeros added on each side.
        use_bias: whether a bias is added.
        thin: what is left of the conv.
        thinned: whether it or a neighbour is not whole, so that its channels may fill no vectors.
        dtype: dtype of the computation.

    Returns:
        ``(N, H', W', filters left)``.
    """
    if thin.reads is not None:
        x = jnp.take(x, np.asarray(thin.reads, np.int32), axis=-1)
    if thin.writes is not None:
        features = len(thin.writes)
    elif thin.width is not None:
        features = thin.width
    options = {
        "features": features,
        "kernel_size": (size, size),
        "strides": stride,
        "padding": padding,
        "kernel_init": he_normal,
        "dtype": dtype,
        "conv_general_dilated": vector_conv if thinned else None,
    }
    y = nn.Conv(**options, use_bias=use_bias, name=name)(x)
    if thin.constant:
        ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
        y += nn.Conv(**options, use_bias=False, name=f"{name}_constant")(ones)
    return y


def spread(x: jax.Array, rest: jax.Array, writes: tuple[int, ...]) -> jax.Array:
    """Puts channels at their places in a wider stream and constants at the others.

    Args:
        x: ``(N, H, W, len(writes))``.
        rest: ``(R,)`` values of the channels that are not in ``writes``, in order.
        writes: the places of ``x``'s channels among the ``len(writes) + R``.

    Returns:
        ``(N, H, W, len(writes) + R)``.
    """
    total = len(writes) + rest.shape[0]
    others = np.setdiff1d(np.arange(total), writes)
    source = np.argsort(np.concatenate([np.asarray(writes, int), others])).astype(np.int32)
    constants = jnp.broadcast_to(rest.astype(x.dtype), (*x.shape[:-1], rest.shape[0]))
    return jnp.take(jnp.concatenate([x, constants], axis=-1), source, axis=-1)


class _Network(Protocol):
    """A Flax module with a field ``thin``."""

    def convs(self) -> tuple[ConvInfo, ...]: ...

    def clone(self, *, thin: Mapping[str, Thin]) -> Any: ...


N = TypeVar("N", bound=_Network)


class Thinned:
    """What a network with ``convs()`` and a field ``thin`` can do besides: be thinned."""

    def with_thin(self: N, thin: Mapping[str, Mapping[str, Any]]) -> N:
        """The same network with some convs thinned, in place of any earlier thinning.

        Args:
            thin: fields of `Thin` by conv path; convs not named are left whole.

        Raises:
            ValueError: an unknown path, or a thinning that the conv's place does not allow.
            TypeError: an unknown field.
        """
        return self.clone(thin=_checked_thin(self.convs(), thin))


def _checked_thin(
    infos: Iterable[ConvInfo], thin: Mapping[str, Mapping[str, Any]]
) -> FrozenDict[str, Thin]:
    """From plain data to hashable `Thin` entries.

    Args:
        infos: the model's convs.
        thin: fields of `Thin` by conv path.

    Returns:
        `Thin` entries by conv path.

    Raises:
        ValueError: an unknown path, ``width`` for a conv that feeds a residual stream, ``writes``
            for one that does not, ``reads`` for one that reads a thinnable conv, nothing left, or
            channels that do not increase.
        TypeError: an unknown field.
    """
    by_path = {info.conv: info for info in infos}
    fed = {reader for info in by_path.values() for reader in info.readers}
    entries = {}
    for path, fields in thin.items():
        if path not in by_path:
            raise ValueError(f"thin: no conv {path!r}; the model's convs are {', '.join(by_path)}")
        entry = Thin(**fields)
        if entry.width is not None and not by_path[path].readers:
            raise ValueError(f"thin: {path!r} feeds a residual stream: give writes, not width")
        if entry.width is not None and entry.width < 1:
            raise ValueError(f"thin: {path!r} width: expected at least 1, got {entry.width}")
        if entry.writes is not None and by_path[path].readers:
            raise ValueError(f"thin: {path!r} feeds no residual stream: give width, not writes")
        if entry.reads is not None and path in fed:
            raise ValueError(f"thin: {path!r} reads another conv: give that conv's width instead")
        entries[path] = entry._replace(
            reads=_increasing(path, "reads", entry.reads),
            writes=_increasing(path, "writes", entry.writes),
        )
    return FrozenDict(entries)


def _increasing(path: str, field: str, channels: Iterable[int] | None) -> tuple[int, ...] | None:
    if channels is None:
        return None
    channels = tuple(int(channel) for channel in channels)
    if not channels:
        raise ValueError(f"thin: {path!r} {field}: expected at least one channel")
    if any(later <= earlier for earlier, later in pairwise((-1, *channels))):
        raise ValueError(f"thin: {path!r} {field}: expected increasing channels, got {channels}")
    return channels
