"""The best epoch and the end, over a whole training."""

from __future__ import annotations

from typing import Any

import pytest

from dermalyze.tasks.early_stopping import compare_epoch


def run(values: list[float], *, starts: tuple[int, ...] = (0,), last: int = 0, **changes: Any) -> tuple[int, int, str]:
    """Epochs done, the best of them, and why it ended; cycles begin at `starts`, and something is planned until `last`."""
    settings = {"sign": -1, "patience": 2, "min_delta": 0.0, "epochs": len(values), **changes}
    state: dict[str, Any] = {"best": None, "cycle_best": None, "stopped": None}
    epoch = 0
    while state["stopped"] is None:
        start = max(s for s in starts if s <= epoch)
        epoch += 1
        state = compare_epoch(state, epoch=epoch, value=values[epoch - 1], start=start, planned=last >= epoch, **settings)
    return epoch, state["best"]["epoch"], state["stopped"]


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        ([3, 2, 1, 2, 2, 2, 2], {}, (5, 3, "early")),
        ([3, 2, 1, 2, 2, 2, 2], {"sign": 1}, (3, 1, "early")),
        ([3, 2, 1, 2, 2, 2, 2], {"patience": None}, (7, 3, "epochs")),
        ([1, 2, 0, 5], {}, (4, 3, "epochs")),
        ([3, 2.9, 2.8, 2.7], {"min_delta": 0.5}, (3, 3, "early")),
        ([1, 1, 1, 1], {}, (3, 1, "early")),  # as good is not better
        ([1, 2, 5, 4, 3, 2, 2, 2], {"starts": (0, 2)}, (8, 1, "epochs")),  # a new cycle has a best of its own
        ([1, 2, 2, 2, 2, 2, 2, 2, 2], {"last": 5}, (6, 1, "early")),  # what is planned is waited for
        ([1, 2, 2, 2, 2, 2, 2, 2, 2], {"last": 5, "starts": (0, 5)}, (8, 1, "early")),
        ([1, 2, 2, 2], {"last": 9}, (4, 1, "epochs")),
    ],
)
def test_whole_trainings(values: list[float], settings: dict[str, Any], expected: tuple[int, int, str]) -> None:
    assert run(values, **settings) == expected
