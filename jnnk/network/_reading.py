"""Read a network: its convolutions, the parameters that feed them, what becomes of their output."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Shaped

from jnnk._core.arrays import ArrayLike
from jnnk._core.errors import InputError
from jnnk.network._channel_leaves import Applied, applied_leaves
from jnnk.network._convs import ChannelLeaf, Conv, LeftOut, Maps
from jnnk.network._evaluation import described
from jnnk.network._kernels import Origin, kernel_axes, of_leaves, of_scan, origins
from jnnk.network._names import PyTree, layer_name, leaves_by_path
from jnnk.network._network import Network
from jnnk.network._program import CONV, Operation, Place, Program, without_unneeded
from jnnk.network._sites import activation_site
from jnnk.network._tracing import Structure, holds_conv, jaxprs_of, trace_tree
from jnnk.network._views import whole_view


def read(
    apply_fn: Callable[..., Any],
    variables: PyTree,
    images: Shaped[ArrayLike, "N ..."] | jax.ShapeDtypeStruct,
    *others: Any,
) -> Network:
    """Reads a network from its jaxpr: its convolutions, with their kernels and activations.

    Nothing is computed: the network is traced, with the shapes of its variables and images.

    Args:
        apply_fn: ``(variables, images, *others) -> anything``, traceable by JAX; see
            `jnnk.network.as_function` for models of Flax, Equinox and Haiku.
        variables: pytree of the network's arrays; the kernels are among its leaves.
        images: a batch; its shape and dtype alone matter.
        *others: further arguments, such as the key of dropout.

    Returns:
        The network, without what its outputs do not need. Print it for a table.

    Raises:
        InputError: if there are no images, ``images`` is no array or ``apply_fn`` no function. What
            ``apply_fn`` itself raises gets a note that says what it was called with.

    Examples:
        >>> import jax.numpy as jnp
        >>> def apply_fn(variables, images):
        ...     return jax.lax.conv(images, variables["conv1"], (1, 1), "SAME")
        >>> variables = {"conv1": jnp.ones((4, 3, 3, 3))}
        >>> network = read(apply_fn, variables, jnp.ones((2, 3, 8, 8)))
        >>> conv = network["conv1"]
        >>> conv.output_shape, conv.macs
        ((8, 8, 4), 6912)
    """
    return read_with_structure(apply_fn, variables, images, *others)[0]


def read_with_structure(
    apply_fn: Callable[..., Any], variables: PyTree, images: Any, *others: Any
) -> tuple[Network, Structure]:
    """A network as `read` gives it, and the structure of what it returns."""
    if not hasattr(images, "shape") or not images.shape or not images.shape[0]:
        got = f"shape {images.shape}" if hasattr(images, "shape") else type(images).__name__
        raise InputError(f"images: expected an array of at least one image (N, ...), got {got}")
    if not callable(apply_fn):
        raise InputError(
            f"apply_fn: expected a function of variables and images, got {described(apply_fn)}"
        )
    paths = list(leaves_by_path(variables))
    abstract = jax.ShapeDtypeStruct(images.shape, images.dtype)
    try:
        program, structure = trace_tree(apply_fn, variables, abstract, *others)
    except Exception as error:
        error.add_note(
            f"jnnk called apply_fn(variables, images) with variables {described(variables)} and "
            f"images {abstract.dtype}{list(abstract.shape)}; of a model, "
            "jnnk.network.as_function(model, variables) makes such a function"
        )
        raise
    program = without_unneeded(program)
    shapes = tuple(program.shapes[value].shape for value in program.inputs)
    found = _Found(shapes, images.shape[0], len(shapes) - len(paths))
    of_images = {program.inputs[len(paths)]}
    leaves = of_leaves(program, len(paths))
    calls = list(_calls(program, of_images, leaves, found, scans=(), steps=1))
    convs = [call for call in calls if isinstance(call, _Call)]
    left_out = [call for call in calls if isinstance(call, LeftOut)]
    network = Network(tuple(_named(convs, paths)), tuple(left_out), tuple(paths), program)
    return network, structure


class _Found(NamedTuple):
    """What all calls need to know of the network."""

    shapes: tuple[tuple[int, ...], ...]  # of the program's inputs
    num_images: int
    num_others: int  # inputs that are no leaves of the variables


class _Call(NamedTuple):
    """A convolution without its name."""

    leaf: int
    applied: list[Applied]
    conv: Conv


def _named(calls: list[_Call], paths: list[Any]) -> Iterator[Conv]:
    """The convolutions with the names of their kernels, told apart where they are the same."""
    layers = [layer_name(path) for path in paths]
    seen: dict[int, int] = {}
    for call in calls:
        seen[call.leaf] = seen.get(call.leaf, 0) + 1
        name = layers[call.leaf]
        if layers.count(name) > 1:
            others = {other.leaf for other in calls if layers[other.leaf] == name}
            name = name if len(others) == 1 else jax.tree_util.keystr(paths[call.leaf])
        if seen[call.leaf] > 1:
            name = f"{name}@{seen[call.leaf]}"
        beside = tuple(ChannelLeaf(paths[each.leaf], each.axis, each.role) for each in call.applied)
        yield call.conv._replace(name=name, path=paths[call.leaf], channel_leaves=beside)


def _calls(
    program: Program,
    dependent_inputs: set[int],
    leaves: Mapping[int, Origin],
    found: _Found,
    *,
    scans: tuple[int, ...],
    steps: int,
) -> Iterator[_Call | LeftOut]:
    """The convolutions of a program, those in its scans where these run."""
    dependent = _dependent(program, dependent_inputs)
    known = origins(program, leaves)
    for number, operation in enumerate(program.operations):
        if not dependent.intersection(operation.inputs):
            continue
        if operation.name == CONV:
            yield _call(program, operation, dependent, known, found, scans=scans, steps=steps)
        elif operation.body is not None:
            inside = _dependent_in_body(operation, dependent)
            yield from _calls(
                operation.body,
                inside,
                of_scan(operation, known),
                found,
                scans=(*scans, number),
                steps=steps * operation.params["length"],
            )
        elif any(map(holds_conv, jaxprs_of(operation.equation))):
            yield LeftOut(
                f"convolutions in {operation.name}", "operations inside of it are not followed"
            )


def _dependent(program: Program, inputs: set[int]) -> set[int]:
    """Numbers of the values that depend on the given inputs."""
    dependent = set(inputs)
    for operation in program.operations:
        if dependent.intersection(operation.inputs):
            dependent.update(operation.outputs)
    return dependent


def _dependent_in_body(operation: Operation, dependent: set[int]) -> set[int]:
    """Inputs of a scan's body that depend on the images, in some step."""
    body, (num_consts, num_carry) = operation.body, operation.scanned
    assert body is not None
    inputs = {
        inner
        for inner, outer in zip(body.inputs, operation.inputs, strict=True)
        if outer in dependent
    }
    carried = body.inputs[num_consts:][:num_carry]
    while True:
        reached = _dependent(body, inputs)
        more = {
            inner
            for inner, new in zip(carried, body.outputs, strict=False)
            if new in reached and inner not in inputs
        }
        if not more:
            return inputs
        inputs |= more


def _call(
    program: Program,
    operation: Operation,
    dependent: set[int],
    known: Mapping[int, Origin],
    found: _Found,
    *,
    scans: tuple[int, ...],
    steps: int,
) -> _Call | LeftOut:
    """One convolution, or why it cannot be followed."""
    images, kernel = operation.inputs
    params = operation.params
    dimensions = params["dimension_numbers"]
    in_shape, out_shape = program.shapes[images].shape, program.shapes[operation.outputs[0]].shape
    what = f"convolution of {in_shape} with a kernel {program.shapes[kernel].shape}"
    if kernel in dependent:
        return LeftOut(what, "its kernel depends on the images")
    origin = known.get(kernel)
    if origin is None:
        return LeftOut(what, "its kernel is no leaf of the variables, nor made of one by element")
    leaf_shape = found.shapes[origin.leaf]
    axes = kernel_axes(origin, dimensions.rhs_spec, len(leaf_shape))
    if axes is None:
        return LeftOut(what, "the axes of its kernel's leaf are cut, joined or reversed before it")
    out_spec = dimensions.out_spec
    order = (out_spec[0], *out_spec[2:], out_spec[1])
    in_order = tuple(out_shape[axis] for axis in order)
    start = operation.outputs[0]
    site = activation_site(program, start, dependent)
    strides = tuple(params["window_strides"])
    lhs_spec = dimensions.lhs_spec
    # Each position of the output sees a kernel; of a transposed one, each of the input is seen.
    is_transposed = any(step > 1 for step in params["lhs_dilation"])
    seen = [in_shape[axis] for axis in lhs_spec[2:]] if is_transposed else in_order[1:-1]
    macs = steps * math.prod(seen) * math.prod(program.shapes[kernel].shape)
    if in_order[0] != found.num_images:  # else it may be a symbol
        macs = macs * in_order[0] // found.num_images
    conv = Conv(
        name="",
        path=(),
        kernel_shape=leaf_shape,
        axes=axes,
        groups=params["feature_group_count"],
        strides=strides,
        kernel_dilation=tuple(params["rhs_dilation"]),
        input_dilation=tuple(params["lhs_dilation"]),
        output_shape=in_order[1:],
        channel_axis=out_spec[1],
        steps=steps,
        macs=macs,
        params=math.prod(leaf_shape),
        channel_leaves=(),
        output=Maps(Place(start, scans), whole_view(out_shape), order, in_order),
        activation=Maps(Place(site.value, scans), site.view, order, in_order),
    )
    # Within a scan, leaves are no inputs of its body.
    num_leaves = 0 if scans else len(found.shapes) - found.num_others
    applied = applied_leaves(program, site.inside, dependent, num_leaves, in_order[-1])
    return _Call(origin.leaf, applied, conv)
