"""The commands that work on run folders: ``overlap``, ``prune``, ``export`` and ``report``."""

import argparse
import pathlib

from jnnk._core.errors import InputError
from jnnk.cli import configs
from jnnk.cli.answers import Answer, report_on
from jnnk.cli.networks import save_artifact, save_networks
from jnnk.cli.own_networks import is_own, require_named
from jnnk.cli.plans import plan_answer
from jnnk.cli.run_folders import Opened, chosen_mesh, fit_graphs, opened_run, tell
from jnnk.files.safe_files import resolved
from jnnk.files.schema import as_object
from jnnk.runs.folder import Run, locked, open_run, refuse_inside_run
from jnnk.runs.progress import Progress


def overlap(args: argparse.Namespace, progress: Progress) -> Answer:
    """Measures the channels of a run; with ``--plan`` says what that would take."""
    from jnnk.jobs.overlap import check_overlap, overlap
    from jnnk.jobs.overlap_plan import plan_overlap

    mesh = chosen_mesh(args)
    with opened_run(args, progress, writes=not args.plan) as (run, model, dataset):
        config = configs.overlap_config(args, run.path)
        config, notes = fit_graphs(config, args, run.path / "overlap", dataset)
        channels = configs.chosen_channels(args)
        check_overlap(run, model, dataset, config, channels=channels)
        tell(notes, progress)
        if args.plan:
            return plan_answer(run, plan_overlap(run, model, dataset, config, mesh=mesh))
        overlap(run, model, dataset, config, channels=channels, progress=progress, mesh=mesh)
        return report_on(run, progress)


def prune(args: argparse.Namespace, progress: Progress) -> Answer:
    """Prunes a run's kernels, once or by a protocol, or its channels."""
    from jnnk.jobs.protocol import protocol
    from jnnk.jobs.prune import prune

    configs.check_beside(args)
    with opened_run(args, progress) as opened:
        run, model, dataset = opened
        if args.channels is not None:
            return _prune_channels(args, opened, progress)
        if args.protocol is None:
            prune(run, model, dataset, configs.prune_config(args, run.path), progress=progress)
        else:
            config = configs.protocol_config(args)
            protocol(run, model, dataset, args.protocol, config, progress=progress)
        return report_on(run, progress)


def _prune_channels(args: argparse.Namespace, opened: Opened, progress: Progress) -> Answer:
    from jnnk.jobs.prune_channels import prune_channels

    run, model, dataset = opened
    config = configs.channel_config(args, run.path)
    folder = run.path / "channels" / args.channels
    config, notes = fit_graphs(config, args, folder, dataset)
    tell(notes, progress)
    result = prune_channels(run, model, dataset, config, progress=progress)
    shown = {"criterion": result.criterion, "share": result.share, **as_object(result.pruned)}
    where = run.path.absolute() / "channels" / args.channels
    return Answer({"run": run.path, **as_object(result)}, [("results", str(where))], [shown])


def export(args: argparse.Namespace, progress: Progress) -> Answer:
    """Writes a run's networks as safetensors, pruned ones with their masks, and as StableHLO."""
    from jnnk.jobs.export import artifact, networks
    from jnnk.jobs.networks import network_of
    from jnnk.runs.contents import train_config

    out = resolved(args.out)
    refuse_inside_run(out, of=resolved(args.run))
    with opened_run(args, progress, writes=False) as (run, model, dataset):
        own = network_of(model, dataset) if is_own(train_config(run).model) else None
        states = networks(run, model, dataset)
        files = save_networks(out, model, states, own=own)
        for name, state in states.items():
            try:
                content = artifact(model, state, dataset)
            except InputError as error:
                progress.note(f"{name}.stablehlo is not written: {error}")
            else:
                files.append(save_artifact(out / f"{name}.stablehlo", content))
    return Answer({"run": run.path, "files": files}, [(path.stem, str(path)) for path in files])


def report(args: argparse.Namespace, progress: Progress) -> Answer:
    """Writes the report of a run, or compares several on one page."""
    from jnnk.runs.contents import train_config

    runs = [open_run(path) for path in args.runs]
    for run in runs if args.model is not None else ():
        require_named(train_config(run).model, args.model)
    if len(runs) > 1:
        return _compare(runs, args.out or pathlib.Path("comparison.html"))
    if args.out is not None:
        raise InputError("--out names the page of a comparison: give two run folders or more")
    with locked(runs[0].path, say=progress.note):
        return report_on(runs[0], progress)


def _compare(runs: list[Run], path: pathlib.Path) -> Answer:
    from jnnk.jobs.compare import compare

    path = resolved(path.parent) / path.name
    compared = [{"run": run, **as_object(found)} for run, found in compare(runs, path)]
    return Answer({"report": path, "runs": compared}, [("report", str(path))])
