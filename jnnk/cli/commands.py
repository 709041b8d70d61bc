"""The command line: joins models and library, and is the one module with a console to print on.

Exit codes: see ``jnnk.cli.options.EXIT_CODES``.
"""

import argparse
import ast
import contextlib
import errno
import functools
import logging
import math
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from jnnk._core.errors import InputError, is_out_of_memory
from jnnk._core.extras import require_extra
from jnnk.cli import options
from jnnk.cli.terminal import Answer, Terminal
from jnnk.files.archives import read_folder
from jnnk.files.schema import as_object
from jnnk.runs.folder import Run
from jnnk.runs.progress import Progress, Stoppable
from jnnk.runs.settings import TrainConfig
from jnnk.runs.signals import Signals, Stopped, exit_code

#: What the commands need beyond the library: the extra ``study``, by the names to import.
STUDY = ("PIL", "matplotlib", "orbax", "plotly", "rich", "shtab", "sklearn", "tensorflow_datasets")


class _Reproduction(NamedTuple):
    """A study of the shared data.

    Attributes:
        job: ``(progress) -> rows``: does what is left of it and returns the table to show, dicts or
            records.
        dataset: what it is of.
    """

    job: Callable[..., Sequence[Any]]
    dataset: Any


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments, ``sys.argv[1:]`` by default.

    Returns:
        The exit code.
    """
    try:
        args = options.parser().parse_args(argv)
        require_extra("study", STUDY)
    except InputError as error:
        Terminal(Console(), Console(stderr=True)).error(str(error))
        return 2
    terminal = Terminal(Console(), Console(stderr=True), is_json=args.json, is_quiet=args.quiet)
    _quiet_libraries()
    signals = Signals(
        lambda text: args.quiet or terminal.note(text),
        is_eager=not getattr(args, "distributed", False),
    )
    with signals.noted():
        return _run(args, terminal, signals)


def _run(args: argparse.Namespace, terminal: Terminal, signals: Signals) -> int:
    is_shared = getattr(args, "distributed", False)
    try:
        if is_shared:
            if not _is_first_process():
                terminal.mute()
            signals.install()  # JAX has set a handler of its own
        if args.command in _COMPUTING:
            _find_devices()
        check = _check_together(signals) if is_shared else signals.check
        progress = Stoppable(terminal.progress(), check, is_shared=is_shared)
        answer = _COMMANDS[args.command](args, progress)
        progress.check()
        terminal.show(answer)
    except KeyboardInterrupt as stopped:
        return _stop(getattr(stopped, "signal", signal.SIGINT), args, terminal)
    except InputError as error:
        terminal.error(str(error))
        return 2
    except OSError as error:  # what the system refuses on a file is no defect
        if signals.first and error.errno == errno.EIO:  # the terminal is gone
            return _stop(signals.first, args, terminal)
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.filename is None and not is_full:
            raise
        left = f"; {_how_to_go_on(args)}" if is_full else ""
        terminal.error(f"{error.filename or 'a file'}: {error.strerror}{left}")
        return 2
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or ["no more to have"])[0].rstrip(".")
        terminal.error(f"out of memory: {reason}; {_lower(args)}")
        return 2
    return 0


def _stop(number: int, args: argparse.Namespace, terminal: Terminal) -> int:
    """Says how to go on after a signal; its exit code."""
    with contextlib.suppress(OSError):  # a terminal that is gone
        terminal.note(f"stopped; {_how_to_go_on(args)}")
    return exit_code(number)


def _check_together(signals: Signals) -> Callable[[], None]:
    """A check by which all processes end where one of them was told to."""
    from jnnk.parallel import largest

    def check() -> None:
        if number := largest(signals.first):
            raise Stopped(number)

    return check


def _quiet_libraries() -> None:
    """Leaves out what orbax and TFDS say in their threads of errors that reach us besides."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not isinstance(sys.unraisablehook, functools.partial):
        sys.unraisablehook = functools.partial(_without_closed_loops, sys.unraisablehook)


def _without_closed_loops(usual: Callable[[Any], None], unraisable: Any) -> None:
    # After a write that failed, orbax closes its event loop while tensorstore still calls back.
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        usual(unraisable)


def _how_to_go_on(args: argparse.Namespace) -> str:
    option = " with --resume" if hasattr(args, "resume") else ""
    return f"what is done is kept, and the same command{option} goes on from it"


def _lower(args: argparse.Namespace) -> str:
    """What a command needs less memory with."""
    options = _LOWER.get(args.command, ())
    return f"lower {' or '.join(options)}" if options else "it needs a larger machine"


def _find_devices() -> None:
    """Asks JAX for its devices, which is where a platform that is not there shows."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts where a plugin is missing
        reason = str(error).strip().splitlines()[:1] or ["no device of that kind"]
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise InputError(
            f"JAX finds no device: {reason[0]} (JAX_PLATFORMS is {platforms!r}; without it JAX "
            "takes what is there)"
        ) from None


def _is_first_process() -> bool:
    """Joins the other processes, before anything asks for a device; whether this one speaks."""
    from jnnk.parallel import is_first, join_processes

    join_processes()
    return is_first()


def _study(args: argparse.Namespace, progress: Progress) -> Answer:
    from jnnk.jobs.checks import check_layers
    from jnnk.jobs.study import study
    from jnnk.runs.folder import require_settings

    train_config = options.train_config(args)
    overlap_config = options.overlap_config(args, args.out)
    prune_config = options.prune_config(args, args.out)
    train_config, model, dataset, variables, notes = _prepared(args, train_config, progress)
    folder = args.out / "overlap"
    overlap_config, more = _fit_graphs(overlap_config, args, folder, dataset)
    check_layers(overlap_config.layers, model, dataset)
    with _made(args, train_config, dataset, progress) as run:
        _say((*notes, *more), progress)
        require_settings(run.path / "overlap", overlap_config)
        require_settings(run.path / "prune", prune_config)
        path = study(
            run,
            model,
            dataset,
            overlap_config=overlap_config,
            prune_config=prune_config,
            variables=variables,
            progress=progress,
        )
        answer = _answer(run, path)
        return answer._replace(facts=[*_tested_on(dataset), *answer.facts])


def _train(args: argparse.Namespace, progress: Progress) -> Answer:
    from jnnk.jobs.train import train
    from jnnk.report.output import percent
    from jnnk.runs.divergence import Diverged
    from jnnk.training import make_evaluate

    mesh = _mesh(args)
    config = options.train_config(args)
    config, model, dataset, variables, notes = _prepared(args, config, progress, mesh=mesh)
    with _made(args, config, dataset, progress) as run:
        _say(notes, progress)
        state = train(run, model, dataset, variables=variables, progress=progress, mesh=mesh)
        evaluate = make_evaluate(model, normalization=dataset.normalization, mesh=mesh)
        accuracy = evaluate(state.variables, dataset.test_images, dataset.test_labels)
        if math.isnan(accuracy):
            raise Diverged(f"{run.path}: the network's answers to test images are not finite")
    path = run.path.absolute()
    return Answer(
        {"run": path, "test_accuracy": accuracy, "test_split": dataset.test_split},
        [("test accuracy", percent(accuracy)), *_tested_on(dataset), ("run folder", str(path))],
    )


def _tested_on(dataset) -> list[tuple[str, str]]:
    """What the test images are, where that was chosen."""
    return [("test images", dataset.test_split)] if dataset.test_split else []


def _prepared(
    args: argparse.Namespace, config: TrainConfig, progress: Progress, *, mesh: Any = None
) -> tuple:
    """Settings that fit the data, network, data, weights, and what had to be fitted.

    All that can be refused before there is a folder is refused here.
    """
    from jnnk.jobs.checks import check_memory, check_training, fit_training
    from jnnk.parallel import local_rows
    from jnnk.parallel._mesh import DATA
    from jnnk.runs.folder import refuse_occupied

    refuse_occupied(args.out, resume=args.resume)
    if args.resume:
        _say_places(config, args, progress)
    model, dataset, variables = _load(config)
    shards = 1 if mesh is None else mesh.shape.get(DATA, 1)
    config, notes = fit_training(config, dataset, typed=options.typed(args), shards=shards)
    if mesh is not None:
        local_rows(config.batch_size, mesh)
    check_memory(config, model, dataset)
    check_training(config, model, dataset)
    return config, model, dataset, variables, notes


def _say(notes: Sequence[str], progress: Progress) -> None:
    for note in notes:
        progress.note(note)


@contextlib.contextmanager
def _made(
    args: argparse.Namespace, config: TrainConfig, dataset: Any, progress: Progress
) -> Iterator[Run]:
    """The run folder, locked; gone again where an error comes before the first epoch is done."""
    from jnnk.parallel import is_first
    from jnnk.runs.cores import note_cores
    from jnnk.runs.data_record import record_data
    from jnnk.runs.folder import DATA_RECORD, create_run, locked, open_run, remove_parts

    is_new = not (args.out / "config.json").exists()
    if not is_new and DATA_RECORD in (found := open_run(args.out).config):
        config = config._replace(data_dir=found.get("data_dir"))  # moved: their note tells
    with locked(args.out, say=progress.note):
        run = create_run(args.out, config._asdict(), resume=args.resume)
        try:
            note_cores(run, progress)
            yield record_data(run, dataset, command=args.command)
        except OSError:
            raise  # a full disk: the same command goes on
        except Exception:
            if is_new and is_first() and not (run.path / "metrics.jsonl").exists():
                remove_parts(run.path)
            raise


def _fit_graphs(
    config: Any, args: argparse.Namespace, folder: pathlib.Path, dataset: Any
) -> tuple[Any, tuple[str, ...]]:
    """The settings of graphs, fitted to the number of images, and what had to be."""
    from jnnk.jobs.checks import fit_graphs

    found = options.recorded(folder / "settings.json", type(config), args)
    return fit_graphs(config, dataset, typed=options.typed(args), found=found)


def _import_weights(args: argparse.Namespace, progress: Progress) -> Answer:
    """Puts given weights into a run folder: a training of zero epochs that starts from them."""
    args.epochs, args.measure_epochs, args.resume = 0, (0,), False
    args.mesh, args.distributed = None, False
    args.weights = str(pathlib.Path(args.weights).absolute())
    return _train(args, progress)


def _overlap(args: argparse.Namespace, progress: Progress) -> Answer:
    from jnnk.jobs.overlap import check_overlap, overlap
    from jnnk.jobs.overlap_plan import facts, layer_records, plan_overlap

    mesh = _mesh(args)
    with _opened(args, progress, writes=not args.plan) as (run, model, dataset):
        config = options.overlap_config(args, run.path)
        config, notes = _fit_graphs(config, args, run.path / "overlap", dataset)
        channels = options.chosen_channels(args)
        check_overlap(run, model, dataset, config, channels=channels)
        _say(notes, progress)
        if args.plan:
            plan = plan_overlap(run, model, dataset, config, mesh=mesh)
            return Answer({"run": run.path, "plan": plan}, facts(plan), layer_records(plan))
        overlap(
            run,
            model,
            dataset,
            config,
            channels=channels,
            progress=progress,
            mesh=mesh,
        )
        return _report_on(run, progress)


def _mesh(args: argparse.Namespace):
    """The devices that ``--mesh`` and ``--distributed`` ask for; None for one device's work."""
    from jnnk.parallel import parse_mesh, whole_mesh

    if args.distributed:
        return whole_mesh(args.mesh)
    return None if args.mesh is None else parse_mesh(args.mesh)


def _prune(args: argparse.Namespace, progress: Progress) -> Answer:
    from jnnk.jobs.protocol import protocol
    from jnnk.jobs.prune import prune
    from jnnk.jobs.prune_channels import prune_channels

    with _opened(args, progress) as (run, model, dataset):
        if args.channels is not None:
            config = options.channel_config(args, run.path)
            folder = run.path / "channels" / args.channels
            config, notes = _fit_graphs(config, args, folder, dataset)
            _say(notes, progress)
            result = prune_channels(run, model, dataset, config, progress=progress)
            shown = {"criterion": result.criterion, "share": result.share}
            shown |= as_object(result.pruned)
            where = run.path.absolute() / "channels" / args.channels
            values = {"run": run.path, **as_object(result)}
            return Answer(values, [("results", str(where))], [shown])
        if args.protocol is None:
            prune(run, model, dataset, options.prune_config(args, run.path), progress=progress)
        else:
            config = options.protocol_config(args)
            protocol(run, model, dataset, args.protocol, config, progress=progress)
        return _report_on(run, progress)


def _export(args: argparse.Namespace, progress: Progress) -> Answer:
    from jnnk import models
    from jnnk.files.safe_files import resolved
    from jnnk.jobs.export import networks
    from jnnk.runs.folder import refuse_inside_run

    out, files = resolved(args.out), []
    refuse_inside_run(out, of=resolved(args.run))
    with _opened(args, progress, writes=False) as (run, model, dataset):
        states = networks(run, model, dataset)
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, state in states.items():
                files.append(out / f"{name}.safetensors")
                models.save_safetensors(model, state.variables, files[-1])
                if name != "trained":
                    files.append(out / f"{name}_masks.safetensors")
                    models.save_masks(model, state.variables, state.masks, files[-1])
        except (OSError, models.WeightsError) as error:
            raise InputError(f"--out: {error}") from None
    return Answer({"run": run.path, "files": files}, [(path.stem, str(path)) for path in files])


def _report(args: argparse.Namespace, progress: Progress) -> Answer:
    from jnnk.runs.folder import locked, open_run

    runs = [open_run(path) for path in args.runs]
    if len(runs) > 1:
        return _compare(runs, args.out or pathlib.Path("comparison.html"))
    if args.out is not None:
        raise InputError("--out names the page of a comparison: give two run folders or more")
    with locked(runs[0].path, say=progress.note):
        return _report_on(runs[0], progress)


def _compare(runs: list[Run], path: pathlib.Path) -> Answer:
    from jnnk.files.safe_files import resolved
    from jnnk.jobs.compare import compare

    path = resolved(path.parent) / path.name
    compared = [{"run": run, **as_object(found)} for run, found in compare(runs, path)]
    return Answer({"report": path, "runs": compared}, [("report", str(path))])


def _reproduce(args: argparse.Namespace, progress: Progress) -> Answer:
    from jnnk.files.safe_files import resolved
    from jnnk.runs.data_record import record_study_data
    from jnnk.runs.folder import locked, refuse_foreign, to_json

    args.out = resolved(args.out)
    refuse_foreign(args.out)
    study = _REPRODUCTIONS[args.claim](args)  # before the folder: bad input should leave none
    with locked(args.out, say=progress.note):
        record_study_data(args.out, study.dataset, command=f"reproduce {args.claim}")
        rows = to_json(study.job(progress=progress))
    return Answer({"out": args.out, "rows": rows}, [("results", str(args.out))], rows)


def _reproduce_pruning(args: argparse.Namespace) -> _Reproduction:
    from jnnk.experiments.pruning import reproduce_pruning, summary_table

    networks, dataset = _public_networks(args)
    return _Reproduction(
        lambda progress: summary_table(
            reproduce_pruning(args.out, networks, dataset, progress=progress)
        ),
        dataset,
    )


def _reproduce_regularizer(args: argparse.Namespace) -> _Reproduction:
    from jnnk.experiments.regularizer import reproduce_regularizer

    model, dataset, _ = _load(_shared(args)._replace(dataset="fashion_mnist", model="resnet8"))
    return _Reproduction(
        functools.partial(reproduce_regularizer, args.out, model, dataset), dataset
    )


def _reproduce_early_stopping(args: argparse.Namespace) -> _Reproduction:
    from jnnk import models
    from jnnk.data import only_classes
    from jnnk.experiments.early_stopping import CLASSES, reproduce_early_stopping

    _, dataset, _ = _load(_shared(args))
    dataset = only_classes(dataset, CLASSES)
    model = models.create("convnet5", num_classes=len(CLASSES))
    return _Reproduction(
        functools.partial(reproduce_early_stopping, args.out, model, dataset), dataset
    )


def _shared(args: argparse.Namespace) -> TrainConfig:
    return TrainConfig(dataset="cifar10", data_dir=str(args.shared / "tfds"))


def _reproduce_channel_pruning(args: argparse.Namespace) -> _Reproduction:
    from jnnk.experiments.channel_pruning import reproduce_channel_pruning

    networks, dataset = _public_networks(args)
    return _Reproduction(
        functools.partial(reproduce_channel_pruning, args.out, networks, dataset), dataset
    )


def _public_networks(args: argparse.Namespace) -> tuple:
    """The CIFAR ResNets with their published weights, and CIFAR-10."""
    from jnnk.experiments.network import Network

    networks = []
    for name in ("resnet20", "resnet32"):
        weights = args.shared / "weights" / f"{name}_cifar10.safetensors"
        config = _shared(args)._replace(model=name, weights=str(weights))
        model, dataset, variables = _load(config)
        networks.append(Network(name, model, variables))
    return networks, dataset


def _reproduce_overlap(args: argparse.Namespace) -> _Reproduction:
    from jnnk import models
    from jnnk.experiments.network import Network
    from jnnk.experiments.overlap import Inputs, reproduce_overlap
    from jnnk.experiments.overlap_epochs import Trajectory

    convnet, dataset, _ = _load(_shared(args)._replace(model="convnet6"))
    resnet = models.create("resnet20", num_classes=10, shortcut="B")
    trajectories, pair = [], []
    try:
        for name in ("dropout", "overfit"):
            archive = args.shared / "reference" / f"deepnnk_ch32_{name}.npz"
            load = functools.partial(load_epoch, convnet, archive)
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
    return _Reproduction(
        lambda progress: reproduce_overlap(args.out, inputs, progress=progress).last_errors,
        dataset,
    )


def _normalized(dataset, mean: float, std: float):
    """The data set with the normalisation that public weights were trained with."""
    own = dataset.normalization
    given = own._replace(mean=np.full_like(own.mean, mean), std=np.full_like(own.std, std))
    return dataset._replace(normalization=given)


def load_epoch(model, archive: pathlib.Path, epoch: int) -> dict:
    """The weights that a public ConvNet had at one epoch of its archive."""
    from jnnk import models

    arrays = read_folder(archive, f"epoch{epoch:02d}/")
    try:
        return models.from_tensorflow(model, arrays)
    except models.WeightsError as error:
        raise InputError(f"{archive}: {error}") from None


def _prepare(args: argparse.Namespace, progress: Progress) -> Answer:
    from jnnk.data import prepare

    prepare(args.dataset, args.data_dir)
    return Answer(
        {"dataset": args.dataset, "data_dir": args.data_dir}, [("prepared in", args.data_dir)]
    )


@contextlib.contextmanager
def _opened(
    args: argparse.Namespace, progress: Progress, *, writes: bool = True
) -> Iterator[tuple]:
    """The run folder an analysis command works on, with its model and data set."""
    from jnnk.jobs.train import require_network, train_config
    from jnnk.runs.cores import note_cores
    from jnnk.runs.data_record import check_data, record_data
    from jnnk.runs.folder import locked, open_run

    run = open_run(args.run)
    config = train_config(run)._replace(weights=None)
    _say_places(config, args, progress)
    if args.data_dir is not None:
        config = config._replace(data_dir=args.data_dir)
    with locked(run.path, shared=not writes, say=progress.note):
        model, dataset, _ = _load(config)
        require_network(run)
        if writes:
            note_cores(run, progress)
            run = record_data(run, dataset, command=args.command)
        else:
            check_data(run, dataset)
        yield run, model, dataset


def _say_places(config: TrainConfig, args: argparse.Namespace, progress: Progress) -> None:
    """Says which places outside of a run folder the folder alone names, before they are opened."""
    from jnnk.data import from_anywhere

    given = {name: getattr(args, name, None) for name in ("dataset", "data_dir", "weights")}
    if given["dataset"] is not None:
        _, given["data_dir"] = from_anywhere(given["dataset"], data_dir=given["data_dir"])
    for name, what in (("data_dir", f"the data set {config.dataset}"), ("weights", "weights")):
        place = getattr(config, name)
        if place is not None and given[name] is None:
            progress.note(f"reads {what} in {place}, which the run folder names")


def _load(config: TrainConfig) -> tuple:
    """Data set, model for it, and the variables to start from if weights are given."""
    from jnnk import models
    from jnnk.data import load

    create = functools.partial(models.create, config.model, shortcut=config.shortcut)
    options = _model_options(config.model_options)
    try:
        create(num_classes=2, **options)  # before the data: a wrong name should not wait for it
        dataset = load(config.dataset, data_dir=config.data_dir, image_size=config.image_size)
        model = create(num_classes=len(dataset.class_names), **options)
        image = np.zeros((1, *dataset.train_images.shape[1:]), np.float32)
        jax.eval_shape(model.init, jax.random.key(0), image)  # does the network fit the images?
    except ValueError as error:
        raise InputError(str(error) + _remedy(error, config)) from error
    own = dataset.normalization
    normalization = own._replace(
        mean=_by_channel("--mean", config.mean, own.mean),
        std=_by_channel("--std", config.std, own.std),
    )
    dataset = dataset._replace(normalization=normalization)
    if config.weights is None:
        return model, dataset, None
    try:
        variables = models.load_safetensors(model, config.weights, image_shape=image.shape[1:])
    except models.WeightsError as error:
        raise InputError(str(error)) from None
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if not np.isfinite(leaf).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(f"{config.weights}: {name} holds numbers that are not finite")
    return model, dataset, variables


def _remedy(error: ValueError, config: TrainConfig) -> str:
    """What to give on the command line where the data's error names an argument or function."""
    by_name = {
        "image_size": "--image-size N",
        "prepare": f"jnnk prepare {config.dataset} --data-dir {config.data_dir}",
    }
    remedy = by_name.get(getattr(error, "remedy", None))
    return "" if remedy is None else f"; on the command line: {remedy}"


def _model_options(texts: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` texts as keywords, numbers as numbers."""
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--model-options: expected NAME=VALUE, got {text!r}")
        if name in ("name", "num_classes", "shortcut"):
            raise InputError(
                f"--model-options: {name} is none of them: --model and --shortcut are options of "
                "their own, and the data set tells the number of classes"
            )
        if name in options:
            raise InputError(f"--model-options: {name} comes twice")
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


def _report_on(run: Run, progress: Progress) -> Answer:
    from jnnk.jobs.report import report

    return _answer(run, report(run, progress=progress))


def _answer(run: Run, path: pathlib.Path) -> Answer:
    """The report's path and what one wants to know first."""
    from jnnk.jobs.report import collect
    from jnnk.jobs.train import train_config
    from jnnk.report.headline import answers, headline

    numbers, path = headline(train_config(run), collect(run)), path.absolute()
    facts = [(each.question, f"{each.number} {each.text}") for each in answers(numbers)]
    values = {"run": run.path, "report": path, **as_object(numbers)}
    return Answer(values, [*facts, ("report", str(path))])


_REPRODUCTIONS = {
    "overlap": _reproduce_overlap,
    "pruning": _reproduce_pruning,
    "regularizer": _reproduce_regularizer,
    "early-stopping": _reproduce_early_stopping,
    "channel-pruning": _reproduce_channel_pruning,
}
# Options that most of a command's memory depends on.
_LOWER = {
    "study": ("--batch-size", "--images", "--neighbors"),
    "train": ("--batch-size",),
    "overlap": ("--images", "--neighbors", "--layers (fewer)"),
    "prune": ("--sweep-images",),
}
_COMPUTING = ("study", "train", "import-weights", "overlap", "prune", "export", "reproduce")
_COMMANDS = {
    "study": _study,
    "train": _train,
    "import-weights": _import_weights,
    "overlap": _overlap,
    "prune": _prune,
    "export": _export,
    "report": _report,
    "reproduce": _reproduce,
    "prepare": _prepare,
}
