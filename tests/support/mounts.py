"""Mounts that only a test sees."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess


@functools.cache
def own_mounts() -> bool:
    """Whether a process may be given mounts of its own (root, and a machine that allows it)."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"]
    return subprocess.run(words, capture_output=True, timeout=60).returncode == 0
