"""Batches by row: sizes, order, one ahead."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalyze.data.loader import MappedLoader, balanced_batches


@settings(deadline=None)
@given(st.integers(2, 500), st.integers(2, 64))
def test_balanced_batches(count: int, batch_size: int) -> None:
    order = np.random.default_rng(count).permutation(count)
    batches = balanced_batches(order, batch_size)
    sizes = [len(batch) for batch in batches]
    assert np.concatenate(batches).tolist() == order.tolist()
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size or (count == 3 and batch_size == 2) or len(batches) == count // 2
    assert len(batches) <= -(-count // batch_size)


def test_rows_come_in_order_and_as_asked() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 5, 3), dtype=np.uint8)
    rows = [np.array([3, 3, 1]), np.array([19]), np.array([0, 2])]
    got = list(MappedLoader(images).batches(rows))
    assert all(torch.equal(batch, torch.from_numpy(images[chosen])) for batch, chosen in zip(got, rows, strict=True))


def test_no_batches() -> None:
    assert list(MappedLoader(np.zeros((1, 2, 2, 3), np.uint8)).batches([])) == []


def test_a_batch_is_the_reader_s_own() -> None:
    images = np.zeros((2, 2, 2, 3), np.uint8)
    next(iter(MappedLoader(images).batches([np.array([0, 1])]))).fill_(7)
    assert images.sum() == 0


def test_it_stays_one_batch_ahead_and_no_more() -> None:
    gathered: list[int] = []

    class Watched(MappedLoader):
        def _gather(self, rows):  # type: ignore[no-untyped-def]
            gathered.append(int(rows[0]))
            return super()._gather(rows)

    batches = Watched(np.zeros((9, 2, 2, 3), np.uint8)).batches([np.array([i]) for i in range(9)])
    next(batches)
    batches.close()
    assert gathered in ([0], [0, 1])
