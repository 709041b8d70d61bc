"""What training carries from step to step, and the networks that it takes."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32, PRNGKeyArray

from jnnk.network._names import PyTree
from jnnk.pruning import apply_masks, masks_from_layers


@runtime_checkable
class Model(Protocol):
    """What training asks of a network: see `jnnk.network.as_model`, which makes it of any."""

    def init(self, rngs: Any, images: jax.Array, *, train: bool) -> Any: ...

    def apply(
        self,
        variables: dict,
        images: jax.Array,
        *,
        train: bool,
        mutable: Any = False,
        rngs: Any = None,
    ) -> Any: ...


class TrainState(NamedTuple):
    """Everything a training run carries from one step to the next; a pytree.

    Attributes:
        step: () int32, steps done.
        key: () PRNG key; the step folds ``step`` into it, so a resumed run draws the same numbers.
        params: nested dict of float32 arrays.
        batch_stats: nested dict of float32 arrays; empty for models without BatchNorm.
        opt_state: state of the optimiser.
        masks: treedef of ``params``; 1 keeps, 0 prunes (see `jnnk.pruning`).
        trainable: treedef of ``params``; 1 trains, 0 is frozen (see `freezable`). None where the
            optimiser freezes nothing.
    """

    step: Int32[Array, ""]
    key: PRNGKeyArray
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    masks: PyTree
    trainable: PyTree = None

    @property
    def variables(self) -> dict:
        """The Flax variables that ``model.apply`` takes."""
        return model_variables(self.params, self.batch_stats)


def model_variables(params: PyTree, batch_stats: PyTree) -> dict:
    """Flax variables from their parts, without ``batch_stats`` where a model has none."""
    return {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}


def init_state(
    model: Model,
    optimizer: optax.GradientTransformationExtraArgs,
    key: PRNGKeyArray,
    *,
    image_shape: tuple[int, int, int],
) -> TrainState:
    """A fresh state for images of ``image_shape`` (H, W, C), nothing pruned.

    Args:
        model: the network.
        optimizer: from `make_optimizer`.
        key: () PRNG key; initialisation and training draw from separate halves of it.
        image_shape: (H, W, C).
    """
    init_key, train_key = jax.random.split(key)
    variables = jax.jit(model.init, static_argnames="train")(
        init_key, jnp.zeros((1, *image_shape), jnp.float32), train=False
    )
    return start_state(optimizer, train_key, variables)


def start_state(
    optimizer: optax.GradientTransformationExtraArgs,
    key: PRNGKeyArray,
    variables: dict,
    *,
    masks: PyTree | None = None,
) -> TrainState:
    """A state at step 0 that starts from given variables, pruned by ``masks`` if given.

    All is copied: the step donates the state's buffers, and what was given stays the caller's.

    Args:
        optimizer: from `make_optimizer`.
        key: () PRNG key of augmentation and dropout.
        variables: ``{"params": ..., "batch_stats": ...}``.
        masks: treedef of params, or None for nothing pruned.
    """
    params = variables["params"]
    if masks is None:
        masks = masks_from_layers(params, {})
    params = apply_masks(params, masks)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        masks=masks,
    )
    return jax.tree.map(jnp.copy, state)
