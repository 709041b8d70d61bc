"""What `jnnk overlap RUN --plan` says, and what measuring the run then takes.

    python tests/benchmarks/plan.py RUN --images 1000 --neighbors 25

RUN is a trained run folder, the rest are options of `jnnk overlap`. Nothing in RUN is changed: a
copy without its measurements is measured. Seconds are those of measuring alone, without starting
and figures; the peak is that of the process. For several devices set XLA_FLAGS as for `jnnk`.
"""

import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import jnnk.jobs.overlap as job
from jnnk.cli import main


def timed(function):
    """The function, saying what a call took."""

    def call(*arguments, **options):
        start = time.perf_counter()
        result = function(*arguments, **options)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"measured: {seconds:.0f} s, peak {peak:.2f} GiB", flush=True)
        return result

    return call


if __name__ == "__main__":
    run, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "run"
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("overlap", "results.json"))
        command = ["overlap", str(copy), *options]
        # In a process of its own: it would warm up this one.
        jnnk = str(pathlib.Path(sys.executable).with_name("jnnk"))
        subprocess.run([jnnk, *command, "--plan"], check=True)
        job.overlap = timed(job.overlap)
        sys.exit(main([*command, "--quiet"]))
