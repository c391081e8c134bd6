"""What the machine gives this process; needs nothing but the standard library."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Cores this process may use, which a container or `taskset` can make fewer than the machine has.

    >>> 1 <= available_cores() <= (os.cpu_count() or 1)
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
