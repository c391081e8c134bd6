"""`kill -9` at any moment, then the same command: the same bits. `make test-kill` does it 500 times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_twenty_kills_change_nothing() -> None:
    program = Path(__file__).parents[1] / "support" / "kill.py"
    done = subprocess.run(
        [sys.executable, program, "--kills", "20", "--seed", "5"], capture_output=True, text=True, timeout=540
    )
    assert "20 kills in " in done.stdout, done.stdout + done.stderr
    assert ": 0 lost, 0 differed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
