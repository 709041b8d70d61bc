"""jnnk on whatever backend JAX finds, beside PyTorch and others: correctness first, then speed.

    python tests/benchmarks/accelerator.py [SECTION ...] [--small | --full] [--out FILE.json]

It needs the checkout alone: no installation, no network and no data. Without PyTorch its rows are
left out. Sections run in the order given (by default all of them), a section that fails prints its
traceback and the others go on; the exit code is 1 then, or where a check fails. What is left to
measure after ``--seconds`` is skipped and named.
"""

import argparse
import sys
import time
import traceback

from accelerator import (
    correctness,
    criteria,
    latency,
    machine,
    neighbors,
    solver,
    training,
)
from accelerator.report import Report

# Each with its part of the time; what one leaves goes to the later ones.
SECTIONS = {
    "machine": (machine.run, 1),
    "correctness": (correctness.run, 6),
    "solver": (solver.run, 6),
    "neighbors": (neighbors.run, 4),
    "criteria": (criteria.run, 3),
    "training": (training.run, 4),
    "latency": (latency.run, 2),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"any of {', '.join(SECTIONS)}"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="small sizes, the default on a CPU")
    size.add_argument("--full", action="store_true", help="full sizes, the default elsewhere")
    parser.add_argument("--seconds", type=float, default=360, help="time in all (360)")
    parser.add_argument("--out", metavar="FILE", help="the same as JSON, written as it goes")
    options = parser.parse_args()
    unknown = set(options.sections) - SECTIONS.keys()
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; known: {', '.join(SECTIONS)}")
    small = options.small or (machine.platform() == "cpu" and not options.full)
    report = Report(machine.describe(), small=small, seconds=options.seconds, out=options.out)
    names = options.sections or list(SECTIONS)
    for number, name in enumerate(names):
        run, part = SECTIONS[name]
        report.begin(name, part / sum(SECTIONS[later][1] for later in names[number:]))
        start = time.perf_counter()
        try:
            run(report)
        except Exception:
            report.failure(traceback.format_exc())
        report.note(f"{name}: {time.perf_counter() - start:.0f} s")
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
