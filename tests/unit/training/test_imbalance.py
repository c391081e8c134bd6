"""Class weights and draw orders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from dermalyze.config.train import BothImbalance, ImbalanceSpec, NoImbalance, SamplingImbalance, WeightsImbalance
from dermalyze.errors import ConfigError, DataError
from dermalyze.training.imbalance import class_weights, draw_order, source_counts

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


SOURCES = st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=4)


@pytest.mark.parametrize("spec", [*PLAIN, *SAMPLING], ids=lambda spec: spec.kind)
@settings(deadline=None)
@given(table=SOURCES, seed=st.integers(0, 1000), epoch=st.integers(0, 50))
def test_each_source_is_drawn_equally_often_and_its_classes_as_chosen(
    spec: ImbalanceSpec, table: list[list[int]], seed: int, epoch: int
) -> None:
    counts = np.array(table)
    counts[:, 0] += 1  # every source holds something
    counts[0] += 1  # and every class is somewhere
    cells = np.repeat(np.arange(counts.size), counts.ravel())
    cells = np.random.default_rng(seed).permutation(cells)
    sources, labels = np.divmod(cells, 3)
    order = draw_order(spec, labels, seed=seed, epoch=epoch, sources_N=sources)
    assert order.shape == labels.shape
    drawn = np.bincount(sources[order], minlength=len(counts))
    assert drawn.max() - drawn.min() <= 1
    if "sampling" in spec.kind:
        for source in range(len(counts)):
            inside = np.bincount(labels[order][sources[order] == source], minlength=3)
            assert (inside[counts[source] == 0] == 0).all()
            held = inside[counts[source] > 0]
            assert held.max() - held.min() <= 1


def test_rows_of_a_source_are_drawn_evenly_and_as_often_as_expected() -> None:
    sources, labels = np.array([0] * 80 + [1] * 20), np.array([0] * 60 + [1] * 20 + [1] * 5 + [2] * 15)
    expected = source_counts(labels, sources, 3)
    np.testing.assert_allclose(expected, [37.5, 25.0, 37.5])
    orders = np.stack([draw_order(NoImbalance(), labels, seed=3, epoch=epoch, sources_N=sources) for epoch in range(400)])
    times = np.bincount(orders.ravel(), minlength=100)
    for members, mean in ((slice(0, 80), 400 * 50 / 80), (slice(80, 100), 400 * 50 / 20)):
        chi_square = ((times[members] - mean) ** 2 / mean).sum()
        free = len(times[members]) - 1
        assert abs(chi_square - free) < 4 * np.sqrt(2 * free)
    np.testing.assert_allclose(np.bincount(labels[orders.ravel()]) / 400, expected, rtol=0.03)
    assert abs(sources[orders][:, :50].mean() - 0.5) < 0.01, "the sources are mixed within an epoch"


def test_one_source_changes_nothing_in_sampled_classes() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    same = draw_order(SamplingImbalance(), labels, seed=1, epoch=2, sources_N=np.zeros(40, dtype=int))
    np.testing.assert_array_equal(np.bincount(labels[same]), [20, 20])


def test_weights_follow_what_is_drawn() -> None:
    labels, sources = [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1]
    np.testing.assert_allclose(
        class_weights(WeightsImbalance(), source_counts(labels, sources, 2), ["mel", "nv"]), [6 / 9, 2.0]
    )
