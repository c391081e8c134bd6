"""The counter-based hash: uniform, independent along every axis, and the same numbers for ever."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalyze.rng import AUGMENT, MIX, ORDER, permutation, uniforms, words

SEEDS = st.integers(-(2**70), 2**70)


def test_golden_values() -> None:
    """A change here changes every augmentation and every resumed run: it needs a note in the changelog."""
    assert words(42, 0, [0, 1], 2).tolist() == [
        [8526482045991867029, 17130350335831397110],
        [14443647982935939980, 4037020448717872246],
    ]
    assert words(-1, 7, [2**40], 1, stream=AUGMENT).tolist() == [[9346056140100423107]]
    assert permutation(42, 3, 10).tolist() == [9, 4, 1, 6, 3, 0, 7, 5, 8, 2]


@settings(deadline=None)
@given(SEEDS, st.integers(0, 1000), st.lists(st.integers(0, 2**62), min_size=1, max_size=20), st.integers(1, 8))
def test_a_number_depends_on_its_address_alone(seed: int, epoch: int, positions: list[int], n: int) -> None:
    together = uniforms(seed, epoch, positions, n)
    assert together.shape == (len(positions), n)
    assert together.dtype == np.float64
    assert ((together >= 0) & (together < 1)).all()
    alone = np.concatenate([uniforms(seed, epoch, [position], n + 3)[:, :n] for position in positions])
    assert (together == alone).all()


@settings(deadline=None)
@given(SEEDS, st.integers(0, 1000), st.integers(0, 300))
def test_permutation_holds_each_index_once(seed: int, epoch: int, n: int) -> None:
    order = permutation(seed, epoch, n)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


def test_every_order_of_four_is_equally_likely() -> None:
    orders = [tuple(permutation(1, epoch, 4).tolist()) for epoch in range(4800)]
    counts = np.array([orders.count(order) for order in itertools.permutations(range(4))])
    assert _chi_square_sigmas(counts) < 4


def test_seed_epoch_position_column_and_stream_all_count() -> None:
    addresses = [(seed, epoch, stream) for seed in range(-3, 4) for epoch in range(8) for stream in (ORDER, AUGMENT, MIX)]
    drawn = np.concatenate([words(seed, epoch, np.arange(50), 20, stream=stream).ravel() for seed, epoch, stream in addresses])
    assert len(np.unique(drawn)) == len(drawn)


@pytest.mark.parametrize("axis", ["positions", "epochs", "seeds", "columns", "strided"])
def test_uniform_along_every_axis(axis: str) -> None:
    u = _sequence(axis)
    counts = np.bincount((u * 256).astype(int), minlength=256)
    assert abs(_chi_square_sigmas(counts)) < 4
    assert abs(u.mean() - 0.5) < 4 / math.sqrt(12 * len(u))
    # Kolmogorov-Smirnov, well above its 0.1 % point
    gap = np.abs(np.sort(u) - (np.arange(len(u)) + 0.5) / len(u)).max()
    assert gap * math.sqrt(len(u)) < 2.0


@pytest.mark.parametrize("axis", ["positions", "epochs", "seeds", "columns", "strided"])
def test_neighbours_are_independent(axis: str) -> None:
    u = _sequence(axis)
    for lag in (1, 2, 7):
        a, b = u[:-lag], u[lag:]
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(len(a))
        pairs = np.bincount((a * 16).astype(int) * 16 + (b * 16).astype(int), minlength=256)
        assert abs(_chi_square_sigmas(pairs)) < 4.5


def test_one_step_in_the_address_flips_half_of_the_bits() -> None:
    positions = np.arange(4000)
    base = words(5, 9, positions, 1)
    for other in (
        words(6, 9, positions, 1),
        words(5, 10, positions, 1),
        words(5, 9, positions + 1, 1),
        words(5, 9, positions, 2)[:, 1:],
    ):
        flips = np.unpackbits((base ^ other).view(np.uint8).reshape(len(positions), 8), axis=1)
        assert abs(flips.mean() - 0.5) < 4 * 0.5 / math.sqrt(flips.size)
        assert np.abs(flips.mean(axis=0) - 0.5).max() < 5 * 0.5 / math.sqrt(len(positions))


def test_positions_must_be_whole_numbers() -> None:
    with pytest.raises(TypeError):
        uniforms(1, 0, [0.5], 1)


def _sequence(axis: str) -> np.ndarray:
    n = 20_000
    if axis == "positions":
        return uniforms(42, 3, np.arange(n), 1)[:, 0]
    if axis == "strided":
        return uniforms(42, 3, np.arange(n) << 20, 1)[:, 0]
    if axis == "columns":
        return uniforms(42, 3, [11], n)[0]
    pairs = [(i, 0) if axis == "seeds" else (42, i) for i in range(4000)]
    return np.array([uniforms(seed, epoch, [5], 1)[0, 0] for seed, epoch in pairs])


def _chi_square_sigmas(counts: np.ndarray) -> float:
    """How many standard deviations chi-square lies from its mean under equal cells (both signs are suspicious)."""
    expected, free = counts.mean(), len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - free) / math.sqrt(2 * free))
