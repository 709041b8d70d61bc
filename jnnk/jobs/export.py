"""``jnnk export``: the networks that a run folder holds, to be written for other frameworks."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp

from jnnk._core.errors import InputError
from jnnk.data import Dataset, normalize
from jnnk.jobs.networks import logits_of, network_of
from jnnk.jobs.train import load_state
from jnnk.network import compact
from jnnk.pruning import masks_from_layers
from jnnk.runs.checkpoints import Checkpoints
from jnnk.runs.contents import train_config
from jnnk.runs.folder import Run
from jnnk.training import Model, TrainState, make_optimizer, start_state


def networks(run: Run, model: Model, dataset: Dataset) -> dict[str, TrainState]:
    """The last states of a run's training and of every pruning that has been fine-tuned.

    Returns:
        ``"trained"``; ``"pruned"`` if kernels were pruned; ``"channels_CRITERION"`` for each
        pruning of whole channels, whose dead weights are zeros, nothing removed.

    Raises:
        InputError: if the run is not trained yet, or a checkpoint cannot be read.
    """
    trained = load_state(run, model, dataset)
    folders = {"pruned": run.path / "prune"}
    for path in sorted((run.path / "channels").glob("*/")):
        folders[f"channels_{path.name}"] = path
    config = train_config(run)
    # Only the tree of its state matters here, which no rate or number of steps changes.
    optimizer = make_optimizer(
        config.optimizer, learning_rate=1.0, num_steps=1, weight_decay=config.weight_decay
    )
    masks = masks_from_layers(trained.params, {}, network=network_of(model, dataset))
    like = jax.eval_shape(
        partial(start_state, optimizer, trained.key, trained.variables, masks=masks)
    )
    found = {"trained": trained}
    for name, folder in folders.items():
        if (folder / "result.json").exists():  # else it was stopped on the way
            with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
                last = checkpoints.latest()
                if last is None:
                    raise InputError(f"{checkpoints.folder}: no checkpoint of the pruned network")
                found[name] = checkpoints.restore(last, like)
    return found


def artifact(model: Model, state: TrainState, dataset: Dataset) -> bytes:
    """A network without what its mask removed, weights included, as a StableHLO artifact.

    ``jax.export.deserialize(artifact).call(images)`` gives its logits, on a CPU, a GPU or a TPU,
    of any number of images as the data set holds them: uint8, not normalised.

    Raises:
        InputError: if the network cannot be traced or lowered for any number of images.
    """
    logits, shape = logits_of(model), dataset.train_images.shape[1:]

    def of_images(variables: dict, images: jax.Array) -> jax.Array:
        return logits(variables, normalize(images, dataset.normalization))

    small, variables = compact(
        of_images, state.variables, state.masks, jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
    )

    def answer(images: jax.Array) -> jax.Array:
        return small(variables, images)

    images = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("images"), *shape), jnp.uint8)
    platforms = ("cpu", "cuda", "tpu")
    try:
        exported = jax.export.export(jax.jit(answer), platforms=platforms)(images)
    except Exception as error:  # of the network, such as len(images) where a size is meant
        said = next(iter(str(error).splitlines()), "")
        raise InputError(
            "the network cannot be exported for any number of images on CPU, GPU and TPU "
            f"(images.shape[0] can be any, len(images) cannot): {type(error).__name__}: {said}"
        ) from error
    return bytes(exported.serialize())
