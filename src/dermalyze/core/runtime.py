"""Device, precision, threads, seeds and signals: the process around a training or evaluation."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, Literal

import torch

from dermalyze.core.machine import available_cores
from dermalyze.errors import ResourceError


@dataclass(frozen=True)
class Runtime:
    """The choices a computation runs under; recorded, because a resume has to repeat them.

    Attributes:
        device: "cuda", "mps" or "cpu".
        threads: CPU threads of tensor operations.
        precision: "fp32", or the type autocast computes in ("fp16", "bf16").
        channels_last: memory format of images and convolution weights.
        deterministic: the same bits from the same inputs; never measures to choose.
    """

    device: str
    threads: int
    precision: Literal["fp32", "fp16", "bf16"]
    channels_last: bool
    deterministic: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return asdict(self)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The precision's context for a forward pass."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        context: contextlib.AbstractContextManager[None] = torch.autocast(self.device, dtype=dtype)
        return context


def choose_runtime(*, device: str, threads: int | None, amp: bool, channels_last: bool, deterministic: bool) -> Runtime:
    """Choose device, threads and precision from the request and the hardware.

    Raises:
        ResourceError: the requested device is not available.

    >>> choose_runtime(device="cpu", threads=1, amp=True, channels_last=True, deterministic=True).precision
    'bf16'
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    chosen = next(name for name, present in there.items() if present) if device == "auto" else device
    if not there[chosen]:
        present = ", ".join(name for name, ok in there.items() if ok)
        raise ResourceError(f"train.device: {chosen} is not available; available: {present}; use device: auto")
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    if amp:
        precision = {"cuda": "fp16", "cpu": "bf16"}.get(chosen, "fp32")  # type: ignore[assignment]
    return Runtime(chosen, threads or available_cores(), precision, channels_last, deterministic)


@contextlib.contextmanager
def applied(runtime: Runtime) -> Iterator[None]:
    """Set torch's process-wide switches for the length of a block, then put them back."""
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )
    if runtime.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS documentation, results reproducibility
    _switch(runtime.threads, runtime.deterministic, *([not runtime.deterministic] * 3))
    try:
        yield
    finally:
        _switch(*before)


def _switch(threads: int, deterministic: bool, benchmark: bool, cudnn_tf32: bool, matmul_tf32: bool) -> None:
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs a tenth of a step
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.allow_tf32 = cudnn_tf32
    torch.backends.cuda.matmul.allow_tf32 = matmul_tf32


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or beside it.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."))
    True
    >>> out_of_memory(RuntimeError("shapes differ"))
    False
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    words = (
        "can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "_ALLOC_FAILED", "can't start new thread",
        "could not create a primitive",  # all that oneDNN says of it
    )  # fmt: skip
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


class StopRequest:
    """Remembers that a signal asked the process to stop; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGTERM, SIGINT and SIGHUP for the length of a block (main thread only; elsewhere nothing is caught)."""
    request = StopRequest()
    names = [name for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {getattr(signal, name): signal.signal(getattr(signal, name), request._handle) for name in names}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
