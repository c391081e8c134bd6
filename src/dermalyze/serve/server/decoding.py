"""Decoding in processes of their own: one that an image kills, or that takes too long, is replaced and the server continues."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dermalyze.imaging.decode import Preprocessing
from dermalyze.imaging.quality import Appraisal
from dermalyze.serve.predictor.preparing import Prepared
from dermalyze.serve.server import frames
from dermalyze.serve.server.refusals import Refusal

START_S = 60.0  # a process may take on a busy machine before it is given up
LOOK_S = 0.25  # between looks at whether the processes live
MAX_PIXEL_BYTES = 4096 * 4096 * 3


class Worker:
    """One process and the channel to it."""

    def __init__(self, memory_mib: int) -> None:
        self.channel, theirs = socket.socketpair()
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}  # threads reserve memory
        alone["MALLOC_MMAP_THRESHOLD_"] = "8388608"
        alone["MALLOC_TRIM_THRESHOLD_"] = "33554432"  # memory of ordinary images is kept for the next, not of large ones
        words = [sys.executable, "-P", "-m", "dermalyze.serve.server.decode_worker", str(theirs.fileno()), str(memory_mib)]
        self.process = subprocess.Popen(
            words, pass_fds=[theirs.fileno()], env={**os.environ, **alone}, stdin=subprocess.DEVNULL, close_fds=True
        )
        theirs.close()

    def wait_ready(self) -> None:
        """Until it has started.

        Raises:
            Gone: it has not.
        """
        frames.receive(self.channel, most=0, until=time.monotonic() + START_S)

    def ask(self, data: bytes | memoryview, preprocessing: Preprocessing, max_pixels: int, until: float) -> Prepared:
        """One image's pixels.

        Raises:
            Refusal: of the image.
            Gone: the process has ended or takes too long; it is of no more use.
        """
        self.channel.settimeout(max(0.01, until - time.monotonic()))
        try:
            frames.send(self.channel, {"preprocessing": preprocessing.as_dict(), "max_pixels": max_pixels}, data)
        except OSError as error:
            raise frames.Gone("the channel broke") from error
        head, pixels = frames.receive(self.channel, most=MAX_PIXEL_BYTES, until=until)
        if "code" in head:
            raise Refusal(head["code"], head["message"])
        shape, looks = tuple(head["shape"]), Appraisal(**head["looks"])
        return Prepared(
            np.frombuffer(pixels, np.uint8).reshape(shape), head["width"], head["height"], tuple(head["notes"]), looks
        )

    def end(self) -> None:
        """Kill it and take it off the system's list."""
        self.channel.close()
        self.process.kill()
        self.process.wait()


class Decoders:
    """Some processes that decode, each used by one thread at a time.

    Args:
        count: processes.
        memory_mib: of each, above what it starts with.
        max_pixels: of an image.
        lost: called whenever a process had to be replaced.
    """

    def __init__(self, count: int, memory_mib: int, max_pixels: int, lost: Callable[[], None] = lambda: None) -> None:
        self.memory_mib, self.max_pixels, self.lost = memory_mib, max_pixels, lost
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._all: set[Worker] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decode")
        started = [self._start() for _ in range(count)]
        for worker in started:
            worker.wait_ready()
            self._free.put(worker)
        threading.Thread(target=self._look_after, name="decoders", daemon=True).start()

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        with self._lock:
            return [worker.process.pid for worker in self._all]

    async def decode(self, data: bytes | memoryview, preprocessing: Preprocessing, until: float) -> Prepared:
        """One image's pixels; `until` is `time.monotonic()` after which it is given up.

        Raises:
            Refusal: of the image.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, data, preprocessing, until)

    def close(self) -> None:
        """End the processes."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            for worker in self._all:
                worker.end()
            self._all.clear()

    def _start(self) -> Worker:
        worker = Worker(self.memory_mib)
        with self._lock:
            self._all.add(worker)
        return worker

    def _decode(self, data: bytes | memoryview, preprocessing: Preprocessing, until: float) -> Prepared:
        """By a free process; by a fresh one where that has ended, which need not be this image's doing."""
        try:
            worker = self._free.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise Refusal("too_late", "the request was not answered in time") from None
        try:
            return worker.ask(data, preprocessing, self.max_pixels, until)
        except frames.Gone:
            worker = self._replaced(worker)
            try:
                return worker.ask(data, preprocessing, self.max_pixels, until)
            except frames.Gone:  # by a process that was well when it began
                worker = self._replaced(worker)
                raise Refusal("undecodable", "decoding it ends the process that does so") from None
        finally:
            self._free.put(worker)

    def _replaced(self, worker: Worker) -> Worker:
        """End a process; another that is ready, in its place."""
        self._forget(worker)
        self.lost()
        while not self._closed:
            fresh = self._start()
            try:
                fresh.wait_ready()
            except frames.Gone:  # no memory at the moment, perhaps
                self._forget(fresh)
                time.sleep(LOOK_S)
                continue
            return fresh
        raise Refusal("too_late", "the server is stopping")

    def _forget(self, worker: Worker) -> None:
        worker.end()
        with self._lock:
            self._all.discard(worker)

    def _look_after(self) -> None:
        """Replace a process that ends while nobody uses it."""
        while not self._closed:
            time.sleep(LOOK_S)
            try:
                worker = self._free.get_nowait()
            except queue.Empty:
                continue
            with contextlib.suppress(Refusal):  # the server is stopping
                if worker.process.poll() is not None:
                    worker = self._replaced(worker)
            self._free.put(worker)
