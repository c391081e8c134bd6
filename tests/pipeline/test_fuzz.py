"""The fuzzer finds nothing, and finds what is planted: a leak and a failure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
PROGRAM = Path(__file__).parents[1] / "support" / "fuzz.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("plant", "uploads", "says"), [("", 2000, "nothing found"), ("leak", 600, "memory grows"), ("failure", 300, "status 500")]
)
def test_fuzzed_uploads(artifact_writer: Callable[..., Path], tmp_path: Path, plant: str, uploads: int, says: str) -> None:
    words = [
        sys.executable,
        str(PROGRAM),
        str(artifact_writer(tmp_path / "artifact")),
        "--uploads",
        str(uploads),
        "--plant",
        plant,
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=3000, check=False)
    assert says in done.stdout, done.stdout + done.stderr
    assert done.returncode == (1 if plant else 0)
