import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk import pruning
from jnnk.jobs import kernel_analysis
from jnnk.pruning import Threshold, make_masks
from jnnk.report.figures import pruning as figures
from jnnk.runs.records import KernelHistory, Sweep, SweepPoint

CRITERIA = ("det", "det_gram", "weight")


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)

    def conv(*shape):
        return {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)}

    return {
        "conv1": conv(3, 3, 3, 8),
        "conv2": conv(3, 3, 8, 6),
        "fc": {"kernel": jnp.ones((6, 2))},
        "flat": conv(1, 3, 6, 4),
        "shortcut": conv(1, 1, 8, 6),
    }


@pytest.fixture(scope="module")
def record(params):
    masks = {name: make_masks(params, criterion=name, keep_rate=0.5) for name in CRITERIA}
    return kernel_analysis.analyse(params, masks, masks["weight"])


def test_magnitudes_equal_numpy_and_leave_out_what_is_never_pruned(params):
    magnitudes = pruning.network_magnitudes(params, CRITERIA)
    assert list(magnitudes["weight"]) == ["conv1", "conv2", "flat"]
    for layer in ("conv1", "conv2"):
        kernel = np.asarray(params[layer]["kernel"], np.float64)
        determinants = np.abs(np.linalg.det(np.moveaxis(kernel, (0, 1), (2, 3))))
        np.testing.assert_allclose(magnitudes["det"][layer], determinants ** (1 / 3), rtol=1e-4)
        # K'K is rounded before its determinant is taken.
        error = magnitudes["det_gram"][layer] ** 6 - determinants**2
        assert (np.abs(error) < 1e-6 * np.linalg.norm(kernel, axis=(0, 1)) ** 6).all()
        np.testing.assert_allclose(
            magnitudes["weight"][layer], np.abs(kernel).mean((0, 1)), rtol=1e-5
        )
    assert magnitudes["weight"]["flat"].shape == (6, 4)


def test_pruned_share_counts_what_a_mask_prunes(params):
    magnitudes = pruning.network_magnitudes(params, CRITERIA)
    for criterion in CRITERIA:
        masks = make_masks(params, criterion=criterion, selection=Threshold(0.6))
        for layer, scores in magnitudes[criterion].items():
            share = pruning.pruned_share(scores, [0.0, 0.6, np.inf])
            pruned = np.asarray(masks[layer]["kernel"] == 0).mean()
            np.testing.assert_allclose(share, [0, pruned, 1], atol=1e-12)


def test_a_kernel_without_a_score_is_pruned_by_every_threshold():
    assert pruning.pruned_share(np.float32([np.nan, 1.0]), [0.0])[0] == 0.5


def test_real_eigenvalues_are_told_from_complex_ones():
    rotation = np.float32([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    symmetric = np.float32([[1, 2, 3], [2, 0, 1], [3, 1, -1]])
    triangular = np.triu(np.ones((3, 3), np.float32))
    kernel = np.stack([rotation, symmetric, triangular], axis=2)[..., None]
    np.testing.assert_array_equal(pruning.has_real_eigenvalues(kernel), [[False], [True], [True]])


def test_random_kernels_are_real_as_often_as_edelman_says():
    kernel = np.random.default_rng(1).normal(size=(3, 3, 100, 200))
    assert pruning.has_real_eigenvalues(kernel).mean() == pytest.approx(
        pruning.chance_of_real(3), abs=4 * 0.5 / np.sqrt(20_000)
    )


def test_eigenvalue_kinds_count_before_and_after_pruning(params):
    masks = make_masks(params, criterion="weight", keep_rate=0.5)
    kinds = pruning.eigenvalue_kinds(params, masks)
    assert [kind.layer for kind in kinds] == ["conv1", "conv2"]  # "flat" has no eigenvalues
    for kind in kinds:
        real = pruning.has_real_eigenvalues(np.asarray(params[kind.layer]["kernel"]))
        kept = np.asarray(masks[kind.layer]["kernel"][0, 0]) != 0
        assert (kind.kernels, kind.real) == (real.size, real.sum())
        assert (kind.kept, kind.kept_real) == (kept.sum(), (real & kept).sum())


def test_agreement_counts_exclusive_intersections():
    pruned = {
        "a": np.array([1, 1, 1, 0, 0, 0], bool),
        "b": np.array([1, 1, 0, 1, 0, 0], bool),
        "c": np.array([0, 0, 0, 1, 0, 0], bool),
    }
    assert pruning.agreement(pruned) == [(("a", "b"), 2), (("a",), 1), (("b", "c"), 1)]
    assert pruning.agreement({}) == []
    assert pruning.agreement({"a": np.zeros(3, bool)}) == []


def test_pruning_score_is_the_papers():
    assert pruning.pruning_score(0.45, 0.9, 250, 1000) == pytest.approx(0.5 * 0.75)
    assert pruning.pruning_score(0.9, 0.9, 1000, 1000) == 0


def test_determinants_of_one_rank_prune_the_same_kernels(record):
    for each in record.agreement:
        assert ("det" in each.criteria) == ("det_gram" in each.criteria)
    total = sum(layer.kernels for layer in record.by_layer)
    for criterion in CRITERIA:
        pruned = sum(layer.shares[criterion] * layer.kernels for layer in record.by_layer)
        assert pruned == pytest.approx(total // 2)


def test_random_alone_has_nothing_to_analyse(params):
    masks = make_masks(params, criterion="random", keep_rate=0.5, key=jax.random.key(0))
    record = kernel_analysis.analyse(params, {"random": masks}, masks)
    assert record.scores == () and record.agreement == ()


def test_history_starts_from_the_median_of_the_last_epoch(params):
    weaker = jax.tree.map(lambda leaf: leaf / 100, params)
    records = kernel_analysis.history({0: weaker, 5: params}, ("det", "weight", "random"))
    assert [record.epoch for record in records] == [0, 5]
    assert set(records[0].shares) == {"det", "weight"}
    first, last = (record.shares["weight"] for record in records)
    assert first == 1 and last == pytest.approx(0.5, abs=0.01)
    assert records[0].real == records[1].real
    below = kernel_analysis.history({5: params}, ("weight",), threshold=0.6)[0].shares["weight"]
    layers = pruning.network_magnitudes(params, ("weight",))["weight"]
    assert below == pytest.approx(np.mean(pruning.whole_network(layers) < 0.6))


def test_every_record_can_be_drawn(record):
    for figure in _draw(record):
        figure.canvas.draw()
        assert all(axis.has_data() for axis in figure.axes)


def _draw(record):
    thresholds, by_threshold = record.thresholds, record.by_threshold
    yield figures.kernel_score_ranges(record.scores, criterion="det")
    yield figures.pruned_by_threshold(thresholds, record.of_network)
    yield figures.pruned_by_threshold_and_layer(thresholds, by_threshold)
    yield figures.eigenvalue_kinds(record.eigenvalues, chance=pruning.chance_of_real(3))
    yield figures.pruned_by_layer(record.by_layer, criteria=CRITERIA)
    yield figures.agreement(record.agreement, criteria=CRITERIA, most=2)
    shares = {"det": 0.5, "weight": 0.4}
    yield figures.history([KernelHistory(epoch=e, real=0.3, shares=shares) for e in (0, 1)])
    points = tuple(
        SweepPoint(share=share, accuracy=1 - share, params=1, score=share * (1 - share))
        for share in (0.0, 0.5)
    )
    sweep = Sweep(images=1, accuracy=1.0, criteria={"det": points})
    yield figures.pruning_sweep(sweep, criterion="det", share=0.5, tolerance=1)
