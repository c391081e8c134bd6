"""Device, switches and signals."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest
import torch

from dermalyze.core.machine import available_cores
from dermalyze.core.runtime import applied, choose_runtime, out_of_memory, stop_on_signals
from dermalyze.errors import ResourceError


def runtime(**changes: object):  # type: ignore[no-untyped-def]
    asked = {"device": "cpu", "threads": None, "amp": False, "channels_last": True, "deterministic": True}
    return choose_runtime(**{**asked, **changes})  # type: ignore[arg-type]


def test_a_device_that_is_not_there() -> None:
    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(ResourceError, match=rf"{absent} is not available; available: .*cpu; use device: auto"):
        runtime(device=absent)


def test_choices() -> None:
    assert runtime().precision == "fp32"
    assert runtime(amp=True).precision == "bf16"
    assert runtime().threads == available_cores()
    assert runtime(threads=3).threads == 3
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert runtime(device="auto").device == expected


def test_autocast_computes_in_its_type() -> None:
    weight = torch.ones(4, 4)
    with runtime(amp=True).autocast():
        assert (weight @ weight).dtype == torch.bfloat16
    with runtime().autocast():
        assert (weight @ weight).dtype == torch.float32


@pytest.mark.parametrize("deterministic", [True, False])
def test_switches_are_set_and_put_back_even_after_an_error(deterministic: bool) -> None:
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark)
    with pytest.raises(RuntimeError, match="stop"), applied(runtime(threads=2, deterministic=deterministic)):  # noqa: PT012
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.backends.cudnn.benchmark is not deterministic
        raise RuntimeError("stop")
    after = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark)
    assert after == before


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_remembered_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as request:
        assert request.signal is None
        os.kill(os.getpid(), number)
        assert request.signal == number.name
    assert signal.getsignal(number) is before


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_second_interrupt_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), stop_on_signals():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_nothing_is_caught() -> None:
    seen: list[bool] = []

    def inside() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with stop_on_signals():
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [True]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_out_of_memory(error: BaseException, expected: bool) -> None:
    assert out_of_memory(error) is expected
