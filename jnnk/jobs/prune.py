"""``jnnk prune``: scores the conv kernels of a run, sweeps how many can go, prunes, fine-tunes."""

import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from jnnk._core.errors import InputError
from jnnk.data import Dataset
from jnnk.jobs.fit import fit
from jnnk.jobs.kernel_analysis import analyse, history
from jnnk.jobs.latency import latency_gain
from jnnk.jobs.taylor import training_loss
from jnnk.jobs.train import kept_epochs, load_state, mirrors, require_trained, train_config
from jnnk.pruning import (
    CRITERIA,
    apply_masks,
    conv_output_sizes,
    make_masks,
    pruning_score,
    summarize,
    taylor_scores,
)
from jnnk.runs.divergence import refuse_diverged
from jnnk.runs.folder import Run, read_json, require_settings, write_json
from jnnk.runs.mask_files import save_masks
from jnnk.runs.progress import Progress, Silent
from jnnk.runs.records import FineTuned, PruningResult, Sweep, SweepPoint
from jnnk.runs.settings import PruneConfig
from jnnk.training import (
    Model,
    TrainState,
    make_evaluate,
    make_optimizer,
    make_train_step,
    start_state,
)

TAYLOR = "taylor"
_TAYLOR_IMAGES = 1000  # of the training set, whose gradients are taken


def prune(
    run: Run,
    model: Model,
    dataset: Dataset,
    config: PruneConfig,
    *,
    progress: Progress | None = None,
) -> PruningResult:
    """Scores, sweeps, prunes and fine-tunes the trained network of a run.

    Args:
        run: a trained run folder; results go to its ``prune/``.
        model: the network named in its config.
        dataset: the data set named in its config.
        config: criteria, shares, fine-tuning.
        progress: shows how far it is.

    Returns:
        What ``prune/result.json`` holds.

    Raises:
        InputError: if the folder holds a pruning made with other settings.
    """
    progress = progress or Silent()
    folder = run.path / "prune"
    require_trained(run)
    require_settings(folder, config)
    result_path = folder / "result.json"
    if result_path.exists():
        refuse_diverged(folder)
        return read_json(result_path, kind=PruningResult)
    state = load_state(run, model, dataset)
    # The sweep is most of the work: its images should fill the batches.
    batch_size = min(500, config.sweep_images, len(dataset.test_images))
    evaluate = make_evaluate(model, normalization=dataset.normalization, batch_size=batch_size)
    make = partial(_masks, state.params, run=run, taylor=_taylor(model, state, dataset, config))

    sweep_path = folder / "sweep.json"
    if not sweep_path.exists():
        write_json(sweep_path, _sweep(state.variables, dataset, evaluate, config, make, progress))
    sweep = read_json(sweep_path, kind=Sweep)
    if missing := [name for name in config.criteria if name not in sweep.criteria]:
        raise InputError(
            f"{sweep_path}: criteria: {', '.join(missing)} missing; delete it to make it anew"
        )
    share = config.share
    if share is None:
        share = sweep.largest_share(config.criterion, tolerance=config.tolerance)
    masks = make(config.criterion, share)
    save_masks(folder / "masks.safetensors", masks)
    tuned, pruned = finetune(
        run, model, dataset, state.variables, masks, evaluate, folder=folder,
        epochs=config.finetune_epochs, learning_rate=config.finetune_learning_rate,
        progress=progress,
    )  # fmt: skip
    progress.check()
    compared = share or 0.5  # where nothing is pruned, half of the kernels
    # Criteria of the weights alone: Taylor scores depend on images, and have no unit of weights.
    criteria = [name for name in config.criteria if name in CRITERIA]
    result = PruningResult(
        criterion=config.criterion,
        share_requested=share,
        sweep=sweep,
        pruned=pruned,
        kept=summarize(
            state.params, masks, output_sizes=output_sizes(model, state.variables, dataset)
        ),
        latency=latency_gain(model, tuned.variables, masks, dataset),
        compared_share=compared,
        analysis=analyse(state.params, {name: make(name, compared) for name in criteria}, masks),
        history=history(_params_by_epoch(run, model, dataset), criteria),
    )
    write_json(result_path, result)
    return result


def _params_by_epoch(run: Run, model: Model, dataset: Dataset) -> dict[int, Any]:
    """The parameters of every epoch kept, ascending."""
    return {
        epoch: load_state(run, model, dataset, epoch=epoch).params for epoch in kept_epochs(run)
    }


def _masks(params: Any, criterion: str, share: float, *, run: Run, taylor: Any) -> Any:
    key = jax.random.key(train_config(run).seed) if criterion == "random" else None
    scores = taylor if criterion == TAYLOR else criterion
    return make_masks(params, criterion=scores, keep_rate=1 - share, key=key)


def _taylor(model: Model, state: TrainState, dataset: Dataset, config: PruneConfig) -> Any:
    """Taylor scores of the kernels, if the pruning asks for them."""
    if TAYLOR not in config.criteria:
        return None
    loss, batches = training_loss(model, state.variables, dataset, images=_TAYLOR_IMAGES)
    return jax.jit(partial(taylor_scores, loss))(state.params, batches)


def output_sizes(model: Model, variables: dict, dataset: Dataset) -> dict[str, Any]:
    """The sizes of every convolution's outputs for an image of a data set.

    Args:
        model: the network.
        variables: its variables.
        dataset: the images that it is for.

    Returns:
        As `jnnk.pruning.conv_output_sizes` gives them.
    """
    image = jax.ShapeDtypeStruct((1, *dataset.train_images.shape[1:]), np.float32)
    return conv_output_sizes(model, variables, image)


def _sweep(
    variables: dict,
    dataset: Dataset,
    evaluate: Callable[[dict, np.ndarray, np.ndarray], float],
    config: PruneConfig,
    make: Callable[[str, float], Any],
    progress: Progress,
) -> Sweep:
    images = dataset.test_images[: config.sweep_images]
    labels = dataset.test_labels[: config.sweep_images]
    criteria = {}
    whole = evaluate(variables, images, labels)
    total = len(config.criteria) * len(config.shares)
    with progress.task("prune: sweep", total=total, unit="mask") as task:
        for criterion in config.criteria:
            points = []
            for share in config.shares:
                masks = make(criterion, share)
                params = apply_masks(variables["params"], masks)
                accuracy = evaluate({**variables, "params": params}, images, labels)
                all_params, kept = summarize(params, masks).params
                score = pruning_score(accuracy, whole, kept, all_params)
                points.append(SweepPoint(share=share, accuracy=accuracy, params=kept, score=score))
                task.advance(accuracy=accuracy)
            criteria[criterion] = tuple(points)
    return Sweep(images=len(images), accuracy=whole, criteria=criteria)


def finetune(
    run: Run,
    model: Model,
    dataset: Dataset,
    variables: dict,
    masks: Any,
    evaluate: Callable[[dict, np.ndarray, np.ndarray], float],
    *,
    folder: pathlib.Path,
    epochs: int | None,
    learning_rate: float,
    progress: Progress,
) -> tuple[TrainState, FineTuned]:
    """Trains under a mask, as the run's config trains but for what is given here.

    Args:
        run: the run folder.
        model: the network named in its config.
        dataset: the data set named in its config.
        variables: the trained network.
        masks: what is pruned.
        evaluate: from :func:`jnnk.training.make_evaluate`.
        folder: gets checkpoints and metrics.
        epochs: None takes a tenth of the training's, at least one.
        learning_rate: peak rate.
        progress: shows how far it is.

    Returns:
        The last state, and the accuracies before and after.
    """
    settings = train_config(run)
    if epochs is None:
        epochs = max(settings.epochs // 10, 1)
    num_steps = epochs * (len(dataset.train_images) // settings.batch_size)
    optimizer = make_optimizer(
        settings.optimizer,
        learning_rate=learning_rate,
        num_steps=num_steps,
        weight_decay=settings.weight_decay,
    )
    key = jax.random.key(settings.seed + 1)
    params = apply_masks(variables["params"], masks)

    def accuracy(variables: dict) -> float:
        return evaluate(variables, dataset.test_images, dataset.test_labels)

    before, pruned = accuracy(variables), accuracy({**variables, "params": params})
    state = fit(
        partial(start_state, optimizer, key, variables, masks=masks),
        make_train_step(
            model,
            optimizer,
            normalization=dataset.normalization,
            augment=settings.augment,
            flip=mirrors(dataset),
        ),
        dataset,
        evaluate=evaluate,
        epochs=epochs,
        batch_size=settings.batch_size,
        seed=settings.seed + 1,
        folder=folder,
        progress=progress,
        description="fine-tune",
        remedy=f"a smaller --finetune-learning-rate than {learning_rate:g}, {folder} deleted",
    )
    return state, FineTuned(
        accuracy_before=before,
        accuracy_pruned=pruned,
        accuracy_finetuned=accuracy(state.variables),
        finetune_epochs=epochs,
        revived_weights=count_revived(state.params, state.masks),
    )


def count_revived(params: Any, masks: Any) -> int:
    """How many pruned weights are not exactly zero; 0 unless something is wrong."""
    params, masks = jax.tree.map(np.asarray, (params, masks))  # they may lie on different devices
    revived = jax.tree.map(lambda leaf, mask: ((leaf != 0) & (mask == 0)).sum(), params, masks)
    return int(sum(jax.tree.leaves(revived)))
