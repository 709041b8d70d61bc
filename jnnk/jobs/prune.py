"""``jnnk prune``: scores the conv kernels of a run, sweeps how many can go, prunes, fine-tunes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from jnnk import pruning
from jnnk._core.errors import InputError
from jnnk.data import Dataset
from jnnk.jobs.criteria import TAYLOR, taylor
from jnnk.jobs.finetune import prune_and_finetune
from jnnk.jobs.fit import Evaluate
from jnnk.jobs.kernel_analysis import analyse, history
from jnnk.jobs.networks import told_network
from jnnk.jobs.train import kept_epochs, load_state, require_trained
from jnnk.jobs.trainer import masked
from jnnk.network import Network
from jnnk.runs.contents import train_config
from jnnk.runs.divergence import read_result
from jnnk.runs.folder import Run
from jnnk.runs.json_files import read_or_measure, write_json
from jnnk.runs.part_settings import note_or_check_settings
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import PruningResult, Sweep, SweepPoint
from jnnk.runs.settings import PruneConfig
from jnnk.training import Model, TrainState, make_evaluate

_TAYLOR_IMAGES = 1000  # of the training set, whose gradients are taken


def prune(
    run: Run, model: Model, dataset: Dataset, config: PruneConfig, *, progress: Progress = SILENT
) -> PruningResult:
    """Scores, sweeps, prunes and fine-tunes the trained network of a run, into its ``prune/``.

    Raises:
        InputError: if the folder holds a pruning made with other settings.
    """
    folder = run.path / "prune"
    require_trained(run)
    note_or_check_settings(folder, config)
    if (found := read_result(folder, PruningResult)) is not None:
        return found
    state = load_state(run, model, dataset)
    # The sweep is most of the work: its images should fill the batches.
    batch_size = min(500, config.sweep_images, len(dataset.test_images))
    evaluate = make_evaluate(model, normalization=dataset.normalization, batch_size=batch_size)
    network = told_network(model, dataset, progress)
    make = _mask_maker(run, model, state, dataset, config, network)
    swept = partial(_sweep, state.variables, dataset, evaluate, config, make, progress)
    sweep = read_or_measure(folder / "sweep.json", swept, kind=Sweep)
    if missing := [name for name in config.criteria if name not in sweep.criteria]:
        raise InputError(
            f"{folder / 'sweep.json'}: criteria: {', '.join(missing)} missing; delete it to make "
            "it anew"
        )
    share = config.share
    if share is None:
        share = sweep.largest_share(config.criterion, tolerance=config.tolerance)
    masks = make(config.criterion, share)
    pruned = prune_and_finetune(
        run, model, dataset, state.variables, masks, config,
        network=network, evaluate=evaluate, folder=folder, progress=progress,
    )  # fmt: skip
    compared = share or 0.5  # where nothing is pruned, half of the kernels
    # Criteria of the weights alone: Taylor scores depend on images, and have no unit of weights.
    criteria = [name for name in config.criteria if name in pruning.CRITERIA]
    params = {
        epoch: load_state(run, model, dataset, epoch=epoch).params for epoch in kept_epochs(run)
    }
    result = PruningResult(
        criterion=config.criterion,
        share_requested=share,
        sweep=sweep,
        pruned=pruned.accuracies,
        kept=pruned.kept,
        latency=pruned.latency,
        compared_share=compared,
        analysis=analyse(
            state.params, {name: make(name, compared) for name in criteria}, masks, network=network
        ),
        history=history(params, criteria, network=network),
    )
    write_json(folder / "result.json", result)
    return result


def _mask_maker(
    run: Run,
    model: Model,
    state: TrainState,
    dataset: Dataset,
    config: PruneConfig,
    network: Network,
) -> Callable[[str, float], Any]:
    """``(criterion, share) -> masks`` that prune a share of the kernels; Taylor is scored once."""
    scores, seed = {}, train_config(run).seed
    if TAYLOR in config.criteria:
        of_kernels = partial(pruning.taylor_scores, network=network)
        scores[TAYLOR] = taylor(of_kernels, model, state.variables, dataset, images=_TAYLOR_IMAGES)

    def make(criterion: str, share: float) -> Any:
        return pruning.make_masks(
            state.params,
            criterion=scores.get(criterion, criterion),
            keep_rate=1 - share,
            key=jax.random.key(seed) if criterion == "random" else None,
            network=network,
        )

    return make


def _sweep(
    variables: dict,
    dataset: Dataset,
    evaluate: Evaluate,
    config: PruneConfig,
    make: Callable[[str, float], Any],
    progress: Progress,
) -> Sweep:
    """Accuracy by criterion and share; ``make(criterion, share)`` makes the masks."""
    images = dataset.test_images[: config.sweep_images]
    labels = dataset.test_labels[: config.sweep_images]
    whole = evaluate(variables, images, labels)

    def point(criterion: str, share: float) -> SweepPoint:
        masks = make(criterion, share)
        accuracy = evaluate(masked(variables, masks), images, labels)
        all_params, kept_params = pruning.summarize(variables["params"], masks).params
        score = pruning.pruning_score(accuracy, whole, kept_params, all_params)
        return SweepPoint(share=share, accuracy=accuracy, params=kept_params, score=score)

    criteria: dict[str, tuple[SweepPoint, ...]] = {}
    total = len(config.criteria) * len(config.shares)
    with progress.task("prune: sweep", total=total, unit="mask") as task:
        for criterion in config.criteria:
            points = []
            for share in config.shares:
                points.append(point(criterion, share))
                task.advance(accuracy=points[-1].accuracy)
            criteria[criterion] = tuple(points)
    return Sweep(images=len(images), accuracy=whole, criteria=criteria)
