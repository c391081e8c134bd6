"""What is said of long work where there is no terminal: its cost, once, and nothing of short work."""

from __future__ import annotations

from typing import Any

import pytest

from dermalyze.core import progress as module
from dermalyze.core.progress import progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def work(clock: Clock, total: int, seconds: float, **options: Any) -> None:
    with progress("decode", total, **options) as advance:
        for _ in range(total):
            clock.now += seconds
            advance(1)


def test_the_cost_of_long_work_is_said_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 100, 0.5, cost=True)
    assert capsys.readouterr().err == "decode: 100 images, 2 per second, about 48 s left\n"


@pytest.mark.parametrize(("total", "seconds"), [(100, 0.01), (20, 0.5), (1, 60.0)], ids=["short", "nearly done", "one"])
def test_short_work_is_silent(total: int, seconds: float, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, total, seconds, cost=True)
    assert capsys.readouterr().err == ""


def test_what_is_not_asked_for_is_not_said(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 100, 0.5)
    assert capsys.readouterr().err == ""
