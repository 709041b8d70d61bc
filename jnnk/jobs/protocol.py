"""``jnnk prune --protocol``: the paper's whole protocol, all criteria from one start, over seeds.

Every training and every criterion has its own folder below ``RUN/protocol/NAME``, so a run that was
stopped goes on where it was.
"""

import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from jnnk._core.errors import InputError
from jnnk.data import Dataset
from jnnk.jobs.fit import fit
from jnnk.jobs.kernel_analysis import history
from jnnk.jobs.prune import count_revived
from jnnk.jobs.train import load_state, mirrors, require_trained, train_config
from jnnk.pruning import Threshold, apply_masks, make_masks, pruning_score, summarize
from jnnk.runs.checkpoints import Checkpoints
from jnnk.runs.divergence import refuse_diverged
from jnnk.runs.folder import Run, read_json, require_settings, write_json
from jnnk.runs.progress import Progress, Silent
from jnnk.runs.protocols import PAPER_NETWORKS, THRESHOLD_CRITERIA, ProtocolConfig
from jnnk.runs.records import KernelHistory, ProtocolResult, Trial, TrialSummary, spread
from jnnk.runs.settings import spread_epochs
from jnnk.training import (
    Model,
    TrainState,
    init_state,
    make_evaluate,
    make_optimizer,
    make_train_step,
    start_state,
)


def protocol(
    run: Run,
    model: Model,
    dataset: Dataset,
    name: str,
    config: ProtocolConfig,
    *,
    progress: Progress | None = None,
) -> ProtocolResult:
    """Trains with L1, prunes by every criterion, retrains; does only what is not done yet.

    Args:
        run: the run folder; results go to its ``protocol/NAME``.
        model: the network named in its config.
        dataset: the data set named in its config.
        name: of the protocol; another name may have other settings.
        config: the settings. Seeds and criteria can be added later.
        progress: shows how far it is.

    Returns:
        What ``protocol/NAME/result.json`` holds.

    Raises:
        InputError: for a criterion without a threshold, a batch larger than the training set, no
            trained network to go on from, or a folder with results of other settings.
    """
    progress = progress or Silent()
    folder = run.path / "protocol" / name
    unfit = sorted(set(config.criteria) - set(THRESHOLD_CRITERIA))
    if unfit or not config.criteria or not config.seeds:
        known = ", ".join(THRESHOLD_CRITERIA)
        raise InputError(f"a protocol needs seeds and criteria among {known}; got {unfit or None}")
    if config.batch_size > len(dataset.train_images):
        raise InputError(
            f"protocol {name!r} has batches of {config.batch_size} images, {dataset.name} has "
            f"only {len(dataset.train_images)} to train on"
        )
    if not config.scratch:
        require_trained(run)
    require_settings(folder, config, free=("seeds", "criteria"))
    trials = _Trials(run, model, dataset, config, folder, progress)
    done = []
    for seed in config.seeds:
        trained = trials.l1_train(seed)
        done += [trials.prune_and_retrain(seed, trained, each) for each in config.criteria]
    settings = train_config(run)
    result = ProtocolResult(
        settings=config,
        in_paper=(settings.model, settings.dataset, name) in PAPER_NETWORKS,
        trials=tuple(done),
        summary=summarize_trials(done),
        history=trials.history(config.seeds[0]),
    )
    write_json(folder / "result.json", result)
    return result


def summarize_trials(trials: Sequence[Trial]) -> tuple[TrialSummary, ...]:
    """Mean and standard deviation over seeds, a record a criterion.

    Args:
        trials: a seed and criterion each.
    """
    summary = []
    for criterion in dict.fromkeys(trial.criterion for trial in trials):
        rows = [trial for trial in trials if trial.criterion == criterion]
        summary.append(
            TrialSummary(
                criterion=criterion,
                seeds=len(rows),
                pruned=spread([row.pruned for row in rows]),
                accuracy_l1=spread([row.accuracy_l1 for row in rows]),
                accuracy_pruned=spread([row.accuracy_pruned for row in rows]),
                accuracy_retrained=spread([row.accuracy_retrained for row in rows]),
                score=spread([row.score for row in rows]),
            )
        )
    return tuple(summary)


class _Trials:
    """The parts of a protocol, each made once."""

    def __init__(
        self,
        run: Run,
        model: Model,
        dataset: Dataset,
        config: ProtocolConfig,
        folder: pathlib.Path,
        progress: Progress,
    ):
        self._run, self._model, self._dataset = run, model, dataset
        self._config, self._folder, self._progress = config, folder, progress
        self._evaluate = make_evaluate(model, normalization=dataset.normalization)
        self._kept = spread_epochs(config.epochs)
        self._given = None if config.scratch else load_state(run, model, dataset).variables
        # One program each for all seeds and criteria: a new mask never recompiles.
        self._l1_optimizer, self._l1_step = self._make_step(config.epochs, config.l1)
        self._optimizer, self._step = self._make_step(config.retrain_epochs, 0.0)

    def l1_train(self, seed: int) -> TrainState:
        return self._fit(
            partial(self._start, seed),
            self._l1_step,
            epochs=self._config.epochs,
            seed=seed,
            folder=self._l1_folder(seed),
            keep=self._kept,
            description=f"L1 training, seed {seed}",
        )

    def prune_and_retrain(self, seed: int, trained: TrainState, criterion: str) -> Trial:
        folder = self._folder / f"seed{seed}" / criterion
        path = folder / "result.json"
        if path.exists():
            refuse_diverged(folder)
            return read_json(path, kind=Trial)
        self._progress.check()
        dataset = self._dataset
        masks = make_masks(
            trained.params, criterion=criterion, selection=Threshold(self._config.threshold)
        )
        params = apply_masks(trained.params, masks)
        accuracies = [
            self._evaluate(variables, dataset.test_images, dataset.test_labels)
            for variables in (trained.variables, {**trained.variables, "params": params})
        ]
        # Dropout and augmentation draw other numbers than in the L1 training.
        key = jax.random.fold_in(jax.random.key(seed), 1)
        state = self._fit(
            partial(start_state, self._optimizer, key, trained.variables, masks=masks),
            self._step,
            epochs=self._config.retrain_epochs,
            seed=seed,
            folder=folder,
            description=f"retrain {criterion}, seed {seed}",
        )
        retrained = self._evaluate(state.variables, dataset.test_images, dataset.test_labels)
        kept = summarize(trained.params, masks)
        trial = Trial(
            seed=seed,
            criterion=criterion,
            pruned=1 - kept.kernels[1] / kept.kernels[0],
            params=kept.params[1] / kept.params[0],
            accuracy_l1=accuracies[0],
            accuracy_pruned=accuracies[1],
            accuracy_retrained=retrained,
            score=pruning_score(retrained, accuracies[0], kept.params[1], kept.params[0]),
            revived_weights=count_revived(state.params, state.masks),
        )
        write_json(path, trial)
        return trial

    def history(self, seed: int) -> tuple[KernelHistory, ...]:
        with Checkpoints(self._l1_folder(seed) / "checkpoints", keep=self._kept) as checkpoints:
            like = jax.eval_shape(partial(self._start, seed))
            params = {
                epoch: checkpoints.restore(epoch, like).params for epoch in checkpoints.epochs()
            }
        return history(params, self._config.criteria, threshold=self._config.threshold)

    def _l1_folder(self, seed: int) -> pathlib.Path:
        return self._folder / f"seed{seed}" / "l1"

    def _start(self, seed: int) -> TrainState:
        key = jax.random.key(seed)
        if self._given is None:
            shape = self._dataset.train_images.shape[1:]
            return init_state(self._model, self._l1_optimizer, key, image_shape=shape)
        return start_state(self._l1_optimizer, key, self._given)

    def _make_step(self, epochs: int, l1: float):
        config, dataset = self._config, self._dataset
        optimizer = make_optimizer(
            config.optimizer,
            learning_rate=config.learning_rate,
            num_steps=epochs * (len(dataset.train_images) // config.batch_size),
        )
        step = make_train_step(
            self._model,
            optimizer,
            normalization=dataset.normalization,
            augment=train_config(self._run).augment,
            flip=mirrors(dataset),
            l1=l1,
        )
        return optimizer, step

    def _fit(self, start: Callable[[], TrainState], step: Any, **options: Any) -> TrainState:
        return fit(
            start,
            step,
            self._dataset,
            evaluate=self._evaluate,
            batch_size=self._config.batch_size,
            progress=self._progress,
            **options,
        )
