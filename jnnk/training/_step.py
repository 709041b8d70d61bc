"""Training of any network (`jnnk.network.as_model`): one pure, jitted, donated step.

The step knows nothing of files, epochs or devices: sharding follows from where its arguments lie
(:mod:`jnnk.parallel` lays the batch over a mesh and XLA makes the rest data-parallel, batch
statistics included).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int, Int32, PRNGKeyArray, UInt8

from jnnk._core.arrays import ArrayLike
from jnnk._core.whole_numbers import whole_number
from jnnk.data import Normalization, normalize
from jnnk.network import Network
from jnnk.network._names import KERNELS, Path, PyTree, leaf_path, named_leaves
from jnnk.parallel._mesh import DATA, shared_apply
from jnnk.penalties import Regularizer
from jnnk.pruning import apply_masks, keep_pruned_zero, masks_from_layers
from jnnk.pruning._conv_leaves import conv_leaves
from jnnk.training._augment import pad_crop_flip

OPTIMIZERS = ("sgd", "adam")
# What libraries call what is no weight of a layer.
_SCALES_AND_SHIFTS = ("scale", "bias", "b", "offset", "gamma", "beta")


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
        return _model_variables(self.params, self.batch_stats)


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


def _model_variables(params: PyTree, batch_stats: PyTree) -> dict:
    """Flax variables from their parts, without ``batch_stats`` where a model has none."""
    return {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}


def make_optimizer(
    name: str,
    *,
    learning_rate: float,
    num_steps: int,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """SGD with momentum or Adam on a cosine schedule, keeping pruned weights at exactly zero.

    Args:
        name: ``"sgd"`` (Nesterov momentum, weight decay added to the gradient) or ``"adam"``
            (weight decay decoupled, AdamW).
        learning_rate: peak rate, falling to 0 over ``num_steps`` by a cosine.
        num_steps: length of the schedule in steps.
        momentum: of SGD; Adam keeps Optax's defaults.
        weight_decay: on conv and dense kernels; BatchNorm scales, shifts and biases are spared.

    Raises:
        ValueError: for an unknown name, or a number that is negative or not finite.
    """
    _check_not_negative(learning_rate=learning_rate, num_steps=num_steps, weight_decay=weight_decay)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: expected a number of 0 or more and below 1, got {momentum}")
    cosine = optax.cosine_decay_schedule(learning_rate, max(num_steps, 1))

    def schedule(count):  # Optax mixes the integer count with floats, which strict promotion bars
        return cosine(count.astype(jnp.float32))

    if name == "sgd":
        optimizer = optax.chain(
            optax.add_decayed_weights(weight_decay, mask=_is_decayed),
            optax.sgd(schedule, momentum=momentum, nesterov=True),
        )
    elif name == "adam":
        optimizer = optax.adamw(schedule, weight_decay=weight_decay, mask=_is_decayed)
    else:
        raise ValueError(f"name: expected one of {', '.join(OPTIMIZERS)}, got {name!r}")
    return keep_pruned_zero(optimizer)


def _check_not_negative(**numbers: float) -> None:
    for name, value in numbers.items():
        if not isinstance(value, Tracer) and not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a finite number of 0 or more, got {value}")


def _check_normalization(normalization: Normalization) -> None:
    if any(isinstance(values, Tracer) for values in normalization):
        return
    mean, std = (np.asarray(values) for values in normalization)
    if not np.isfinite(mean).all():
        raise ValueError(f"normalization.mean: expected numbers that are finite, got {mean}")
    if not (np.isfinite(std) & (std > 0)).all():
        raise ValueError(
            f"normalization.std: expected numbers that are finite and above 0, got {std}"
        )


def _is_decayed(params: PyTree) -> PyTree:
    """Which leaves are weights of layers: matrices and kernels, not scales, shifts and biases.

    These may have axes of size 1 beside that of channels, as in Equinox and Haiku, or one of the
    steps of a scan.
    """

    def is_weight(path: Path, leaf: jax.Array) -> bool:
        name = leaf_path(path).rpartition("/")[2]
        is_vector = sum(size > 1 for size in leaf.shape) < 2 and name not in KERNELS
        return leaf.ndim > 1 and not is_vector and name not in _SCALES_AND_SHIFTS

    return jax.tree_util.tree_map_with_path(is_weight, params)


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
    _check_not_negative(l1=l1)
    _check_normalization(normalization)

    def loss_fn(params, batch_stats, images, labels, dropout_key):
        (logits, activations), updated = model.apply(
            _model_variables(params, batch_stats),
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


def make_predict(
    model: Model, *, normalization: Normalization
) -> Callable[[dict, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]:
    """``predict(variables, images) -> (logits, activations)`` for uint8 images, not jitted.

    Args:
        model: the network.
        normalization: of the images, such as that of their `jnnk.data.Dataset`.

    Raises:
        ValueError: if a mean is not finite, or a deviation not finite and above 0.
    """
    _check_normalization(normalization)

    def predict(variables, images):
        return model.apply(variables, normalize(images, normalization), train=False)

    return predict


def make_evaluate(
    model: Model,
    *,
    normalization: Normalization,
    batch_size: int = 500,
    mesh: Mesh | None = None,
) -> Callable[[dict, np.ndarray, np.ndarray], float]:
    """``evaluate(variables, images, labels) -> accuracy`` in [0, 1] over a whole set.

    NaN where the logits of an image are not all finite: such a network classifies nothing.

    The last batch is padded and its padding not counted, so one program serves every set and
    every pruned variant of the parameters.

    Args:
        model: the network.
        normalization: of the images, such as that of their `jnnk.data.Dataset`.
        batch_size: images a batch, rounded up to what the devices can share.
        mesh: devices that share every batch over its axis ``"data"``, on which the variables must
            lie; the images are given whole to every process.

    Raises:
        ValueError: if ``batch_size`` is below 1, or as for `make_predict`.
    """
    batch_size = whole_number("batch_size", batch_size)
    predict = make_predict(model, normalization=normalization)
    if mesh is not None:
        predict = shared_apply(predict, mesh)
        batch_size += -batch_size % mesh.shape[DATA]

    @jax.jit
    def count(variables, images, labels):
        logits, _ = predict(variables, images)
        is_lost = ~jnp.isfinite(logits).all(-1) & (labels >= 0)
        is_correct = jnp.argmax(logits, axis=-1) == labels
        return jnp.stack([is_correct, is_lost]).sum(-1, dtype=jnp.int32)

    def evaluate(variables: dict, images: np.ndarray, labels: np.ndarray) -> float:
        total = np.zeros(2, np.int64)  # correct, lost
        for start in range(0, len(images), batch_size):
            part, part_labels = (
                images[start : start + batch_size],
                labels[start : start + batch_size],
            )
            missing = batch_size - len(part)
            if missing:
                part = np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)))
                part_labels = np.pad(part_labels, (0, missing), constant_values=-1)
            total += np.asarray(count(variables, part, part_labels))
        correct, lost = total.tolist()
        return math.nan if lost else correct / len(images)

    return evaluate
