"""The threads that run networks: a fair share each, and what one image spoils is not the others'."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

import pytest

from dermalyze.errors import ModelError
from dermalyze.serve.predictor.engine import Engine
from dermalyze.serve.server.refusals import Refusal


class Predictor:
    """One that answers with the image itself, and remembers of whom it was asked together."""

    def __init__(self) -> None:
        self.artifact, self.accepted_leak, self.asked = self, None, list[tuple[Any, ...]]()
        self.record = self
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)

    def begin(self, prepared: Any, **known: Any) -> Any:
        return prepared["image"], None

    def answer(self, prepared: list[Any], known: list[Any], explain: Any) -> list[Any]:
        values = [blank.pixels for blank, _ in prepared]
        self.asked.append((*values, explain))
        self.begun.release()
        assert self.gate.wait(60)
        if "bad" in values:
            raise ModelError("NaN")
        return values


class Picture:
    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels


def run(passes: int, values: list[Any], explains: list[Any] | None = None, batch: int = 4) -> tuple[Predictor, list[Any]]:
    """Answers to values of which the first `passes` keep every thread busy until the others wait."""
    predictor, faults = Predictor(), list[int]()
    engine = Engine(batch, passes, lambda: faults.append(1))

    async def ask() -> list[Any]:
        def one(i: int) -> Any:
            picture: Any = Picture(values[i])
            return asyncio.ensure_future(
                engine.answer(predictor, {"image": picture}, {}, (explains or [False] * len(values))[i])
            )  # type: ignore[arg-type]

        tasks = []
        for i in range(passes):
            tasks.append(one(i))
            await asyncio.to_thread(predictor.begun.acquire)
        tasks += [one(i) for i in range(passes, len(values))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        predictor.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    try:
        found = asyncio.run(ask())
    finally:
        engine.close()
    return predictor, found


@pytest.mark.parametrize("passes", [1, 2])
def test_answers_are_those_of_their_own_images(passes: int) -> None:
    values = list(range(20))
    predictor, found = run(passes, values)
    assert found == values
    assert all(len(asked) - 1 <= 4 for asked in predictor.asked)


def test_one_thread_takes_all_that_wait_and_two_their_halves() -> None:
    first, _ = run(1, list(range(5)))
    assert [asked[:-1] for asked in first.asked] == [(0,), (1, 2, 3, 4)]
    second, _ = run(2, list(range(6)))
    assert max(len(asked) - 1 for asked in second.asked) == 2, "of four that wait a thread leaves two to the other"


def test_with_and_without_a_map_are_not_answered_together() -> None:
    predictor, found = run(1, [0, 1, 2, 3], [False, True, True, False])
    assert found == [0, 1, 2, 3]
    assert [asked[:-1] for asked in predictor.asked] == [(0,), (1, 2), (3,)]


def test_a_bad_image_is_not_the_others_fault() -> None:
    _, found = run(1, [0, 1, "bad", 3])
    assert found[:2] == [0, 1]
    assert found[3] == 3
    assert isinstance(found[2], Refusal)
    assert found[2].code == "model_fault"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priorities of their own")
def test_the_networks_let_the_event_loop_go_first() -> None:
    found: list[int] = []

    class Looking(Predictor):
        def answer(self, prepared: list[Any], known: list[Any], explain: Any) -> list[Any]:
            found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return [blank.pixels for blank, _ in prepared]

    engine = Engine(1, 1)
    predictor, picture = Looking(), Picture(7)

    async def ask() -> Any:
        return await engine.answer(predictor, {"image": picture}, {})  # type: ignore[arg-type]

    assert asyncio.run(ask()) == 7
    engine.close()
    assert found[0] > os.getpriority(os.PRIO_PROCESS, 0)
