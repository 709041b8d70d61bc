"""Training of any network (`jnnk.network.as_model`): one pure, jitted, donated step.

The step knows nothing of files, epochs or devices: sharding follows from where its arguments lie
(:mod:`jnnk.parallel` lays the batch over a mesh and XLA makes the rest data-parallel, batch
statistics included).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32, Int, UInt8

from jnnk._core.arrays import ArrayLike
from jnnk.data import Normalization, normalize
from jnnk.network import Network
from jnnk.network._names import PyTree, named_leaves
from jnnk.penalties import Regularizer
from jnnk.pruning._conv_leaves import conv_leaves
from jnnk.training._augment import pad_crop_flip
from jnnk.training._checks import check_normalization, check_not_negative
from jnnk.training._state import Model, TrainState, model_variables


class Batch(NamedTuple):
    """Images and labels of one step, or of several along leading axes.

    Attributes:
        images: (B, H, W, C) uint8.
        labels: (B,) integers.
    """

    images: UInt8[ArrayLike, "... B H W C"]
    labels: Int[ArrayLike, "... B"]


class Metrics(NamedTuple):
    """What one training step measured, each () float32.

    Attributes:
        loss: the whole objective.
        cross_entropy: its first term.
        accuracy: share of the batch classified correctly, before the update.
        penalty: L1 penalty plus the regulariser's value.
    """

    loss: Float32[Array, ""]
    cross_entropy: Float32[Array, ""]
    accuracy: Float32[Array, ""]
    penalty: Float32[Array, ""]


def l1_penalty(params: PyTree, *, network: Network | None = None) -> Float32[Array, ""]:
    """Sum of the absolute weights of all conv kernels, () float32.

    Args:
        params: pytree of parameters.
        network: as `jnnk.network.read` reads it; without it kernels are told as by
            `jnnk.make_masks`.
    """
    leaves = named_leaves(params)
    kernels = (leaves[path] for path in conv_leaves(params, network=network))
    return sum((jnp.abs(kernel).sum() for kernel in kernels), jnp.zeros((), jnp.float32))


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    normalization: Normalization,
    augment: bool = True,
    flip: bool = True,
    l1: float = 0.0,
    regularizer: Regularizer | None = None,
    network: Network | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The training step: ``step(state, batch) -> (state, metrics)``, jitted, state donated.

    Args:
        model: the network.
        optimizer: from `make_optimizer`.
        normalization: of the images, such as that of their `jnnk.data.Dataset`.
        augment: pad by an eighth of the image, crop and (with ``flip``) mirror, on device.
        flip: mirror at random; off for digits and other images where left and right differ.
        l1: strength of the L1 penalty on conv kernels.
        regularizer: adds ``regularizer(activations, labels, key)`` to the loss; see
            `jnnk.penalties`.
        network: as `jnnk.network.read` reads it; it tells kernels for the L1 penalty, which are
            else told as by `jnnk.make_masks`.

    Raises:
        ValueError: if ``l1`` is negative or not finite, or a mean is not finite, or a deviation not
            finite and above 0.
    """
    check_not_negative(l1=l1)
    check_normalization(normalization)

    def loss_fn(params, batch_stats, images, labels, dropout_key):
        (logits, activations), updated = model.apply(
            model_variables(params, batch_stats),
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        penalty = l1 * l1_penalty(params, network=network)
        if regularizer is not None:
            key = jax.random.fold_in(dropout_key, 1)
            penalty = penalty + regularizer(activations, labels, key)
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.float32)
        return cross_entropy + penalty, (
            updated.get("batch_stats", {}),
            cross_entropy,
            accuracy,
            penalty,
        )

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        images = batch.images
        if augment:
            images = pad_crop_flip(
                augment_key, images, padding=max(images.shape[1] // 8, 1), flip=flip
            )
        images = normalize(images, normalization)
        (loss, (batch_stats, cross_entropy, accuracy, penalty)), grads = jax.value_and_grad(
            loss_fn, has_aux=True
        )(state.params, state.batch_stats, images, batch.labels, dropout_key)
        masks = {"masks": state.masks}
        if state.trainable is not None:
            masks["trainable"] = state.trainable
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, **masks)
        new_state = state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return new_state, Metrics(loss, cross_entropy, accuracy, penalty)

    return jax.jit(step, donate_argnums=0)
