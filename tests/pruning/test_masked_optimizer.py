"""Pruned weights stay exactly zero under every transformation and wrapper of Optax."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

from jnnk.pruning import apply_masks, keep_pruned_zero, make_masks

RNG = np.random.default_rng(0)
PARAMS = {
    "conv": {"kernel": RNG.normal(size=(3, 3, 2, 4)), "bias": np.ones(4)},
    "fc": {"kernel": RNG.normal(size=(4, 3))},
}
PARAMS = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), PARAMS)
TARGET = jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), PARAMS)
KERNELS = {"conv": {"kernel": True, "bias": False}, "fc": {"kernel": False}}
LABELS = {"conv": {"kernel": "a", "bias": "b"}, "fc": {"kernel": "b"}}
INNER = optax.adam(0.1)

#: What the factories ask for, by the name of the argument.
ARGUMENTS = {
    "learning_rate": 0.1, "clipping": 0.1, "max_delta": 1.0, "threshold": 1.0, "max_norm": 1.0,
    "decay": 0.9, "step_size": 0.5, "max_consecutive_errors": 2, "sync_period": 2,
    "slow_step_size": 0.5, "max_backtracking_steps": 4, "max_linesearch_steps": 4, "eta": 0.01,
    "gamma": 0.5, "l2_norm_clip": 1.0, "noise_multiplier": 0.1, "seed": 0, "measure_name": "norm",
    "mask": KERNELS, "freeze_mask": KERNELS, "param_labels": LABELS,
    "inner": INNER, "optimizer": INNER, "fast_optimizer": INNER, "base_optimizer": INNER,
    "tx": INNER, "transforms": {"a": INNER, "b": optax.set_to_zero()},
    "adv_optimizer": optax.chain(optax.contrib.normalize(), optax.sgd(0.05)),
    "should_transform_fn": lambda step, **_: step % 2 == 0,
    "step_size_fn": lambda step: 0.1, "measure": lambda updates: optax.tree.norm(updates),
    "inner_factory": optax.adamw,
}  # fmt: skip
#: Not given by the signature, or wanted besides it.
SPECIAL = {
    "chain": lambda make: make(optax.clip_by_global_norm(1.0), optax.adamw(0.1), optax.ema(0.9)),
    "named_chain": lambda make: make(("clip", optax.clip(1.0)), ("adam", INNER)),
    "inject_hyperparams": lambda make: make(optax.adamw)(learning_rate=lambda step: 0.1),
    "inject_stateful_hyperparams": lambda make: make(optax.adamw)(learning_rate=0.1),
    "stateless": lambda make: make(lambda updates, params: updates),
    "stateless_with_tree_map": lambda make: make(lambda g, p: g + p),
    # A measurement, no update: of use within this.
    "measure_with_ema": lambda make: optax.monitor({"norm": make(optax.tree.norm, decay=0.9)}),
    "snapshot": lambda make: make("norm", lambda updates, *_, **__: optax.tree.norm(updates)),
    "noisy_sgd": lambda make: make(0.1, key=0),
    "add_noise": lambda make: make(0.1, 0.5, key=0),
    "sophia": lambda make: make(0.1, update_interval=2),
    "differentially_private_aggregate": lambda make: make(1.0, 0.1, key=0),
    "selective_transform": lambda make: make(INNER, freeze_mask=KERNELS),
}
PER_EXAMPLE = {"dpsgd", "differentially_private_aggregate"}


def loss(params, *_):
    parts = jax.tree.map(lambda p, t: jnp.sum(jnp.cos(p - t) + 0.1 * p**2), params, TARGET)
    return sum(jax.tree.leaves(parts))


def extras(name, params):
    """What the update of a transformation is given besides."""
    if name in ("lbfgs", "scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"):
        return {"value": loss(params), "grad": jax.grad(loss)(params), "value_fn": loss}
    return {"sam": {}, "sophia": {"obj_fn": loss}}.get(name, {"value": loss(params)})


def factories():
    for module in (optax, optax.contrib):
        for name in sorted(vars(module)):
            make = getattr(module, name)
            if name.startswith("_") or not inspect.isfunction(make):
                continue
            if "GradientTransformation" in str(inspect.signature(make).return_annotation):
                yield name, make


FACTORIES = dict(factories())
del FACTORIES["scale_by_muon"]  # fails by itself on trees; `muon` is tested


def build(name):
    make = FACTORIES[name]
    if name in SPECIAL:
        return SPECIAL[name](make)
    needed = [
        parameter
        for parameter in inspect.signature(make).parameters.values()
        if parameter.default is parameter.empty
    ]
    return make(*(ARGUMENTS[parameter.name] for parameter in needed))


def masks_of(share):
    """A mask of the conv kernels (1, 1, Cin, Cout) and of single weights of the dense layer."""
    draws = np.random.default_rng(1).uniform(size=(1, 1, 2, 4))
    fc = np.random.default_rng(2).uniform(size=(4, 3))
    return {
        "conv": {"kernel": jnp.asarray(draws < share, jnp.float32), "bias": jnp.ones(())},
        "fc": {"kernel": jnp.asarray(fc < share, jnp.float32)},
    }


MASKS = [masks_of(0.8), masks_of(0.8), masks_of(0.4)]


def pruned(tree, masks):
    """Values at the pruned weights."""
    return np.concatenate(
        [
            np.asarray(leaf)[np.broadcast_to(np.asarray(mask) == 0, leaf.shape)]
            for leaf, mask in zip(jax.tree.leaves(tree), jax.tree.leaves(masks), strict=True)
        ]
    )


def test_the_masks_prune():
    assert [len(pruned(PARAMS, masks)) for masks in MASKS] == sorted(
        len(pruned(PARAMS, masks)) for masks in MASKS
    )
    assert 0 < len(pruned(PARAMS, MASKS[0])) < len(pruned(PARAMS, MASKS[-1])) < 80


def steps(optimizer, name, masks_of_steps, *, wrapped):
    """Parameters after each step, as a list of the trees that they hold."""
    params = apply_masks(PARAMS, masks_of_steps[0])
    if name == "lookahead":
        params = optax.LookaheadParams.init_synced(params)
    state = optimizer.init(params)
    for masks in masks_of_steps:
        weights = params.fast if name == "lookahead" else params
        gradients = jax.grad(loss)(weights)
        if not wrapped:
            gradients = apply_masks(gradients, masks)
        if name in PER_EXAMPLE:
            gradients = jax.tree.map(lambda g: jnp.stack([g, 2 * g]), gradients)
        options = {"masks": masks} if wrapped else {}
        updates, state = optimizer.update(
            gradients, state, params, **options, **extras(name, weights)
        )
        params = optax.apply_updates(params, updates)
        yield list(params) if name == "lookahead" else [params]


def check(name):
    """Zeros are exact whatever the mask; the other weights move as they do without the wrapper."""
    plain = optax.with_extra_args_support(build(name))
    with jax.numpy_dtype_promotion("standard"):
        ours = list(steps(keep_pruned_zero(plain), name, MASKS, wrapped=True))
        theirs = list(steps(plain, name, MASKS[:2], wrapped=False))
    for trees, masks in zip(ours, MASKS, strict=True):
        for tree in trees:
            np.testing.assert_array_equal(pruned(tree, masks), 0)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
    if "galore" in name:  # projected moments of the shape of the weights are reset, as documented
        return
    for trees, expected in zip(ours, theirs, strict=False):
        for leaf, other in zip(jax.tree.leaves(trees), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(
                np.asarray(leaf)[np.asarray(leaf) != 0],
                np.asarray(other)[np.asarray(leaf) != 0],
                rtol=1e-4, atol=1e-6,
            )  # fmt: skip


QUICK = ("adamw", "multi_transform", "masked", "lookahead", "muon", "flatten", "sm3", "sam")


@pytest.mark.parametrize("name", QUICK)
def test_transformations_of_every_form_of_state(name):
    check(name)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", sorted(FACTORIES.keys() - set(QUICK)))
def test_every_transformation(name):
    check(name)


@pytest.mark.parametrize(
    "make",
    [
        lambda inner: inner,
        lambda inner: optax.masked(inner, KERNELS),
        lambda inner: optax.multi_transform({"a": inner, "b": optax.sgd(0.1)}, LABELS),
        lambda inner: optax.chain(optax.clip(1.0), inner),
        lambda inner: optax.MultiSteps(inner, 2),
        lambda inner: optax.apply_if_finite(inner, 3),
        lambda inner: optax.inject_hyperparams(lambda rate: inner)(rate=0.1),
        lambda inner: optax.contrib.schedule_free(inner, 0.1),
        lambda inner: optax.contrib.sam(inner, optax.sgd(0.05)),
        lambda inner: optax.contrib.muon(0.1),
        lambda inner: optax.scale_by_lbfgs(memory_size=3),
    ],
)
def test_the_state_keeps_nothing_of_pruned_weights(make):
    optimizer = keep_pruned_zero(make(INNER))
    with jax.numpy_dtype_promotion("standard"):
        params, state = PARAMS, optimizer.init(PARAMS)
        for masks in (*MASKS, MASKS[-1]):
            updates, state = optimizer.update(jax.grad(loss)(params), state, params, masks=masks)
            params = optax.apply_updates(params, updates)
    keep = np.broadcast_to(np.asarray(MASKS[-1]["conv"]["kernel"]) != 0, (3, 3, 2, 4))
    moments = [leaf for leaf in jax.tree.leaves(state) if jnp.shape(leaf)[-4:] == keep.shape]
    assert moments
    for moment in moments:
        np.testing.assert_array_equal(np.asarray(moment)[..., ~keep], 0)
    assert any((np.asarray(moment)[..., keep] != 0).all() for moment in moments)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype):
    """Gradients, parameters or both: pruned weights end at zero, the others move."""
    half = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    masks = MASKS[-1]
    optimizer = keep_pruned_zero(optax.sgd(1e-2, momentum=0.9))
    for params, gradients in ((PARAMS, half), (half, PARAMS), (half, half)):
        with jax.numpy_dtype_promotion("standard"):
            updates, _ = optimizer.update(gradients, optimizer.init(params), params, masks=masks)
            after = optax.apply_updates(params, updates)
        assert after["conv"]["kernel"].dtype == params["conv"]["kernel"].dtype
        np.testing.assert_array_equal(pruned(after, masks), 0)
        assert (np.asarray(after["conv"]["bias"]) < 1).all()


def test_masks_given_once_serve_flax_train_states():
    state = TrainState.create(
        apply_fn=None, params=PARAMS, tx=keep_pruned_zero(optax.adamw(0.1), masks=MASKS[-1])
    )
    step = jax.jit(lambda state: state.apply_gradients(grads=jax.grad(loss)(state.params)))
    with jax.numpy_dtype_promotion("standard"):
        state = step(step(state))
    np.testing.assert_array_equal(pruned(state.params, MASKS[-1]), 0)
    assert (state.params["conv"]["bias"] != PARAMS["conv"]["bias"]).all()

    optimizer = keep_pruned_zero(optax.sgd(0.1), masks=MASKS[0])
    for given, masks in (({}, MASKS[0]), ({"masks": MASKS[-1]}, MASKS[-1])):
        updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, **given)
        after = optax.apply_updates(PARAMS, updates)
        assert (np.asarray(after["conv"]["kernel"]) == 0).sum() == (
            9 * (np.asarray(masks["conv"]["kernel"]) == 0).sum()
        )


def test_an_optimiser_of_a_part_of_the_tree():
    optimizer = optax.masked(keep_pruned_zero(optax.adamw(0.1)), KERNELS)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, masks=MASKS[-1])
    after = optax.apply_updates(PARAMS, updates)["conv"]["kernel"]
    np.testing.assert_array_equal(
        (after == 0).all(axis=(0, 1)), MASKS[-1]["conv"]["kernel"][0, 0] == 0
    )


def test_boxes_around_weights_are_seen_through():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)

    net = Net(nnx.Rngs(0))
    params = nnx.state(net, nnx.Param)
    masks = make_masks(params, criterion="weight", keep_rate=0.5)
    with jax.numpy_dtype_promotion("standard"):
        optimizer = nnx.Optimizer(
            net, keep_pruned_zero(optax.adam(0.1), masks=masks), wrt=nnx.Param
        )
        for _ in range(2):
            optimizer.update(net, jax.tree.map(jnp.ones_like, params))
    keep = np.asarray(masks["conv"]["kernel"][0, 0]) != 0
    assert keep.sum() == 4
    np.testing.assert_array_equal((net.conv.kernel[...] != 0).all(axis=(0, 1)), keep)


def test_missing_masks_are_named():
    optimizer = keep_pruned_zero(optax.sgd(0.1))
    state = optimizer.init(PARAMS)
    with pytest.raises(ValueError, match="masks: expected some"):
        optimizer.update(PARAMS, state, PARAMS)
    with pytest.raises(ValueError, match=r"masks: expected one at \['conv'\]\['bias'\]"):
        optimizer.update(PARAMS, state, PARAMS, masks={"conv": {"kernel": jnp.ones(())}})


def test_what_is_no_transformation_is_named():
    masks = masks_of(0.5)
    for wrong, kind in ((masks, "dict"), (optax.adam, "function"), (None, "NoneType")):
        with pytest.raises(ValueError, match=f"optimizer: .* an Optax transformation.*got {kind}"):
            keep_pruned_zero(wrong)
    with pytest.raises(ValueError, match="got dict"):
        optax.chain(optax.sgd(0.1), keep_pruned_zero(masks))
