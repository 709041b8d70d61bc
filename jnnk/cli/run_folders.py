"""The run folder that a command makes or opens, with the network and data that belong to it."""

import argparse
import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jax.sharding import Mesh

from jnnk.cli import configs
from jnnk.cli.networks import load
from jnnk.cli.own_networks import require_named
from jnnk.data import Dataset, from_anywhere
from jnnk.parallel import is_first, local_rows, parse_mesh, whole_mesh
from jnnk.parallel._mesh import DATA
from jnnk.runs.cores import note_cores
from jnnk.runs.data_record import check_data, record_data
from jnnk.runs.folder import Run, create_run, locked, open_run, refuse_occupied, remove_parts
from jnnk.runs.network_record import NetworkRecord, check_network, record_network
from jnnk.runs.progress import Progress
from jnnk.runs.settings import ChannelConfig, OverlapConfig, TrainConfig
from jnnk.training import Model


class Prepared(NamedTuple):
    """What a training needs, all of it looked at before there is a folder.

    Attributes:
        config: settings that fit the data.
        model: the network.
        dataset: what it is trained on.
        variables: weights to start from; None for random ones.
        notes: a sentence for every setting that had to be fitted.
        record: of a network of a person's own; None for those of jnnk.
    """

    config: TrainConfig
    model: Model
    dataset: Dataset
    variables: dict[str, Any] | None
    notes: tuple[str, ...]
    record: NetworkRecord | None


class Opened(NamedTuple):
    """A run folder that is worked on.

    Attributes:
        run: the folder.
        model: its network.
        dataset: its data set.
    """

    run: Run
    model: Model
    dataset: Dataset


def prepare_training(
    args: argparse.Namespace, config: TrainConfig, progress: Progress, *, mesh: Mesh | None = None
) -> Prepared:
    """Loads what a training needs, and refuses all that can be refused before there is a folder.

    Args:
        args: what was typed.
        config: how to train.
        progress: hears of places that only the folder names.
        mesh: devices that share the batches; None for one.
    """
    from jnnk.jobs.checks import check_memory, check_training, fit_training

    refuse_occupied(args.out, resume=args.resume)
    if args.resume:
        _tell_places(config, args, progress)
    model, dataset, variables, record = load(config, given=args.model)
    shards = 1 if mesh is None else mesh.shape.get(DATA, 1)
    config, notes = fit_training(config, dataset, typed=configs.typed(args), shards=shards)
    if mesh is not None:
        local_rows(config.batch_size, mesh)
    check_memory(config, model, dataset)
    check_training(config, model, dataset)
    return Prepared(config, model, dataset, variables, notes, record)


@contextlib.contextmanager
def made_run(args: argparse.Namespace, prepared: Prepared, progress: Progress) -> Iterator[Run]:
    """The run folder, locked; gone again where an error comes before the first epoch is done.

    Args:
        args: what was typed; ``out`` is the folder, which ``resume`` goes on with.
        prepared: its settings, network and data.
        progress: hears who else holds the lock, what had to be fitted and what has changed.
    """
    config, dataset = prepared.config, prepared.dataset
    is_new = not (args.out / "config.json").exists()
    if not is_new and (found := open_run(args.out)).data is not None:
        config = config._replace(data_dir=found.config.get("data_dir"))  # moved: their note tells
    with locked(args.out, say=progress.note):
        run = create_run(args.out, config._asdict(), resume=args.resume)
        try:
            note_cores(run, progress)
            if prepared.record is not None:
                tell(record_network(run.path, prepared.record), progress)
            run = record_data(run, dataset, command=args.command)
            tell(prepared.notes, progress)
            yield run
        except OSError:
            raise  # a full disk: the same command goes on
        except Exception:
            if is_new and is_first() and not (run.path / "metrics.jsonl").exists():
                remove_parts(run.path)
            raise


@contextlib.contextmanager
def opened_run(
    args: argparse.Namespace, progress: Progress, *, writes: bool = True
) -> Iterator[Opened]:
    """The run folder that an analysis works on, locked, with its network and data set.

    Args:
        args: what was typed; ``run`` is the folder.
        progress: hears of places that only the folder names.
        writes: whether results go into the folder.
    """
    from jnnk.jobs.train import require_network
    from jnnk.runs.contents import train_config

    run = open_run(args.run)
    config = train_config(run)._replace(weights=None)
    require_named(config.model, args.model)
    _tell_places(config, args, progress)
    if args.data_dir is not None:
        config = config._replace(data_dir=args.data_dir)
    with locked(run.path, shared=not writes, say=progress.note):
        model, dataset, _, record = load(config, given=args.model)
        require_network(run)
        if record is not None:
            note = record_network if writes else check_network
            tell(note(run.path, record), progress)
        if writes:
            note_cores(run, progress)
            run = record_data(run, dataset, command=args.command)
        else:
            check_data(run, dataset)
        yield Opened(run, model, dataset)


def fit_graphs(
    config: OverlapConfig | ChannelConfig,
    args: argparse.Namespace,
    folder: pathlib.Path,
    dataset: Dataset,
) -> tuple[Any, tuple[str, ...]]:
    """The settings of graphs, fitted to the number of images, and what had to be.

    Args:
        config: the settings.
        args: what was typed, which is not changed.
        folder: of the results; what they were made with is not changed either.
        dataset: whose images they are of.
    """
    from jnnk.jobs import checks

    found = configs.recorded(folder / "settings.json", type(config), args)
    return checks.fit_graphs(config, dataset, typed=configs.typed(args), found=found)


def chosen_mesh(args: argparse.Namespace) -> Mesh | None:
    """The devices that ``--mesh`` and ``--distributed`` ask for; None for one device's work.

    Args:
        args: what was typed.
    """
    if args.distributed:
        return whole_mesh(args.mesh)
    return None if args.mesh is None else parse_mesh(args.mesh)


def tell(notes: Sequence[str], progress: Progress) -> None:
    """Says sentences beside the progress.

    Args:
        notes: the sentences.
        progress: where.
    """
    for note in notes:
        progress.note(note)


def _tell_places(config: TrainConfig, args: argparse.Namespace, progress: Progress) -> None:
    """Says which places outside of a run folder the folder alone names, before they are opened."""
    given = {name: getattr(args, name, None) for name in ("dataset", "data_dir", "weights")}
    if given["dataset"] is not None:
        _, given["data_dir"] = from_anywhere(given["dataset"], data_dir=given["data_dir"])
    for name, what in (("data_dir", f"the data set {config.dataset}"), ("weights", "weights")):
        place = getattr(config, name)
        if place is not None and given[name] is None:
            progress.note(f"reads {what} in {place}, which the run folder names")
