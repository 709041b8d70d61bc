"""``jnnk train``: trains a network into a run folder, or puts given weights there."""

from functools import partial

import jax
from jax.sharding import Mesh

from jnnk._core.errors import InputError
from jnnk.data import Dataset
from jnnk.jobs.networks import network_of
from jnnk.jobs.stopping import stopping
from jnnk.jobs.trainer import Recipe, Trainer
from jnnk.penalties import Regularizer, make_regularizer
from jnnk.runs.checkpoints import Checkpoints
from jnnk.runs.contents import train_config
from jnnk.runs.divergence import refuse_diverged
from jnnk.runs.folder import Run
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.settings import TrainConfig
from jnnk.training import Model, TrainState, init_state, make_evaluate, start_freezing, start_state


def train(
    run: Run,
    model: Model,
    dataset: Dataset,
    *,
    variables: dict | None = None,
    progress: Progress = SILENT,
    mesh: Mesh | None = None,
) -> TrainState:
    """The state after training as the run's config says, from its last checkpoint if there is one.

    Without a checkpoint it starts from ``variables``, if given. Results are the same on any mesh.

    Raises:
        InputError: if a batch does not divide over the mesh, if the regularizer is unknown or
            matches no layer, or if several processes are to stop early.
        ValueError: if a batch is larger than the training set.
        jnnk.runs.divergence.Diverged: see :func:`jnnk.jobs.fit.fit`.
    """
    config = train_config(run)
    if config.stop is not None and jax.process_count() > 1:
        raise InputError("--stop: one process alone can stop early, not several together")
    dataset, monitor = stopping(config.stop, model, dataset, patience=config.patience)
    evaluate = make_evaluate(model, normalization=dataset.normalization, mesh=mesh)
    trainer = Trainer(
        model, dataset, _recipe(config), evaluate=evaluate, regularizer=make_penalty(config)
    )
    return trainer.fit(
        partial(_start, model, dataset, config, variables),
        seed=config.seed,
        folder=run.path,
        keep=config.measure_epochs,
        progress=progress,
        description="train",
        remedy=_remedy(config),
        monitor=monitor,
        mesh=mesh,
    )


def load_state(run: Run, model: Model, dataset: Dataset, *, epoch: int | None = None) -> TrainState:
    """The state of a run at a kept epoch, by default the last one.

    Raises:
        InputError: if that checkpoint is missing or damaged, or the training diverged before it.
    """
    refuse_diverged(run.path, epoch=epoch)
    start = partial(_start, model, dataset, train_config(run), None)
    if epoch is None:
        epoch = kept_epochs(run)[-1]
    with Checkpoints(run.path / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(epoch, jax.eval_shape(start))


def require_trained(run: Run) -> None:
    """Refuses a run whose training has left no network, or diverged."""
    refuse_diverged(run.path)
    require_network(run)


def require_network(run: Run) -> None:
    """Refuses a run whose training has left no network."""
    kept_epochs(run)


def random_state(run: Run, model: Model, dataset: Dataset) -> TrainState:
    """A state with random weights drawn from the run's seed, whatever weights it started from."""
    return _start(model, dataset, train_config(run), None)


def kept_epochs(run: Run) -> list[int]:
    """The epochs whose checkpoints a run folder holds, ascending; refuses a run without any."""
    with Checkpoints(run.path / "checkpoints", read_only=True) as checkpoints:
        if not (epochs := checkpoints.epochs()):
            raise InputError(f"{run.path} holds no trained network yet; run jnnk train first")
        return epochs


def make_penalty(config: TrainConfig) -> Regularizer | None:
    """The regulariser of a training, or None."""
    if config.regularizer is None:
        return None
    return make_regularizer(
        config.regularizer, strength=config.regularizer_strength, layers=config.regularizer_layers
    )


def _recipe(config: TrainConfig) -> Recipe:
    # Stopping by channels freezes each by itself.
    return Recipe.of(config, freezes=config.stop == "channel-nnk")


def _start(
    model: Model, dataset: Dataset, config: TrainConfig, variables: dict | None
) -> TrainState:
    recipe, key = _recipe(config), jax.random.key(config.seed)
    optimizer = recipe.make_optimizer(dataset)
    if variables is not None:
        state = start_state(optimizer, key, variables)
    else:
        state = init_state(model, optimizer, key, image_shape=dataset.train_images.shape[1:])
    if not recipe.freezes:
        return state
    return start_freezing(state, network=network_of(model, dataset))


def _remedy(config: TrainConfig) -> str:
    """What to change in a training that diverged."""
    told = [f"a smaller --learning-rate than {config.learning_rate:g}"]
    if config.weight_decay > 1:  # a step of rate 1 takes more than the weights themselves
        told.append(f"a smaller --weight-decay than {config.weight_decay:g}")
    if config.l1:
        told.append(f"a smaller --l1 than {config.l1:g}")
    if config.regularizer is not None:
        told.append(f"a --regularizer-strength nearer to 0 than {config.regularizer_strength:g}")
    if config.std is not None or config.mean is not None:
        told.append("other --mean and --std")
    return " or ".join(told) + ", into another folder"
