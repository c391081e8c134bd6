"""Processes that decode: killed all at once, the image that comes next is answered all the same."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest
from serving import picture

from dermalyze.imaging.decode import Preprocessing
from dermalyze.serve.server.decoding import Decoders
from dermalyze.serve.server.refusals import Refusal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="decoding processes are bounded and found through /proc")

WHOLE = Preprocessing("squash", 12, 16, 1.0, (0.5,) * 3, (0.5,) * 3)
COUNT = 3


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders(COUNT, memory_mib=256, max_pixels=10**6)
    yield made
    made.close()


def test_all_killed_at_once_and_the_next_image_is_answered(decoders: Decoders) -> None:
    for _ in range(3):
        before = decoders.pids
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert decoders._decode(picture(), WHOLE, time.monotonic() + 60).pixels.shape == (12, 16, 3)
        assert set(decoders.pids) != set(before)


def test_an_image_that_ends_two_processes_is_refused(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[int] = []
    monkeypatch.setattr(decoders, "lost", lambda: lost.append(1))
    send = "dermalyze.serve.server.frames.send"

    def deadly(channel: object, head: object, data: bytes = b"") -> None:
        for pid in decoders.pids:
            os.kill(pid, signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(send, deadly)
        with pytest.raises(Refusal, match="decoding it ends the process"):
            decoders._decode(picture(), WHOLE, time.monotonic() + 60)
    assert len(lost) >= 2
    assert decoders._decode(picture(), WHOLE, time.monotonic() + 60).width == 64


def test_once_closed_no_process_is_started_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Decoders(1, memory_mib=256, max_pixels=10**6)
    worker = next(iter(made._all))
    made.close()
    monkeypatch.setattr(made, "_start", lambda: pytest.fail("a process that nobody will end"))
    with pytest.raises(Refusal, match="stopping"):
        made._replaced(worker)
    assert made.pids == []
