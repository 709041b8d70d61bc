"""The command line: the one module that prints, and the one that joins models and library.

Exit codes: 0 done, 2 bad input (one line says what), 130 stopped by Ctrl-C.
"""

import argparse
import contextlib
import logging
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import rich.progress
from rich.console import Console
from rich.markup import escape

from jnnk.errors import InputError
from jnnk.jobs.config import OverlapConfig, PruneConfig, TrainConfig, spread_epochs

_out = Console()
_err = Console(stderr=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments, ``sys.argv[1:]`` by default.

    Returns:
        The exit code.
    """
    args = _parser().parse_args(argv)
    # Orbax and TFDS log through absl what our own messages say better.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        args.command(args)
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

    train_config = _train_config(args)
    overlap_config = _overlap_config(args, args.out)
    prune_config = _prune_config(args, args.out)
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
    from jnnk.runs import create_run, locked

    config = _train_config(args)
    model, dataset, variables = _load(config)
    with locked(args.out):
        run = create_run(args.out, config._asdict(), resume=args.resume)
        train(run, model, dataset, variables=variables, progress=_progress())
        _show_summary(run)


def _import_weights(args: argparse.Namespace) -> None:
    """Puts given weights into a run folder: a training of zero epochs that starts from them."""
    args.epochs, args.measure_epochs, args.resume = 0, (0,), False
    args.weights = str(pathlib.Path(args.weights).absolute())
    _train(args)


def _overlap(args: argparse.Namespace) -> None:
    from jnnk.jobs.overlap import overlap

    with _opened(args) as (run, model, dataset):
        overlap(run, model, dataset, _overlap_config(args, run.path), progress=_progress())
        _report_on(run)


def _prune(args: argparse.Namespace) -> None:
    from jnnk.jobs.prune import prune

    with _opened(args) as (run, model, dataset):
        prune(run, model, dataset, _prune_config(args, run.path), progress=_progress())
        _report_on(run)


def _report(args: argparse.Namespace) -> None:
    from jnnk.runs import locked, open_run

    run = open_run(args.run)
    with locked(run.path):
        _report_on(run)


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
    from jnnk import models
    from jnnk.data import load

    try:  # before the data: a wrong name should not wait for it
        models.create(config.model, num_classes=1, shortcut=config.shortcut)
    except ValueError as error:
        raise InputError(str(error)) from None
    dataset = load(config.dataset, data_dir=config.data_dir)
    model = models.create(
        config.model, num_classes=len(dataset.class_names), shortcut=config.shortcut
    )
    if config.weights is None:
        return model, dataset, None
    try:
        return model, dataset, models.load_safetensors(model, config.weights)
    except models.WeightsError as error:
        raise InputError(str(error)) from None


def _train_config(args: argparse.Namespace) -> TrainConfig:
    """The options given, over what a run to be resumed was made with, over the defaults."""
    found = _found(args.out / "config.json") if args.resume else {}
    config = _merged(TrainConfig(), found, args)
    if config.epochs < 0 or config.batch_size < 1:
        raise InputError("--epochs must be 0 or more and --batch-size 1 or more")
    if args.measure_epochs is None and "measure_epochs" not in found:
        config = config._replace(measure_epochs=spread_epochs(config.epochs))
    beyond = [epoch for epoch in config.measure_epochs if not 0 <= epoch <= config.epochs]
    if beyond:
        raise InputError(f"--measure-epochs {beyond}: training has epochs 0 to {config.epochs}")
    return config


def _overlap_config(args: argparse.Namespace, folder: pathlib.Path) -> OverlapConfig:
    config = _merged(OverlapConfig(), _found(folder / "overlap" / "settings.json"), args)
    if config.images < 2 or config.neighbors < 1:
        raise InputError("--images must be 2 or more and --neighbors 1 or more")
    return config


def _prune_config(args: argparse.Namespace, folder: pathlib.Path) -> PruneConfig:
    from jnnk.conv_scores import CRITERIA

    found = _found(folder / "prune" / "settings.json")
    config = _merged(PruneConfig(criteria=tuple(CRITERIA)), found, args)
    unknown = sorted({*config.criteria, config.criterion} - CRITERIA.keys())
    if unknown:
        raise InputError(f"unknown criterion {', '.join(unknown)}; known: {', '.join(CRITERIA)}")
    shares = [*config.shares, *([] if config.share is None else [config.share])]
    if not all(0 <= share < 1 for share in shares):
        raise InputError(f"--share must be 0 or more and less than 1, got {config.share}")
    if config.criterion not in config.criteria:
        config = config._replace(criteria=(*config.criteria, config.criterion))
    return config


def _found(path: pathlib.Path) -> dict[str, Any]:
    from jnnk.runs import read_json

    return read_json(path) if path.exists() else {}


def _merged(defaults: Any, found: dict[str, Any], args: argparse.Namespace) -> Any:
    """A config whose fields come from the options given, else a folder's record, else defaults."""
    fields = {}
    for name in defaults._fields:
        given = getattr(args, name, None)
        value = given if given is not None else found.get(name, getattr(defaults, name))
        fields[name] = tuple(value) if isinstance(value, list) else value
    return type(defaults)(**fields)


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


def _say_where(path: pathlib.Path) -> None:
    _out.print(f"report: {escape(str(path.absolute()))}", soft_wrap=True, highlight=False)


def _progress():
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jnnk",
        description="Channel overlap by NNK graphs and eigenvalue-based pruning of CNNs.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command, *groups, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=command)
        for group in groups:
            group(sub)
        return sub

    add(
        "study", _study, _train_options, _resume_options, _overlap_options, _prune_options,
        help="train, measure overlap, prune, write the report",
    )  # fmt: skip
    add("train", _train, _train_options, _resume_options, help="train a network into a run folder")
    add("import-weights", _import_weights, _weights_options, help="put weights into a run folder")
    sub = add(
        "overlap", _overlap, _run_options, _overlap_options, help="measure the channels of a run"
    )
    sub.add_argument(
        "--at-epochs", type=int, nargs="+", metavar="E", help="default: all checkpoints kept"
    )
    add("prune", _prune, _run_options, _prune_options, help="score and prune the kernels of a run")
    sub = add("report", _report, help="write the report of what a run folder holds")
    sub.add_argument("run", type=pathlib.Path, help="run folder")
    sub = add("prepare", _prepare, help="download and prepare a TFDS set (extra: tfds-prepare)")
    sub.add_argument("dataset", help="TFDS name, such as cifar10")
    sub.add_argument("--data-dir", required=True, help="folder to put it in")
    return parser


def _network_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dataset", help="digits (default), tiny_imagenet, or a TFDS name")
    sub.add_argument("--data-dir", help="folder of the prepared data sets")
    sub.add_argument("--model", help="resnet8 (default), resnet20, resnet50, convnet6, ...")
    sub.add_argument("--shortcut", choices=("A", "B"), help="of CIFAR ResNets (default: A)")
    sub.add_argument("--out", type=pathlib.Path, required=True, help="run folder to make")


def _weights_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("weights", help="safetensors file with PyTorch names")
    _network_options(sub)


def _resume_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--resume", action="store_true", help="go on with the run in --out")


def _train_options(sub: argparse.ArgumentParser) -> None:
    defaults = TrainConfig()
    _network_options(sub)
    sub.add_argument("--weights", help="safetensors file to start from")
    sub.add_argument("--epochs", type=int, help=f"default: {defaults.epochs}")
    sub.add_argument("--batch-size", type=int, help=f"default: {defaults.batch_size}")
    sub.add_argument("--optimizer", choices=("sgd", "adam"), help=f"default: {defaults.optimizer}")
    sub.add_argument("--learning-rate", type=float, help=f"default: {defaults.learning_rate}")
    sub.add_argument("--weight-decay", type=float, help=f"default: {defaults.weight_decay}")
    sub.add_argument("--l1", type=float, help="L1 penalty on conv kernels (default: 0)")
    sub.add_argument("--augment", action=argparse.BooleanOptionalAction, help="default: on")
    sub.add_argument("--seed", type=int, help="default: 0")
    sub.add_argument(
        "--measure-epochs", type=int, nargs="+", metavar="E",
        help="epochs kept for measuring; 0 is the start (default: four, denser early)",
    )  # fmt: skip


def _run_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", type=pathlib.Path, help="run folder")
    sub.add_argument("--data-dir", help="where its data set lies now, if it has moved")


def _overlap_options(sub: argparse.ArgumentParser) -> None:
    defaults = OverlapConfig()
    sub.add_argument(
        "--images", type=int, help=f"training images measured (default: {defaults.images})"
    )
    sub.add_argument(
        "--neighbors", type=int, metavar="K", help=f"candidates (default: {defaults.neighbors})"
    )
    sub.add_argument(
        "--similarity", choices=("gaussian", "cosine"), help=f"default: {defaults.similarity}"
    )
    sub.add_argument("--layers", nargs="+", metavar="PATTERN", help="default: all layers")


def _prune_options(sub: argparse.ArgumentParser) -> None:
    defaults = PruneConfig(criteria=())
    sub.add_argument("--criteria", nargs="+", metavar="NAME", help="swept (default: all)")
    sub.add_argument("--criterion", help=f"pruned by (default: {defaults.criterion})")
    sub.add_argument("--share", type=float, help="share of kernels pruned in the end")
    sub.add_argument(
        "--tolerance", type=float, metavar="POINTS",
        help=f"accuracy to lose at most, without --share (default: {defaults.tolerance})",
    )  # fmt: skip
    sub.add_argument(
        "--sweep-images",
        type=int,
        help=f"test images of the sweep (default: {defaults.sweep_images})",
    )
    sub.add_argument(
        "--finetune-epochs", type=int, help=f"under the mask (default: {defaults.finetune_epochs})"
    )
    sub.add_argument("--finetune-learning-rate", type=float, metavar="RATE")


if __name__ == "__main__":
    sys.exit(main())
