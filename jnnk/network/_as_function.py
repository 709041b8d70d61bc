"""Turns what people have, a module of one of four libraries, into a pure function."""

from typing import Any

from jnnk._core.errors import InputError
from jnnk.network._evaluation import ApplyFunction, described
from jnnk.network._frameworks import of_equinox, of_function, of_haiku, of_linen, of_nnx


def as_function(model: Any, variables: Any = None, **options: Any) -> tuple[ApplyFunction, Any]:
    """The pure function of a network, and the pytree of its variables.

    The function evaluates: dropout is off and BatchNorm takes its running statistics. Arguments of
    the network named ``train``, ``training``, ``is_training``, ``deterministic``,
    ``use_running_average`` or ``inference`` are set so, and likewise the fields and attributes of
    those names that Flax's and Equinox's layers have.

    Flax Linen, with what ``init`` returned::

        apply_fn, variables = as_function(Net(), net.init(key, images))

    Flax NNX; the variables are the module's state without random keys, and the module stays as it
    is (``nnx.update(net, variables)`` sets it to other ones)::

        apply_fn, variables = as_function(net)

    Equinox, for a module of one image (C, H, W); images are (N, C, H, W), and the variables are the
    floating-point arrays of the module (``eqx.combine(variables, net)`` is a module again)::

        apply_fn, variables = as_function(net)
        apply_fn, variables = as_function(*eqx.nn.make_with_state(Net)(key))

    Haiku, with what ``init`` returned: the parameters, or the parameters and the state::

        net = hk.without_apply_rng(hk.transform(forward))
        apply_fn, variables = as_function(net, net.init(key, images))

    A function of variables and images, alone or behind its ``init``::

        apply_fn, variables = as_function((init, apply), init(key))

    Keep ``apply_fn`` and give it new variables, as ``jax.jit`` compiles once for each function;
    functions made of equal networks are equal where what they are made of can be hashed.

    Args:
        model: the network; a Linen module may be bound to its variables.
        variables: what it is evaluated with, where it does not hold that itself: Linen's
            collections, Equinox's ``State``, Haiku's parameters or parameters and state, the first
            argument of a function.
        **options: further arguments of the network by name, such as ``train=True``; they win.

    Returns:
        ``apply_fn(variables, images)``, which returns what the network returns, without new states;
        and the variables, arrays alone. Those of a network with a state of its own (Equinox, Haiku)
        are `Variables`.

    Raises:
        InputError: if the model is none of these, variables are missing or not those of such a
            network, or an option is no argument of it.
    """
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "flax" in packages:
        from flax import linen, nnx

        if isinstance(model, linen.Module):
            return of_linen(model, variables, options)
        if isinstance(model, nnx.Module):
            return of_nnx(model, variables, options)
    if "equinox" in packages:
        import equinox

        if isinstance(model, equinox.Module):
            return of_equinox(model, variables, options)
    if "haiku" in packages:
        import haiku

        if isinstance(model, haiku.Transformed | haiku.TransformedWithState):
            return of_haiku(model, variables, options)
    function = model[1] if _is_pair(model) else model
    if not callable(function) or isinstance(function, type):
        raise InputError(
            "model: expected a Flax module (Linen or NNX), an Equinox module, a Haiku transform, a "
            f"pair (init, apply) or a function of variables and images, got {described(model)}"
        )
    return of_function(function, variables, options)


def _is_pair(model: Any) -> bool:
    return isinstance(model, tuple) and len(model) == 2 and all(map(callable, model))
