"""Convs with padded channels are convs, on a CPU alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.network._vector_conv import vector_conv


@pytest.mark.parametrize(
    ("channels", "size", "padding", "width", "stride"),
    [
        ((8, 16), 3, 1, 8, 1),
        ((16, 4), 5, 0, 8, 1),
        ((3, 2), 1, 0, 6, 1),
        ((5, 9), 3, 1, 7, 1),
        ((17, 30), 3, 1, 5, 1),
        ((5, 9), 3, 1, 7, 2),
        ((16, 24), 3, 1, 5, 1),
    ],
)
def test_fitted_convs_are_convs(channels, size, padding, width, stride):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 6, width, channels[0])).astype(np.float32)
    kernel = rng.normal(size=(size, size, *channels)).astype(np.float32)
    options = {
        "window_strides": (stride, stride),
        "padding": ((padding, padding),) * 2,
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
    }

    def loss(function, images, kernel):
        return jnp.sum(jnp.sin(function(images, kernel, **options)))

    for fitted, plain in zip(
        *(
            [function(images, kernel, **options),
             *jax.jit(jax.grad(partial(loss, function), (0, 1)))(images, kernel)]
            for function in (vector_conv, jax.lax.conv_general_dilated)
        ),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(fitted, plain, rtol=1e-4, atol=1e-4)


def test_convs_are_fitted_on_a_cpu_alone():
    conv = partial(
        vector_conv,
        window_strides=(1, 1),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    shapes = (jax.ShapeDtypeStruct((1, 8, 8, 8), jnp.float32),
              jax.ShapeDtypeStruct((3, 3, 8, 16), jnp.float32))  # fmt: skip
    for platform, packed in (("cpu", True), ("cuda", False), ("tpu", False)):
        text = jax.export.export(jax.jit(conv), platforms=[platform])(*shapes).mlir_module()
        assert ("tensor<3x4x8x32xf32>" in text) == packed
