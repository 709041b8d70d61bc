"""All criteria of conv kernels beside the eigenvalues alone, of other libraries."""

import jax
import jax.numpy as jnp
import numpy as np

from accelerator.measure import (
    compiled_together,
    free_torch,
    on_torch,
    seconds_of,
    to_torch,
    torch,
)
from jnnk.pruning import CRITERIA, kernel_scores

FULL = ((3, 94_256), (3, 10_000_000), (5, 100_000), (7, 100_000))
SMALL = ((3, 5_000),)
EIGENVALUE_CRITERIA = ("min_eig", "min_eig_real", "spectral_radius", "spectral_radius_real")
# Matrices that other eigenvalue solvers start with; rates are by matrix.
_SOME = 256


def run(report):
    cases = SMALL if report.small else FULL
    chosen = {"all nine": tuple(CRITERIA), "the four of eigenvalues": EIGENVALUE_CRITERIA}
    programs = compiled_together(
        {
            (case, label): (_scores(names), jax.ShapeDtypeStruct(_shape(*case), jnp.float32))
            for case in cases
            for label, names in chosen.items()
        }
    )
    for side, count in cases:
        name = f"{count:,} kernels {side}x{side}"
        if not report.has_time(name, 10):
            break
        kernels = jax.random.normal(jax.random.key(3), _shape(side, count))
        for label in chosen:
            program = programs[(side, count), label]
            seconds = seconds_of(lambda: program(kernels))  # noqa: B023
            numbers, remarks = {"seconds": seconds}, f"{1e3 * seconds:.3g} ms"
            if "bandwidth" in report.rates:
                read = 4 * count * (side**2 + len(chosen[label]))
                numbers["of_floor"] = read / report.rates["bandwidth"] / seconds
                remarks += f", {100 * numbers['of_floor']:.2g} % of the floor (read once)"
            report.row(
                name,
                f"jnnk, {label}",
                count / seconds,
                "kernels/s",
                compiled=program.seconds,
                remarks=remarks,
                **numbers,
            )
        _peers(report, name, kernels[:, :, 0, :100_000])


def _shape(side, count):
    return side, side, 1, count


def _scores(names):
    def scores(kernels):
        key = jax.random.key(0)
        return [kernel_scores(kernels, name, key=key) for name in names]

    return scores


def _peers(report, name, kernels):
    """Eigenvalues of as many matrices as take about a second, the four criteria not yet made."""
    matrices = jnp.moveaxis(kernels, -1, 0)
    contenders = {"jnp.linalg.eigvals": lambda count: _of_jax(matrices[:count])}
    contenders["np.linalg.eigvals, on the host"] = lambda count: _of_numpy(matrices[:count])
    if torch is not None:
        tensors = to_torch(matrices)
        contenders["torch.linalg.eigvals"] = lambda count: on_torch(
            lambda: torch.linalg.eigvals(tensors[:count])
        )
    for contender, make in contenders.items():
        if not report.has_time(f"{name}, {contender}", 10):
            continue
        try:
            count = min(_SOME, len(matrices))
            seconds = seconds_of(make(count), repeats=1)
            more = min(len(matrices), int(count / max(seconds, 1e-4)))
            if more > 2 * count:
                count, seconds = more, seconds_of(make(more), repeats=2)
        except Exception as error:  # what a library cannot do on this device is a result too
            report.note(f"{name}, {contender}: {type(error).__name__}: {str(error)[:200]}")
            continue
        remarks = f"{count:,} timed, {1e3 * seconds:.3g} ms"
        report.row(name, contender, count / seconds, "kernels/s", remarks=remarks, timed=count)
    free_torch()


def _of_jax(matrices):
    eigenvalues = jax.jit(jnp.linalg.eigvals)
    return lambda: eigenvalues(matrices)


def _of_numpy(matrices):
    host = np.asarray(matrices)
    return lambda: np.linalg.eigvals(host)
