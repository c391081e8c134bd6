"""Libraries that report how they are used do not: no identifier of this machine is made, and nobody is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving import picture

from dermalyze.serve.predictor.packaged import FOLDER

REPORTS = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
ASK = "from dermalyze.cli import main; main()"
PLAIN = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])"
NOBODY = """
import socket
def refuse(*a, **k): raise SystemExit("somebody is called")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def left_behind(home: Path, *words: str) -> list[str]:
    """Files that a program makes in an empty home."""
    quiet = {name: value for name, value in os.environ.items() if name not in REPORTS and not name.startswith("XDG_")}
    places = {"HOME": str(home), "GITHUB_ACTIONS": "", "TF_BUILD": ""}
    subprocess.run([sys.executable, "-c", *words], env=quiet | places, check=True, capture_output=True, timeout=300)
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it keeps its identifier in other places")
def test_predicting_leaves_no_identifier_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(picture())
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    if not any("onnxruntime" in name for name in left_behind(theirs, PLAIN, str(FOLDER / "model.onnx"))):
        pytest.skip("this build of ONNX Runtime reports nothing")
    assert left_behind(ours, NOBODY + ASK, "predict", str(FOLDER), str(tmp_path / "photo.jpg")) == []
