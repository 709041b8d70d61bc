"""What was found wrong by reading the code of thinning."""

import time

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from network.thinned import conv

import jnnk
from jnnk import InputError
from jnnk.network import as_model, capture, compact, read, thin
from jnnk.network._thinning_files import load_thinning, save_thinning
from jnnk.pruning import summarize

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(4, 6, 6, 3)), jnp.float32)


def drawn(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def all_kept(variables):
    return jax.tree.map(lambda leaf: jnp.ones((1,) * leaf.ndim), variables)


def close(found, expected):
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * scale)


def test_reversed_filters_are_not_taken_for_those_in_order():
    def apply_fn(v, x):
        maps = jax.nn.relu(conv(x, v["a"][..., ::-1]))
        return conv(maps, v["b"]).mean((1, 2))

    variables = {"a": drawn(3, 3, 3, 4), "b": drawn(3, 3, 4, 5)}
    network = read(apply_fn, variables, IMAGES)
    assert [conv.name for conv in network.convs] == ["b"]
    assert "reversed" in network.left_out[0].reason
    assert all(group.reason for group in network.groups())


def test_kernels_turned_around_are_kernels():
    def apply_fn(v, x):
        return conv(jax.nn.relu(conv(x, v["a"][::-1, ::-1])), v["b"]).mean((1, 2))

    network = read(apply_fn, {"a": drawn(3, 3, 3, 4), "b": drawn(3, 3, 4, 5)}, IMAGES)
    assert [conv.name for conv in network.convs] == ["a", "b"]
    assert any(group.reason is None and group.size == 4 for group in network.groups())


@pytest.mark.parametrize("times", [1, 2])
def test_activations_are_in_the_order_of_the_filters(times):
    def apply_fn(v, x):
        maps = conv(x, v["a"])
        for _ in range(times):
            maps = maps[..., ::-1]
        return jax.nn.relu(maps).mean((1, 2))

    variables = {"a": drawn(3, 3, 3, 4)}
    (found,) = capture(apply_fn, variables, IMAGES)
    plain = np.asarray(conv(IMAGES, variables["a"]))
    close(found.values, plain if times == 1 else np.maximum(plain, 0))


def of_two(variables, images):
    params = variables["params"]
    return conv(jax.nn.relu(conv(images, params["a"]["w"])), params["b"]["w"]).mean((1, 2))


def test_masks_that_stand_beside_two_parts_are_refused():
    params = {"a": {"w": drawn(3, 3, 3, 4)}, "b": {"w": drawn(3, 3, 4, 5)}}
    variables = {"ema": jax.tree.map(lambda leaf: leaf * 2, params), "params": params}
    masks = all_kept(params)
    with pytest.raises(InputError, match=r"masks: .*each of \['ema'\]\['a'\]\['w'\], \['params'\]"):
        compact(of_two, variables, masks, IMAGES)


def test_masks_of_a_part_stand_beside_the_paths_of_that_part():
    def apply_fn(v, x):
        inner = v["params"]["block"]["a"]["w"]
        return conv(jax.nn.relu(conv(x, v["params"]["a"]["w"])), inner).mean((1, 2))

    params = {"block": {"a": {"w": drawn(3, 3, 4, 4)}}, "a": {"w": drawn(3, 3, 3, 4)}}
    masks = all_kept(params)
    masks["a"]["w"] = jnp.array([0.0, 1, 1, 0])  # both would end like ["a"]["w"]
    _, small = compact(apply_fn, {"params": params}, masks, IMAGES)
    assert small["params"]["a"]["w"].shape == (3, 3, 3, 2)
    assert small["params"]["block"]["a"]["w"].shape == (3, 3, 2, 4)


def test_masks_of_one_key():
    def apply_fn(v, x):
        return conv(jax.nn.relu(conv(x, v["params"]["a"])), v["params"]["b"]).mean((1, 2))

    variables = {"params": {"a": drawn(3, 3, 3, 4), "b": drawn(3, 3, 4, 5)}, "rate": jnp.ones(2)}
    masks = {"a": jnp.array([0.0, 1, 1, 0]), "b": jnp.ones(())}
    _, small = compact(apply_fn, variables, masks, IMAGES)
    assert small["params"]["a"].shape == (3, 3, 3, 2)


def test_what_reads_removed_weights_is_refused():
    def apply_fn(v, x):
        return x.mean((1, 2)) @ v["w"] + (jnp.ones((1, 4)) @ v["p"])[:, :2]

    def of_all(v, x):
        return jnp.ones((1, 4)) @ v["p"]

    variables = {"w": drawn(3, 2), "p": drawn(4, 4)}
    thinning = thin(apply_fn, variables, all_kept(variables), IMAGES)
    small = thinning.variables(variables)
    close(thinning.function(apply_fn)(small, IMAGES), apply_fn(variables, IMAGES))
    with pytest.raises(InputError, match=r"removed weights of \['p'\]"):
        thinning.function(of_all)(small, IMAGES)


@pytest.mark.parametrize("batch", [4, 5])
def test_results_shaped_as_the_variables_are_results(batch):
    masks, kernel, images = jnp.array([0.0, 1, 0, 0]), drawn(4, 4), drawn(batch, 4)
    small, small_kernel = compact(lambda w, x: x @ w, kernel, masks, images)
    close(small(small_kernel, images), images @ (kernel * masks))

    def both(v, x):
        return [x @ v[0], x @ v[1]]

    small, small_kernels = compact(both, [kernel, kernel], [masks, masks], images)
    close(small(small_kernels, images)[1], images @ (kernel * masks))


def test_a_function_inside_that_knows_the_batch_is_analysed_anew():
    def apply_fn(v, x):
        number = x.shape[0]

        @jax.custom_jvp
        def times(y):
            return y * number

        times.defjvp(lambda y, t: (times(y[0]), t[0] * number))
        return times(conv(x, v["a"]) + v["b"]).mean((1, 2)) @ v["head"]

    variables = {"a": drawn(3, 3, 3, 2), "b": drawn(2), "head": drawn(2, 3)}
    masks = all_kept(variables) | {"a": jnp.array([0.0, 1.0])}
    small, small_variables = compact(apply_fn, variables, masks, IMAGES[:2])
    for batch in (2, 4):
        expected = apply_fn(jnnk.apply_masks(variables, masks), IMAGES[:batch])
        close(small(small_variables, IMAGES[:batch]), expected)


def test_a_shuffle_by_the_batch_is_analysed_anew():
    def apply_fn(v, x):
        maps = conv(x, v["a"]) + v["b"]
        shape = (*maps.shape[:-1], *((2, 3) if len(x) == 2 else (3, 2)))
        return maps.reshape(shape).swapaxes(-1, -2).reshape(maps.shape).mean((1, 2)) @ v["head"]

    variables = {"a": drawn(3, 3, 3, 6), "b": drawn(6), "head": drawn(6, 3)}
    masks = all_kept(variables) | {"a": jnp.array([0.0, 1, 0, 1, 1, 0])}
    small, small_variables = compact(apply_fn, variables, masks, IMAGES[:2])
    for batch in (2, 4):
        expected = apply_fn(jnnk.apply_masks(variables, masks), IMAGES[:batch])
        close(small(small_variables, IMAGES[:batch]), expected)


def test_complex_constants_come_back(tmp_path):
    def apply_fn(v, x):
        spectrum = jnp.fft.fft(conv(x, v["a"]).mean((1, 2)) + v["b"])
        return jnp.abs(spectrum * jnp.exp(lax.complex(v["phase"], v["phase"])) * v["turn"])

    variables = {"a": drawn(3, 3, 3, 4), "b": drawn(4), "phase": drawn(4)}
    variables["turn"] = lax.complex(drawn(4), drawn(4))
    masks = all_kept(variables) | {"a": jnp.zeros(())}
    thinning = thin(apply_fn, variables, masks, IMAGES)
    save_thinning(thinning, tmp_path / "thinning.safetensors")
    loaded = load_thinning(tmp_path / "thinning.safetensors")
    expected = apply_fn(jnnk.apply_masks(variables, masks), IMAGES)
    for each in (thinning, loaded):
        close(each.function(apply_fn)(each.variables(variables), IMAGES), expected)


@pytest.mark.parametrize(
    ("function", "role"),
    [
        (lambda y, s: y * s, "scale"),
        (lambda y, s: y / s, "statistic"),
        (lambda y, s: s / y, "scale"),
        (lambda y, s: y + s, "shift"),
    ],
)
def test_a_divisor_is_no_scale(function, role):
    network = read(
        lambda v, x: jax.nn.relu(function(conv(x, v["a"]), v["s"])).mean((1, 2)),
        {"a": drawn(3, 3, 3, 4), "s": drawn(4)},
        IMAGES,
    )
    assert [leaf.role for leaf in network["a"].channel_leaves] == [role]


class Flattening(nn.Module):
    """A network that flattens its maps."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def test_a_network_that_flattens_is_exported_for_any_batch():
    model = as_model(Flattening())
    variables = model.init(jax.random.key(0), IMAGES[:1])

    def logits(images):
        return model.apply(variables, images)[0]

    (batch,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(jax.jit(logits))(
        jax.ShapeDtypeStruct((batch, *IMAGES.shape[1:]), jnp.float32)
    )
    close(exported.call(IMAGES), logits(IMAGES))


def test_indices_that_are_leaves():
    def apply_fn(v, x):
        maps = conv(x, v["a"])[..., v["order"]]
        return lax.dynamic_slice_in_dim(maps, v["start"], 2, axis=3).mean((1, 2))

    variables = {"a": drawn(3, 3, 3, 4), "order": jnp.array([2, 0, 3]), "start": jnp.array(1)}
    masks = all_kept(variables) | {"a": jnp.array([0.0, 1, 1, 1])}
    small, small_variables = compact(apply_fn, variables, masks, IMAGES)
    expected = apply_fn(jnnk.apply_masks(variables, masks), IMAGES)
    close(jax.jit(small)(small_variables, IMAGES), expected)


def test_windows_past_the_end_are_moved_back_as_jax_moves_them():
    def apply_fn(v, x):
        rows = x.mean((1, 2)) @ v["w"]
        return jax.vmap(lambda row: lax.dynamic_slice_in_dim(row, 3, 2))(rows)

    variables, masks = {"w": drawn(3, 4)}, {"w": jnp.array([1.0, 1, 0, 1])}
    small, small_variables = compact(apply_fn, variables, masks, IMAGES)
    close(small(small_variables, IMAGES), apply_fn(jnnk.apply_masks(variables, masks), IMAGES))


@jax.custom_vjp
def quantized(x, step):
    """Rounded to steps, with the derivatives of learned step sizes (LSQ)."""
    return jnp.round(x / step) * step


quantized.defvjp(
    lambda x, step: (quantized(x, step), (x, step)),
    lambda kept, g: (g, (g * (jnp.round(kept[0] / kept[1]) - kept[0] / kept[1])).sum()),
)


@jax.custom_jvp
def one_more_of_each(a, b):
    """Two results of two shapes."""
    return a + 1, b + 1


one_more_of_each.defjvp(lambda primals, tangents: (one_more_of_each(*primals), tangents))


def with_a_step(v, x):
    return quantized(conv(x, v["a"]), v["c"][0]).mean((1, 2))


def with_two_shapes(v, x):
    maps, shift = one_more_of_each(conv(x, v["a"]), v["c"])
    return (maps * shift).mean((1, 2))


@pytest.mark.parametrize("apply_fn", [with_a_step, with_two_shapes])
def test_functions_whose_derivatives_are_not_by_element(apply_fn):
    variables = {"a": drawn(3, 3, 3, 4), "c": abs(drawn(4)) + 0.5}
    masks = {"a": jnp.array([0.0, 1, 1, 0]), "c": jnp.ones(())}
    thinning = thin(apply_fn, variables, masks, IMAGES)
    small, small_variables = thinning.function(apply_fn), thinning.variables(variables)
    whole = jnnk.apply_masks(variables, masks)
    close(small(small_variables, IMAGES), apply_fn(whole, IMAGES))
    expected = jax.grad(lambda v: (apply_fn(v, IMAGES) ** 2).sum())(whole)
    found = jax.grad(lambda v: (small(v, IMAGES) ** 2).sum())(small_variables)
    jax.tree.map(close, found, thinning.variables(expected))


def test_sums_of_short_integers_wrap():
    def apply_fn(v, x):
        sevens = jnp.full((640,), 7, jnp.int8)
        total = lax.reduce(sevens, np.int8(0), lax.add, (0,))
        return conv(x, v["a"]).mean((1, 2)) + total.astype(jnp.float32)

    variables, masks = {"a": drawn(3, 3, 3, 4)}, {"a": jnp.array([0.0, 1, 1, 0])}
    small, small_variables = compact(apply_fn, variables, masks, IMAGES)
    close(small(small_variables, IMAGES), apply_fn(jnnk.apply_masks(variables, masks), IMAGES))


def test_nothing_may_be_joined():
    def apply_fn(v, x):
        maps = jnp.concatenate([conv(x, v["a"]), np.zeros((4, 6, 6, 0), np.float32)], axis=3)
        return maps.mean((1, 2))

    variables, masks = {"a": drawn(3, 3, 3, 4)}, {"a": jnp.array([0.0, 1, 1, 0])}
    small, small_variables = compact(apply_fn, variables, masks, IMAGES)
    close(small(small_variables, IMAGES), apply_fn(jnnk.apply_masks(variables, masks), IMAGES))


@pytest.mark.parametrize("shape", [(), (5,), (1, 1, 1, 5), (1, 1, 4, 5), (3, 3, 4, 5)])
def test_masks_of_every_shape_are_summarised(shape):
    params = {"conv": {"kernel": drawn(3, 3, 4, 5)}}
    mask = (RNG.random(shape) < 0.7).astype(np.float32)
    expected = np.broadcast_to(mask, (3, 3, 4, 5)).any((0, 1)).sum()
    summary = summarize(params, {"conv": {"kernel": jnp.asarray(mask)}})
    assert summary.kernels == (20, expected)


def test_a_long_chain_of_products_is_read_at_once():
    def apply_fn(v, x):
        scale = v["s"]
        for _ in range(60):
            scale = scale * scale
        return (conv(x, v["a"]) * scale).mean((1, 2))

    start = time.perf_counter()
    network = read(apply_fn, {"a": drawn(3, 3, 3, 4), "s": drawn(4)}, IMAGES)
    assert time.perf_counter() - start < 20
    assert [leaf.role for leaf in network["a"].channel_leaves] == ["statistic"]


def with_a_kernel_of_images(v, x):
    maps = conv(x, v["a"])  # (4, 6, 6, 5); its images are the kernels' filters
    kernels = maps.transpose((1, 2, 3, 0))
    return lax.conv_general_dilated(
        v["b"], kernels, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def with_a_row_of_a_kernel(v, x):
    hidden = jax.nn.relu(conv(x, v["a"])).mean((1, 2))
    return (hidden @ v["b"] + v["b"][0]).sum(-1)


@pytest.mark.parametrize(
    ("apply_fn", "shape"),
    [(with_a_kernel_of_images, (1, 6, 6, 5)), (with_a_row_of_a_kernel, (5, 7))],
)
def test_kernels_that_are_also_something_else_stay(apply_fn, shape):
    variables = {"a": drawn(3, 3, 3, 5), "b": drawn(*shape)}
    groups = read(apply_fn, variables, IMAGES).groups()
    cut = {str(each.path) for group in groups if not group.reason for each in group.slices}
    assert not any("'b'" in path for path in cut)


class OneConv(nn.Module):
    @nn.compact
    def __call__(self, images):
        return nn.Conv(2, (3, 3))(images).mean((1, 2))


@pytest.mark.parametrize("function", [read, lambda *args: list(capture(*args))])
def test_what_a_network_raises_says_what_it_was_called_with(function):
    variables = OneConv().init(jax.random.key(0), IMAGES)
    with pytest.raises(InputError, match=r"apply_fn: expected a function .*, got int"):
        function(3, variables, IMAGES)
    for apply_fn, given in ((OneConv(), variables), (OneConv().apply, None)):
        with pytest.raises(Exception) as raised:
            function(apply_fn, given, IMAGES)
        (note,) = (note for note in raised.value.__notes__ if note.startswith("jnnk"))
        assert "images float32[" in note and "as_function(model, variables)" in note
        assert ("'params'" if given else "None") in note


def test_what_is_no_network_is_named():
    variables = OneConv().init(jax.random.key(0), IMAGES)
    with pytest.raises(ValueError, match=r"network: expected one read by .*, got str"):
        jnnk.make_masks(variables, criterion="weight", keep_rate=0.5, network="resnet8")
