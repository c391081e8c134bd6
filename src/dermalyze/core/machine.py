"""Cores and memory of this process; imports only the standard library."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

from dermalyze.errors import UsageError


def available_cores() -> int:
    """Cores this process may use, which a container or `taskset` can make fewer than the machine has.

    >>> 1 <= available_cores() <= (os.cpu_count() or 1)
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def session_threads() -> int:
    """Threads for one pass of a network: 0, the library's choice (one per physical core), unless this process may use fewer.

    A library counts the machine's cores; by `taskset` or a container's quota a process may have less.

    >>> 0 <= session_threads() <= (os.cpu_count() or 1)
    True
    """
    cores = available_cores()
    with contextlib.suppress(OSError, ValueError):  # cgroup v2; "max" is no number
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = max(1, min(cores, int(quota) // int(period)))
    return cores if cores < (os.cpu_count() or 1) else 0


def pass_threads(asked: int | None) -> int:
    """Threads for one pass of a network: as many as are asked for, but no more than cores; 0 is the library's own choice.

    More threads than cores spin while they wait; a thousand of them never finish.

    Raises:
        UsageError: fewer than one.

    >>> pass_threads(1), pass_threads(100_000) == os.cpu_count()
    (1, True)
    """
    if asked is None:
        return session_threads()
    if asked < 1:
        raise UsageError(f"threads is {asked}, must be 1 or more; None takes one per core")
    return min(asked, os.cpu_count() or 1)


def available_memory_bytes() -> int | None:
    """Memory that can be had without swapping; the container's limit where it is lower; None where the system does not say.

    >>> available_memory_bytes() is None or available_memory_bytes() > 0
    True
    """
    free: list[int] = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # cgroup v2; "max" is no number
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        free.append(max(1, limit - used))
    return min(free, default=None)


def step_back(nice: int = 5) -> None:
    """Lower the priority of this thread where the system knows priorities of threads (Linux); elsewhere nothing happens.

    For work that takes a core as long as there is any, beside a thread that must answer at once.

    >>> import threading
    >>> worker = threading.Thread(target=step_back)
    >>> worker.start(); worker.join()
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
