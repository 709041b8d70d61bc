"""Which machine this is, and the rates that others are compared with."""

import importlib.metadata
import os
import platform as python_platform
import subprocess

import jax
import jax.numpy as jnp

from accelerator.measure import compiled, seconds_of

PACKAGES = ("jax", "jaxlib", "jax-cuda13-plugin", "flax", "optax", "numpy", "scipy", "torch")


def platform() -> str:
    return jax.default_backend()


def describe() -> dict:
    described = {
        "device": jax.devices()[0].device_kind,
        "platform": platform(),
        "processor cores": os.cpu_count(),
        "python": python_platform.python_version(),
    }
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    if platform() == "gpu":
        try:
            described["card, driver, memory"] = subprocess.check_output(query, text=True).strip()
        except OSError as error:
            described["card, driver, memory"] = f"unknown: {error}"
    for package in PACKAGES:
        try:
            described[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            described[package] = "none"
    return described


def run(report):
    """Copy bandwidth (bytes read and written) and matrix products."""
    count = 2**24 if report.small else 2**30
    size = 1024 if report.small else 8192
    vector = jax.random.normal(jax.random.key(0), (count,))
    matrix = jax.random.normal(jax.random.key(1), (size, size))
    copy = compiled(lambda x: x + 1, vector)
    seconds = seconds_of(lambda: copy(vector))
    report.rates["bandwidth"] = 8 * count / seconds
    case = f"{4 * count / 1e9:.2g} GB read and written"
    report.row(case, "x + 1", report.rates["bandwidth"] / 1e9, "GB/s", compiled=copy.seconds)
    for name, dtype, precision in (
        ("float32", jnp.float32, "highest"),
        ("TF32", jnp.float32, "default"),
        ("bfloat16", jnp.bfloat16, "default"),
    ):
        factor = matrix.astype(dtype)
        product = compiled(lambda a: jnp.matmul(a, a, precision=precision), factor)  # noqa: B023
        rate = 2 * size**3 / seconds_of(lambda: product(factor))  # noqa: B023
        report.rates[name] = rate
        case = f"matrix product {size}, {name}"
        report.row(case, precision, rate / 1e12, "TFLOP/s", compiled=product.seconds)
