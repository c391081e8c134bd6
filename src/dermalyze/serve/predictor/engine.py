"""The threads that run the networks: images that wait are answered together, and the event loop stays free."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dermalyze.core.machine import step_back
from dermalyze.errors import ModelError
from dermalyze.imaging.tabular import Value
from dermalyze.serve.predictor.prediction import Prediction
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.predictor.preparing import Prepared
from dermalyze.serve.server.refusals import Refusal


@dataclass(eq=False)
class Job:
    """One image of a request, waiting.

    Attributes:
        predictor: whose answer it waits for.
        prepared: the sample's images, by name.
        known: its metadata.
        explain: whether its map is wanted, or of which class.
        done: told of the answer, in the event loop.
    """

    predictor: Predictor
    prepared: Mapping[str, Prepared]
    known: Mapping[str, Value]
    explain: bool | str
    done: asyncio.Future[Prediction]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)


class Engine:
    """Answers jobs in order.

    Args:
        batch: images of one pass, at most.
        passes: at once.
        faulty: called whenever the model gives no usable numbers.
    """

    def __init__(self, batch: int, passes: int = 1, faulty: Callable[[], None] = lambda: None) -> None:
        self.batch, self.faulty = batch, faulty
        self._waiting: deque[Job] = deque()
        self._more = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"network {i}", daemon=True) for i in range(passes)]
        for thread in self._threads:
            thread.start()

    async def answer(
        self, predictor: Predictor, prepared: Mapping[str, Prepared], known: Mapping[str, Value], explain: bool | str = False
    ) -> Prediction:
        """The answer for one image, with its class-activation map where `explain` asks for it.

        Raises:
            Refusal: `model_fault`.
        """
        job = Job(predictor, prepared, known, explain, asyncio.get_running_loop().create_future())
        with self._more:
            self._waiting.append(job)
            self._more.notify()
        return await job.done

    def close(self) -> None:
        """End the threads once they have answered what they hold."""
        with self._more:
            self._closed = True
            self._more.notify_all()
        for thread in self._threads:
            thread.join(timeout=5)

    def _work(self) -> None:
        step_back()  # /live and refusals first
        while (jobs := self._take()) is not None:
            for job, result in zip(jobs, self._run(jobs), strict=True):
                job.loop.call_soon_threadsafe(_tell, job.done, result)

    def _take(self) -> list[Job] | None:
        """Jobs of one model: this thread's share of those that wait, without those given up meanwhile. None: it is over."""
        with self._more:
            while True:
                while not self._waiting:
                    if self._closed:
                        return None
                    self._more.wait()
                most = min(self.batch, math.ceil(len(self._waiting) / len(self._threads)))
                taken: list[Job] = []
                while self._waiting and len(taken) < most:
                    if taken and not _alike(self._waiting[0], taken[0]):
                        break
                    job = self._waiting.popleft()
                    if not job.done.done():
                        taken.append(job)
                if taken:
                    return taken

    def _run(self, jobs: Sequence[Job]) -> list[Prediction | BaseException]:
        predictor = jobs[0].predictor
        known = {"index": 0, "sha256": None, "accepted_leak": predictor.artifact.record.accepted_leak}
        try:
            blanks: list[Any] = [predictor.begin(job.prepared, **known) for job in jobs]
            return list(predictor.answer(blanks, [dict(job.known) for job in jobs], jobs[0].explain))
        except ModelError:
            if len(jobs) > 1:  # one image's fault is not the others'
                return [result for job in jobs for result in self._run([job])]
            self.faulty()
            return [Refusal("model_fault", "the model gave no usable numbers for this image")]
        except Exception as error:
            return [error] * len(jobs)


def _alike(one: Job, other: Job) -> bool:
    """Whether they can be answered together."""
    return one.predictor is other.predictor and one.explain == other.explain


def _tell(done: asyncio.Future[Prediction], result: Prediction | BaseException) -> None:
    if done.done():
        return
    if isinstance(result, BaseException):
        done.set_exception(result)
    else:
        done.set_result(result)
