"""``jnnk prune``: scores the conv kernels of a run, sweeps how many can go, prunes, fine-tunes."""

import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

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
    largest_share,
    make_masks,
    pruning_score,
    summarize,
    taylor_scores,
)
from jnnk.runs.divergence import refuse_diverged
from jnnk.runs.folder import Run, read_json, require_settings, write_json
from jnnk.runs.mask_files import save_masks
from jnnk.runs.progress import Progress, Silent
from jnnk.runs.records import Pruning, Sweep, check_pruning, check_sweep
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
) -> dict[str, Any]:
    """Scores, sweeps, prunes and fine-tunes the trained network of a run.

    Args:
        run: a trained run folder; results go to its ``prune/``.
        model: the network named in its config.
        dataset: the data set named in its config.
        config: criteria, shares, fine-tuning.
        progress: shows how far it is.

    Returns:
        The record that ``prune/result.json`` holds: ``sweep`` (accuracy by criterion and share),
        ``pruned`` (the network in the end), ``kept`` (a :class:`jnnk.pruning.MaskSummary`),
        ``latency`` (of :func:`jnnk.jobs.latency.latency_gain`) and what
        :mod:`jnnk.jobs.kernel_analysis` makes of the kernels.

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
        return read_json(result_path, kind=Pruning, check=check_pruning)
    state = load_state(run, model, dataset)
    # The sweep is most of the work: its images should fill the batches.
    batch_size = min(500, config.sweep_images, len(dataset.test_images))
    evaluate = make_evaluate(model, normalization=dataset.normalization, batch_size=batch_size)
    make = partial(_masks, state.params, run=run, taylor=_taylor(model, state, dataset, config))

    sweep_path = folder / "sweep.json"
    if not sweep_path.exists():
        write_json(sweep_path, _sweep(state.variables, dataset, evaluate, config, make, progress))
    sweep = read_json(sweep_path, kind=Sweep, check=partial(check_sweep, criteria=config.criteria))

    share = config.share if config.share is not None else choose_share(sweep, config)
    masks = make(config.criterion, share)
    save_masks(folder / "masks.safetensors", masks)
    tuned, pruned = finetune(
        run, model, dataset, state.variables, masks, evaluate, folder=folder,
        epochs=config.finetune_epochs, learning_rate=config.finetune_learning_rate,
        progress=progress,
    )  # fmt: skip
    progress.check()
    record = {
        "criterion": config.criterion,
        "share_requested": share,
        "sweep": sweep,
        "pruned": {
            "accuracy_before": evaluate(state.variables, dataset.test_images, dataset.test_labels),
            **pruned,
            "revived_weights": count_revived(tuned.params, tuned.masks),
        },
        "kept": summarize(state.params, masks, output_sizes=_output_sizes(model, state, dataset)),
        "latency": latency_gain(model, tuned.variables, masks, dataset),
        **_analysis(run, model, dataset, state.params, masks, share, config, make),
    }
    write_json(result_path, record)
    return record


def choose_share(sweep: dict[str, Any], config: PruneConfig) -> float:
    """The largest swept share up to which the criterion never loses more than the tolerance."""
    points = sweep["criteria"][config.criterion]
    return largest_share(points, sweep["accuracy"], tolerance=config.tolerance)


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


def _output_sizes(model: Model, state: TrainState, dataset: Dataset) -> dict:
    image = jax.ShapeDtypeStruct((1, *dataset.train_images.shape[1:]), np.float32)
    return conv_output_sizes(model, state.variables, image)


def _analysis(
    run: Run,
    model: Model,
    dataset: Dataset,
    params: Any,
    masks: Any,
    share: float,
    config: PruneConfig,
    make: Callable[[str, float], Any],
) -> dict[str, Any]:
    """What the criteria say, compared at the share pruned (half of the kernels where that is 0).

    Those of the weights alone: Taylor scores depend on images, and have no unit of weights.
    """
    compared = share or 0.5
    criteria = [name for name in config.criteria if name in CRITERIA]
    others = {name: make(name, compared) for name in criteria}
    epochs = {
        epoch: load_state(run, model, dataset, epoch=epoch).params for epoch in kept_epochs(run)
    }
    return {
        "compared_share": compared,
        **analyse(params, others, masks),
        "history": history(epochs, criteria),
    }


def _sweep(
    variables, dataset, evaluate, config: PruneConfig, make: Callable, progress: Progress
) -> dict:
    images = dataset.test_images[: config.sweep_images]
    labels = dataset.test_labels[: config.sweep_images]
    criteria: dict[str, list] = {}
    whole = evaluate(variables, images, labels)
    total = len(config.criteria) * len(config.shares)
    with progress.task("prune: sweep", total=total, unit="mask") as task:
        for criterion in config.criteria:
            criteria[criterion] = []
            for share in config.shares:
                masks = make(criterion, share)
                params = apply_masks(variables["params"], masks)
                accuracy = evaluate({**variables, "params": params}, images, labels)
                all_params, kept = summarize(params, masks).params
                score = pruning_score(accuracy, whole, kept, all_params)
                criteria[criterion].append(
                    {"share": share, "accuracy": accuracy, "params": kept, "score": score}
                )
                task.advance(accuracy=accuracy)
    return {
        "images": len(images),
        "accuracy": whole,
        "criteria": criteria,
    }


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
) -> tuple[TrainState, dict[str, Any]]:
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
        The last state, and ``accuracy_pruned``, ``accuracy_finetuned``, ``finetune_epochs``.
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
    accuracy = evaluate({**variables, "params": params}, dataset.test_images, dataset.test_labels)
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
    return state, {
        "accuracy_pruned": accuracy,
        "accuracy_finetuned": evaluate(state.variables, dataset.test_images, dataset.test_labels),
        "finetune_epochs": epochs,
    }


def count_revived(params: Any, masks: Any) -> int:
    """How many pruned weights are not exactly zero; 0 unless something is wrong."""
    params, masks = jax.tree.map(np.asarray, (params, masks))  # they may lie on different devices
    revived = jax.tree.map(lambda leaf, mask: ((leaf != 0) & (mask == 0)).sum(), params, masks)
    return int(sum(jax.tree.leaves(revived)))
