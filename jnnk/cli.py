"""The command line: the one module that prints, and the one that joins models and library.

Exit codes: 0 done, 2 bad input (one line says what), 130 stopped by Ctrl-C.
"""

import argparse
import ast
import contextlib
import functools
import logging
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import rich.progress
import rich.table
from rich.console import Console
from rich.markup import escape

from jnnk import options
from jnnk.errors import InputError
from jnnk.jobs.config import TrainConfig
from jnnk.jobs.progress import Silent

# Does what is left of a reproduction and returns the table to show.
_Reproduction = Callable[..., list[dict]]

_PLAN_WIDTH = 140  # characters that a plan needs, however wide the terminal is
_out = Console()
_err = Console(stderr=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments, ``sys.argv[1:]`` by default.

    Returns:
        The exit code.
    """
    args = options.parser().parse_args(argv)
    # Orbax and TFDS log through absl what our own messages say better.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        _COMMANDS[args.command](args)
    except KeyboardInterrupt:
        _err.print("stopped; the same command with --resume goes on from what is done")
        return 130
    except InputError as error:
        _err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        return 2
    return 0


def _study(args: argparse.Namespace) -> None:
    from jnnk.jobs.study import study
    from jnnk.runs import create_run, locked, require_settings

    train_config = options.train_config(args)
    overlap_config = options.overlap_config(args, args.out)
    prune_config = options.prune_config(args, args.out)
    model, dataset, variables = _load(train_config)
    with locked(args.out):
        run = create_run(args.out, train_config._asdict(), resume=args.resume)
        require_settings(run.path / "overlap", overlap_config)
        require_settings(run.path / "prune", prune_config)
        path = study(
            run,
            model,
            dataset,
            overlap_config=overlap_config,
            prune_config=prune_config,
            variables=variables,
            progress=_progress(),
        )
        _show_summary(run)
    _say_where(path)


def _train(args: argparse.Namespace) -> None:
    from jnnk.jobs.train import train
    from jnnk.placement import local_rows
    from jnnk.runs import create_run, locked
    from jnnk.training import make_evaluate

    config = options.train_config(args)
    mesh = _mesh(args)
    if mesh is not None:
        local_rows(config.batch_size, mesh)  # before the folder: bad input should leave none
    model, dataset, variables = _load(config)
    with locked(args.out):
        run = create_run(args.out, config._asdict(), resume=args.resume)
        state = train(run, model, dataset, variables=variables, progress=_progress(), mesh=mesh)
    evaluate = make_evaluate(model, mean=dataset.mean, std=dataset.std, mesh=mesh)
    accuracy = evaluate(state.variables, dataset.test_images, dataset.test_labels)
    _out.print(f"test accuracy: {100 * accuracy:.2f} %\nrun folder: {escape(str(run.path))}")


def _import_weights(args: argparse.Namespace) -> None:
    """Puts given weights into a run folder: a training of zero epochs that starts from them."""
    args.epochs, args.measure_epochs, args.resume = 0, (0,), False
    args.mesh, args.distributed = None, False
    args.weights = str(pathlib.Path(args.weights).absolute())
    _train(args)


def _overlap(args: argparse.Namespace) -> None:
    from jnnk.jobs.overlap import overlap
    from jnnk.jobs.overlap_plan import layer_records, plan_overlap, summary

    mesh = _mesh(args)
    with _opened(args) as (run, model, dataset):
        config = options.overlap_config(args, run.path)
        if args.plan:
            plan = plan_overlap(run, model, dataset, config, mesh=mesh)
            _show_table(layer_records(plan), width=_PLAN_WIDTH)
            _out.print(summary(plan), soft_wrap=True, highlight=False)
            return
        overlap(
            run,
            model,
            dataset,
            config,
            channels=options.chosen_channels(args),
            progress=_progress(),
            mesh=mesh,
        )
        _report_on(run)


def _mesh(args: argparse.Namespace):
    """The devices that ``--mesh`` and ``--distributed`` ask for; None for one device's work."""
    from jnnk.processes import is_first, join_processes
    from jnnk.sharding import parse_mesh, whole_mesh

    if args.distributed:
        join_processes()  # before anything else asks for a device
        _out.quiet = not is_first()
        return whole_mesh(args.mesh)
    return None if args.mesh is None else parse_mesh(args.mesh)


def _prune(args: argparse.Namespace) -> None:
    from jnnk.jobs.protocol import protocol
    from jnnk.jobs.prune import prune
    from jnnk.jobs.prune_channels import prune_channels

    with _opened(args) as (run, model, dataset):
        if args.channels is not None:
            config = options.channel_config(args, run.path)
            record = prune_channels(run, model, dataset, config, progress=_progress())
            _show_table([{k: v for k, v in record.items() if not isinstance(v, dict)}])
            return
        if args.protocol is None:
            prune(run, model, dataset, options.prune_config(args, run.path), progress=_progress())
        else:
            config = options.protocol_config(args)
            protocol(run, model, dataset, args.protocol, config, progress=_progress())
        _report_on(run)


def _report(args: argparse.Namespace) -> None:
    from jnnk.runs import locked, open_run

    run = open_run(args.run)
    with locked(run.path):
        _report_on(run)


def _reproduce(args: argparse.Namespace) -> None:
    from jnnk.runs import locked

    job = _REPRODUCTIONS[args.claim](args)  # before the folder: bad input should leave none
    with locked(args.out):
        _show_table(job(progress=_progress()))
    _say_where(args.out)


def _reproduce_pruning(args: argparse.Namespace) -> _Reproduction:
    from jnnk.jobs.reproduce_pruning import reproduce_pruning, summary_table

    networks, dataset = _public_networks(args)
    return lambda progress: summary_table(
        reproduce_pruning(args.out, networks, dataset, progress=progress)
    )


def _reproduce_regularizer(args: argparse.Namespace) -> _Reproduction:
    from jnnk.jobs.reproduce_regularizer import reproduce_regularizer

    model, dataset, _ = _load(_shared(args)._replace(dataset="fashion_mnist", model="resnet8"))
    return functools.partial(reproduce_regularizer, args.out, model, dataset)


def _reproduce_early_stopping(args: argparse.Namespace) -> _Reproduction:
    from jnnk import models
    from jnnk.data import only_classes
    from jnnk.jobs.reproduce_early_stopping import CLASSES, reproduce_early_stopping

    _, dataset, _ = _load(_shared(args))
    dataset = only_classes(dataset, CLASSES)
    model = models.create("convnet5", num_classes=len(CLASSES))
    return functools.partial(reproduce_early_stopping, args.out, model, dataset)


def _shared(args: argparse.Namespace) -> TrainConfig:
    return TrainConfig(dataset="cifar10", data_dir=str(args.shared / "tfds"))


def _reproduce_channel_pruning(args: argparse.Namespace) -> _Reproduction:
    from jnnk.jobs.reproduce_channel_pruning import reproduce_channel_pruning

    return functools.partial(reproduce_channel_pruning, args.out, *_public_networks(args))


def _public_networks(args: argparse.Namespace) -> tuple:
    """The CIFAR ResNets with their published weights, and CIFAR-10."""
    from jnnk.jobs.reproduce_pruning import Network

    networks = []
    for name in ("resnet20", "resnet32"):
        weights = args.shared / "weights" / f"{name}_cifar10.safetensors"
        config = _shared(args)._replace(model=name, weights=str(weights))
        model, dataset, variables = _load(config)
        networks.append(Network(name, model, variables))
    return networks, dataset


def _reproduce_overlap(args: argparse.Namespace) -> _Reproduction:
    from jnnk import models
    from jnnk.jobs.overlap_epochs import Trajectory
    from jnnk.jobs.overlap_pair import Network
    from jnnk.jobs.reproduce_overlap import Inputs, reproduce_overlap

    convnet, dataset, _ = _load(_shared(args)._replace(model="convnet6"))
    resnet = models.create("resnet20", num_classes=10, shortcut="B")
    trajectories, pair = [], []
    try:
        for name in ("dropout", "overfit"):
            archive = args.shared / "reference" / f"deepnnk_ch32_{name}.npz"
            load = functools.partial(_load_epoch, convnet, archive)
            load(0)  # is the file there?
            trajectories.append(Trajectory(f"ch32_{name}", convnet, 20, load))
        for name in ("dense", "channel_regularized"):
            file = args.shared / "weights" / f"resnet20_projection_{name}_cifar10.safetensors"
            weights = models.load_safetensors(resnet, file)
            pair.append(Network(name.replace("_", " "), resnet, weights))
    except models.WeightsError as error:
        raise InputError(str(error)) from None
    inputs = Inputs(
        create=lambda rate: models.create("convnet5", num_classes=2, dropout=rate),
        run_dataset=dataset,
        pair=pair,
        pair_dataset=_normalized(dataset, 0.5, 0.5),
        trajectories=trajectories,
        trajectory_dataset=_normalized(dataset, 0.0, 1.0),
    )
    return lambda progress: reproduce_overlap(args.out, inputs, progress=progress)["last_errors"]


def _normalized(dataset, mean: float, std: float):
    """The data set with the normalisation that public weights were trained with."""
    return dataset._replace(
        mean=np.full_like(dataset.mean, mean), std=np.full_like(dataset.std, std)
    )


def _load_epoch(model, archive: pathlib.Path, epoch: int) -> dict:
    from jnnk import models

    return models.load_npz(model, archive, prefix=f"epoch{epoch:02d}/")


def _prepare(args: argparse.Namespace) -> None:
    from jnnk.data import prepare

    prepare(args.dataset, args.data_dir)


@contextlib.contextmanager
def _opened(args: argparse.Namespace) -> Iterator[tuple]:
    """The run folder an analysis command works on, with its model and data set."""
    from jnnk.jobs.train import train_config
    from jnnk.runs import locked, open_run

    run = open_run(args.run)
    config = train_config(run)
    if args.data_dir is not None:
        config = config._replace(data_dir=args.data_dir)
    with locked(run.path):
        model, dataset, _ = _load(config._replace(weights=None))
        yield run, model, dataset


def _load(config: TrainConfig) -> tuple:
    """Data set, model for it, and the variables to start from if weights are given."""
    import jax

    from jnnk import models
    from jnnk.data import load

    create = functools.partial(models.create, config.model, shortcut=config.shortcut)
    options = _model_options(config.model_options)
    try:
        create(num_classes=1, **options)  # before the data: a wrong name should not wait for it
        dataset = load(config.dataset, data_dir=config.data_dir)
        model = create(num_classes=len(dataset.class_names), **options)
        image = np.zeros((1, *dataset.train_images.shape[1:]), np.float32)
        jax.eval_shape(model.init, jax.random.key(0), image)  # does the network fit the images?
    except ValueError as error:
        raise InputError(str(error)) from error
    dataset = dataset._replace(
        mean=_by_channel("--mean", config.mean, dataset.mean),
        std=_by_channel("--std", config.std, dataset.std),
    )
    if config.weights is None:
        return model, dataset, None
    try:
        return model, dataset, models.load_safetensors(model, config.weights)
    except models.WeightsError as error:
        raise InputError(str(error)) from None


def _model_options(texts: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` texts as keywords, numbers as numbers."""
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--model-options: expected NAME=VALUE, got {text!r}")
        try:
            options[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[name] = value
    return options


def _by_channel(option: str, given: tuple[float, ...] | None, default: np.ndarray) -> np.ndarray:
    """A normalisation given as one number for all channels or as one each."""
    if given is None:
        return default
    if len(given) not in (1, len(default)):
        raise InputError(f"{option}: expected 1 or {len(default)} numbers, got {len(given)}")
    return np.broadcast_to(np.asarray(given, np.float32), default.shape)


def _report_on(run) -> None:
    from jnnk.jobs.report import report

    path = report(run)
    _show_summary(run)
    _say_where(path)


def _show_summary(run) -> None:
    """The last numbers of every part that has run, as a table."""
    from jnnk.jobs.report import collect, summary

    table = rich.table.Table(show_header=False, box=None)
    for value, meaning in summary(collect(run)):
        table.add_row(meaning, f"[bold]{escape(value)}[/]")
    _out.print(table)


def _show_table(records: list[dict], *, width: int = 0) -> None:
    table = rich.table.Table(*(records[0] if records else ()))
    for record in records:
        table.add_row(*map(_cell, record.values()))
    Console(width=max(width, _out.width), quiet=_out.quiet).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _say_where(path: pathlib.Path) -> None:
    _out.print(f"report: {escape(str(path.absolute()))}", soft_wrap=True, highlight=False)


def _progress():
    if _out.quiet:  # another process speaks
        return Silent()
    return _Bars() if _err.is_terminal else _Lines()


class _Bars:
    """Progress as bars, on a terminal."""

    @contextlib.contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Iterator["_Bar"]:
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            rich.progress.TextColumn("{task.fields[values]}"),
            rich.progress.TimeRemainingColumn(),
        )
        with rich.progress.Progress(*columns, console=_err) as progress:
            yield _Bar(progress, progress.add_task(description, total=total, unit=unit, values=""))


class _Bar:
    def __init__(self, progress: rich.progress.Progress, task: rich.progress.TaskID):
        self._progress, self._task = progress, task

    def advance(self, amount: int = 1, **values: float) -> None:
        shown = {"values": _values(values)} if values else {}
        self._progress.update(self._task, advance=amount, **shown)


class _Lines:
    """Progress as a line now and then, in a log."""

    @contextlib.contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Iterator["_Line"]:
        line = _Line(description, total, unit)
        yield line
        line.finish()


class _Line:
    _EVERY = 10.0  # seconds

    def __init__(self, description: str, total: int, unit: str):
        self._description, self._total, self._unit = description, total, unit
        self._done, self._values = 0, ""
        self._started = self._said = time.monotonic()

    def advance(self, amount: int = 1, **values: float) -> None:
        self._done += amount
        self._values = _values(values) or self._values
        if time.monotonic() - self._said > self._EVERY:
            self._say()

    def finish(self) -> None:
        self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        _err.print(
            f"{self._description}: {self._done}/{self._total} {self._unit}, "
            f"{self._said - self._started:.0f} s {self._values}",
            soft_wrap=True,
            highlight=False,
        )


def _values(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


_REPRODUCTIONS = {
    "overlap": _reproduce_overlap,
    "pruning": _reproduce_pruning,
    "regularizer": _reproduce_regularizer,
    "early-stopping": _reproduce_early_stopping,
    "channel-pruning": _reproduce_channel_pruning,
}
_COMMANDS = {
    "study": _study,
    "train": _train,
    "import-weights": _import_weights,
    "overlap": _overlap,
    "prune": _prune,
    "report": _report,
    "reproduce": _reproduce,
    "prepare": _prepare,
}

if __name__ == "__main__":
    sys.exit(main())
