"""``jnnk prune --protocol``: the paper's whole protocol, all criteria from one start, over seeds.

Every training and every criterion has its own folder below ``RUN/protocol/NAME``, so a run that was
stopped goes on where it was.
"""

import pathlib
from dataclasses import dataclass
from functools import partial

import jax

from jnnk._core.errors import InputError
from jnnk.data import Dataset
from jnnk.jobs.kernel_analysis import history
from jnnk.jobs.networks import told_network
from jnnk.jobs.train import load_state, require_trained
from jnnk.jobs.trainer import Recipe, Trainer
from jnnk.pruning import Threshold, make_masks, pruning_score, summarize
from jnnk.runs.checkpoints import Checkpoints
from jnnk.runs.contents import train_config
from jnnk.runs.divergence import read_result
from jnnk.runs.folder import Run
from jnnk.runs.json_files import write_json
from jnnk.runs.part_settings import note_or_check_settings
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.protocols import PAPER_NETWORKS, THRESHOLD_CRITERIA, ProtocolConfig
from jnnk.runs.records import (
    KernelHistory,
    ProtocolResult,
    Trial,
    TrialSummary,
    over_seeds,
)
from jnnk.runs.settings import spread_epochs
from jnnk.training import Model, TrainState, init_state, make_evaluate, start_state


def protocol(
    run: Run,
    model: Model,
    dataset: Dataset,
    name: str,
    config: ProtocolConfig,
    *,
    progress: Progress = SILENT,
) -> ProtocolResult:
    """Trains with L1, prunes by every criterion, retrains; does only what is not done yet.

    Results go to the run's ``protocol/NAME``. Another name may have other settings; seeds and
    criteria can be added later.

    Raises:
        InputError: for a criterion without a threshold, a batch larger than the training set, no
            trained network to go on from, or a folder with results of other settings.
    """
    folder = run.path / "protocol" / name
    unfit = sorted(set(config.criteria) - set(THRESHOLD_CRITERIA))
    if unfit or not config.criteria or not config.seeds:
        known = ", ".join(THRESHOLD_CRITERIA)
        raise InputError(f"criteria and seeds: expected some, of {known}, got {unfit or None}")
    if config.batch_size > len(dataset.train_images):
        raise InputError(
            f"protocol {name!r} has batches of {config.batch_size} images, {dataset.name} has "
            f"only {len(dataset.train_images)} to train on"
        )
    if not config.scratch:
        require_trained(run)
    note_or_check_settings(folder, config, free=("seeds", "criteria"))
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
        summary=over_seeds(TrialSummary, done, by=("criterion",)),
        history=trials.history(config.seeds[0]),
    )
    write_json(folder / "result.json", result)
    return result


@dataclass
class _Trials:
    """The parts of a protocol, each made once."""

    run: Run
    model: Model
    dataset: Dataset
    config: ProtocolConfig
    folder: pathlib.Path
    progress: Progress

    def __post_init__(self) -> None:
        model, dataset, config = self.model, self.dataset, self.config
        self._kept = spread_epochs(config.epochs)
        self._network = told_network(model, dataset, self.progress)
        self._given = None if config.scratch else load_state(self.run, model, dataset).variables
        recipe = Recipe.of(config, augment=train_config(self.run).augment)
        again = recipe._replace(epochs=config.retrain_epochs, l1=0.0)
        evaluate = make_evaluate(model, normalization=dataset.normalization)
        self._l1_trainer, self._trainer = (
            Trainer(model, dataset, each, evaluate=evaluate) for each in (recipe, again)
        )

    def l1_train(self, seed: int) -> TrainState:
        return self._l1_trainer.fit(
            partial(self._start, seed),
            seed=seed,
            folder=self._l1_folder(seed),
            keep=self._kept,
            progress=self.progress,
            description=f"L1 training, seed {seed}",
        )

    def prune_and_retrain(self, seed: int, trained: TrainState, criterion: str) -> Trial:
        folder = self.folder / f"seed{seed}" / criterion
        if (done := read_result(folder, Trial)) is not None:
            return done
        self.progress.check()
        masks = make_masks(
            trained.params,
            criterion=criterion,
            selection=Threshold(self.config.threshold),
            network=self._network,
        )
        # Dropout and augmentation draw other numbers than in the L1 training.
        key = jax.random.fold_in(jax.random.key(seed), 1)
        _, found = self._trainer.finetune(
            trained.variables,
            masks,
            key,
            seed=seed,
            folder=folder,
            progress=self.progress,
            description=f"retrain {criterion}, seed {seed}",
        )
        kept = summarize(trained.params, masks, network=self._network)
        trial = Trial(
            seed=seed,
            criterion=criterion,
            pruned=1 - kept.kernels[1] / kept.kernels[0],
            params=kept.params[1] / kept.params[0],
            accuracy_l1=found.accuracy_before,
            accuracy_pruned=found.accuracy_pruned,
            accuracy_retrained=found.accuracy_finetuned,
            score=pruning_score(
                found.accuracy_finetuned, found.accuracy_before, kept.params[1], kept.params[0]
            ),
            revived_weights=found.revived_weights,
        )
        write_json(folder / "result.json", trial)
        return trial

    def history(self, seed: int) -> tuple[KernelHistory, ...]:
        with Checkpoints(self._l1_folder(seed) / "checkpoints", keep=self._kept) as checkpoints:
            like = jax.eval_shape(partial(self._start, seed))
            params = {
                epoch: checkpoints.restore(epoch, like).params for epoch in checkpoints.epochs()
            }
        return history(
            params,
            self.config.criteria,
            network=self._network,
            threshold=self.config.threshold,
        )

    def _l1_folder(self, seed: int) -> pathlib.Path:
        return self.folder / f"seed{seed}" / "l1"

    def _start(self, seed: int) -> TrainState:
        key, optimizer = jax.random.key(seed), self._l1_trainer.optimizer
        if self._given is None:
            shape = self.dataset.train_images.shape[1:]
            return init_state(self.model, optimizer, key, image_shape=shape)
        return start_state(optimizer, key, self._given)
