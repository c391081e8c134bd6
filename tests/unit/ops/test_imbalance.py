"""Class weights and draw orders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from dermalyze.config.train import BothImbalance, ImbalanceSpec, NoImbalance, SamplingImbalance, WeightsImbalance
from dermalyze.core.errors import ConfigError, DataError
from dermalyze.ops.imbalance import class_weights, draw_order

CLASSES = ["mel", "nv", "df"]
SAMPLING: list[ImbalanceSpec] = [SamplingImbalance(), BothImbalance()]
PLAIN: list[ImbalanceSpec] = [NoImbalance(), WeightsImbalance()]
COUNTS = st.lists(st.integers(1, 40), min_size=2, max_size=7)


@settings(deadline=None)
@given(COUNTS)
def test_full_weights_are_sklearns_balanced_ones(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    names = [str(i) for i in range(len(counts))]
    for spec in (WeightsImbalance(), BothImbalance()):
        np.testing.assert_allclose(class_weights(spec, counts, names), expected, rtol=1e-14)
    np.testing.assert_allclose(class_weights(WeightsImbalance(power=0.5), counts, names), np.sqrt(expected), rtol=1e-14)


def test_no_weights_without_asking() -> None:
    assert class_weights(NoImbalance(), [1, 0, 5], CLASSES) is None
    assert class_weights(SamplingImbalance(), [1, 0, 5], CLASSES) is None


def test_weights_by_hand_follow_the_class_order() -> None:
    spec = WeightsImbalance(values={"df": 3.0, "mel": 1.0, "nv": 0.5})
    np.testing.assert_array_equal(class_weights(spec, [5, 5, 5], CLASSES), [1.0, 0.5, 3.0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mel": 1.0, "nv": 1.0}, "no weight for df"),
        ({"mel": 1.0, "nv": 1.0, "df": 1.0, "mell": 1.0}, "did you mean 'mel'"),
        ({"mel": 0.0, "nv": 1.0, "df": 1.0}, "'mel' is 0.0; it must be above 0"),
        ({"mel": -1.0, "nv": 1.0, "df": 1.0}, "'mel' is -1.0"),
    ],
)
def test_weights_by_hand_that_do_not_fit_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        class_weights(WeightsImbalance(values=values), [5, 5, 5], CLASSES)


@pytest.mark.parametrize("spec", [WeightsImbalance(), BothImbalance()])
def test_weights_of_an_absent_class_are_refused_by_name(spec: ImbalanceSpec) -> None:
    with pytest.raises(DataError, match="no image of class nv, df"):
        class_weights(spec, [5, 0, 0], CLASSES)


@pytest.mark.parametrize("spec", SAMPLING)
def test_sampling_an_absent_class_is_refused(spec: ImbalanceSpec) -> None:
    with pytest.raises(DataError, match="no image of class df"):
        draw_order(spec, [0, 1, 1], seed=1, epoch=0, classes=CLASSES)
    with pytest.raises(DataError, match="no image of class number 1"):
        draw_order(spec, [0, 2, 2], seed=1, epoch=0)
    with pytest.raises(DataError, match="no classes at all"):
        draw_order(spec, [], seed=1, epoch=0)


@pytest.mark.parametrize("spec", PLAIN)
def test_without_sampling_every_row_comes_once(spec: ImbalanceSpec) -> None:
    order = draw_order(spec, [0] * 90 + [1] * 10, seed=1, epoch=0)
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() != list(range(100))


@pytest.mark.parametrize("spec", SAMPLING)
@settings(deadline=None)
@given(counts=COUNTS, seed=st.integers(0, 1000), epoch=st.integers(0, 50))
def test_sampling_draws_each_class_equally_often(spec: ImbalanceSpec, counts: list[int], seed: int, epoch: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    order = draw_order(spec, labels, seed=seed, epoch=epoch)
    assert order.shape == labels.shape
    assert order.dtype == np.int64
    drawn = np.bincount(labels[order], minlength=len(counts))
    assert drawn.max() - drawn.min() <= 1


def test_sampling_reaches_all_members_evenly_and_mixes_the_classes() -> None:
    labels = np.array([0] * 300 + [1] * 30)
    orders = np.stack([draw_order(SamplingImbalance(), labels, seed=3, epoch=epoch) for epoch in range(400)])
    times = np.bincount(orders.ravel(), minlength=330)
    for members, expected in ((slice(0, 300), 400 * 165 / 300), (slice(300, 330), 400 * 165 / 30)):
        chi_square = ((times[members] - expected) ** 2 / expected).sum()
        free = len(times[members]) - 1
        assert abs(chi_square - free) < 4 * np.sqrt(2 * free)
    halves = labels[orders][:, :165].mean()
    assert abs(halves - 0.5) < 0.01


def test_orders_change_with_seed_and_epoch_and_with_nothing_else() -> None:
    labels = np.array([0] * 50 + [1] * 50)
    for spec in (*PLAIN, *SAMPLING):
        first = draw_order(spec, labels, seed=1, epoch=0)
        assert (first == draw_order(spec, labels, seed=1, epoch=0)).all()
        assert (first != draw_order(spec, labels, seed=1, epoch=1)).any()
        assert (first != draw_order(spec, labels, seed=2, epoch=0)).any()
